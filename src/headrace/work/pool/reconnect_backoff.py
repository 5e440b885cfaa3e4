"""A broker that cannot be reached: how long the next try waits, and one line in the log when it goes and when it is back."""

from __future__ import annotations

import logging
import random
import time
from typing import Final

from headrace.errors import AccessDenied, StoreError, UnknownError
from headrace.work.pool.limits import RETRY_FIRST_S, RETRY_MAX_S

_log: Final = logging.getLogger("headrace.work")

AWAY: Final = (StoreError, UnknownError, AccessDenied)
"""What is tried again and again: it is not about what was asked. Keys are changed while workers run, too."""


class ReconnectBackoff:
    """Of one user of the broker; its thread's own."""

    def __init__(self, what: str) -> None:
        """Args:
        what: what cannot go on meanwhile, as a word for the log.
        """
        self._what = what
        self._since_s: float | None = None
        self._pause_s = RETRY_FIRST_S

    def failed(self, error: Exception) -> float:
        """Returns: seconds until the next try."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            ids = {"action": "work.broker.away", "what": self._what}
            _log.warning("the broker cannot be reached, tried again and again (%s): %s", self._what, error, extra=ids)
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._pause_s = min(self._pause_s * 2, RETRY_MAX_S)
        return pause_s

    def back(self) -> None:
        """A try has come through."""
        if self._since_s is not None:
            away_s = time.monotonic() - self._since_s
            ids = {"action": "work.broker.back", "what": self._what}
            _log.info("the broker is back after %.1f s (%s)", away_s, self._what, extra=ids)
            self._since_s = None
            self._pause_s = RETRY_FIRST_S
