"""What a page is, and what an action is. `pages/` holds them, a module a subject; `site` finds them by path.

    Page(path="/queues/{queue}", template="queue.html", facts=facts)

A page is complete without JavaScript: `facts` gives what is shown, as JSON data; the template makes HTML of it. Its block
`live` is rendered anew every second, once for all who look at that address, and sent to them; so it may depend on nothing but the
facts: no forms, no user, no token. What is read once and stands still (messages that were peeked) comes from `more`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from headrace.console import limits
from headrace.console.history import History
from headrace.console.notices import Notices
from headrace.console.runs import Runs
from headrace.console.snapshot import Snapshot
from headrace.console_settings import ConsoleSettings
from headrace.errors import CallerError
from headrace.native.aio import AsyncClient
from headrace.native.protocol import INTEGER_MAX

T = TypeVar("T")

Facts: TypeAlias = dict[str, Any]
"""What a page shows: what msgspec can write as JSON."""


class NotFound(CallerError):
    """What an address names does not exist; the text says what, and what to do."""


class Refused(CallerError):
    """A form that cannot be obeyed; the text says why."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request, as pages see it.

    Attributes:
        path: the page's own address, without `/api` or `/live`, as sent.
        names: what stands in the path's braces, decoded.
        query, form: last value of each name.
        many: all values of each name of the form.
        user: who is signed in; empty where nobody has to.
    """

    path: str
    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    many: Mapping[str, list[str]] = field(default_factory=dict)
    user: str = ""

    def number(self, name: str, default: int = 0, *, least: int = 0, most: int = INTEGER_MAX) -> int:
        """A number of the query; the default if it is none, or out of range."""
        text = self.query.get(name, "")
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else default
        return value if least <= value <= most else default


def paged(request: PageRequest, lines: Sequence[T]) -> tuple[Sequence[T], Facts]:
    """The lines of the page that `?page=` asks for, and which it is of how many; beyond the last it is the last."""
    pages = max(1, -(-len(lines) // limits.LISTED))
    number = min(request.number("page", 1, least=1), pages)
    shown = lines[(number - 1) * limits.LISTED : number * limits.LISTED]
    return shown, {"page": number, "pages": pages}


@dataclass(frozen=True, slots=True)
class PageContext:
    """What pages work with."""

    client: AsyncClient
    settings: ConsoleSettings
    history: History
    notices: Notices
    snapshot: Callable[[], Snapshot]
    now_s: Callable[[], float]
    """Wall time: what the history goes by."""
    runs: Runs = field(default_factory=Runs)


@dataclass(frozen=True, slots=True)
class Page:
    """Attributes:
    path: with names in braces: `/queues/{queue}`. A name takes one part of a path.
    template: its file in `templates/`, with the blocks `title`, `live` and `rest`.
    facts: what is shown, also live. Raises NotFound.
    more: what is read once, with the page; its facts are put beside the others.
    live: whether it has a live part.
    section: which entry of the navigation is marked.
    """

    path: str
    template: str
    facts: Callable[[PageContext, PageRequest], Awaitable[Facts]]
    more: Callable[[PageContext, PageRequest], Awaitable[Facts]] | None = None
    live: bool = True
    section: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What an action did, in words, and the page that shows it."""

    notice: str
    go: str


@dataclass(frozen=True, slots=True)
class Action:
    """A form's address. Only by POST, with a token, and never where the console, or the user, is read-only.

    Attributes:
        do: raises Refused, NotFound or any HeadraceError: its text is shown on the page that the form stood on.
    """

    path: str
    do: Callable[[PageContext, PageRequest], Awaitable[Done]]
