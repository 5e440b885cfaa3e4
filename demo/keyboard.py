"""Keys, as they are pressed. The terminal is as it was afterwards, whatever happens."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Self


class Keyboard:
    """A context manager. Without a terminal there are no keys, and `wait` only waits.

    Not raw but cbreak mode: Ctrl-C still is an interrupt, and so comes to the same end as `q`.
    """

    def __init__(self) -> None:
        self._terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if self._terminal is not None:
            self._before = termios.tcgetattr(self._terminal)
            tty.setcbreak(self._terminal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal is not None and self._before is not None:
            termios.tcsetattr(
                self._terminal, termios.TCSANOW, self._before
            )  # a terminal that nobody reads never drains

    def wait(self, seconds: float) -> str:
        """The keys that were pressed meanwhile; returns at once when one is."""
        ready, _, _ = select.select([self._terminal] if self._terminal is not None else [], [], [], seconds)
        return os.read(self._terminal, 64).decode(errors="ignore") if ready and self._terminal is not None else ""
