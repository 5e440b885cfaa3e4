"""--reload: watches source files, in a thread, and says which one has changed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from headrace.errors import CallerError

_DEBOUNCE_MS: Final = 200
"""An editor writes a file in several steps, a checkout many files: after so much quiet it is one change."""


class WatchfilesMissing(CallerError):
    """The extra is not installed."""

    def __str__(self) -> str:
        return "--reload needs the package watchfiles: pip install 'headrace[web]'"


class FileWatcher:
    """Between `start` and `stop`, `on_change` is called on the loop with the path that has changed."""

    def __init__(self, folders: Sequence[Path], *, on_change: Callable[[str], None]) -> None:
        """Raises: WatchMissing."""
        try:
            import watchfiles  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise WatchfilesMissing from None
        self._folders = [str(folder.resolve()) for folder in folders]
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        import watchfiles  # noqa: PLC0415 - as above

        only = watchfiles.PythonFilter(extra_extensions=(".toml",))
        for changes in watchfiles.watch(
            *self._folders,
            watch_filter=only,
            debounce=_DEBOUNCE_MS,
            stop_event=self._stop,
            raise_interrupt=False,
            rust_timeout=1_000,
        ):
            path = min(path for _, path in changes)
            self._loop.call_soon_threadsafe(self._on_change, path)
