"""What was done, told on the next page. Kept here and not in the address: nobody may make the console say things by a link."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from headrace.console import limits


class Notice(NamedTuple):
    """A sentence, and whether it is bad news."""

    text: str
    bad: bool = False


class Notices:
    """Sentences by a random id, each told as often as its page is loaded anew; bounded."""

    def __init__(self) -> None:
        self._told: dict[str, Notice] = {}

    def keep(self, notice: Notice) -> str:
        """The id that an address carries."""
        if len(self._told) >= limits.NOTICES_MAX:
            del self._told[next(iter(self._told))]
        key = secrets.token_urlsafe(9)
        self._told[key] = notice
        return key

    def find(self, key: str) -> Notice | None:
        return self._told.get(key)
