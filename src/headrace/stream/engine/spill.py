"""The folders that DuckDB spills into. What a killed process left is removed by the next engine on the machine: who is killed
for its memory has spilled most."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace.stream import limits

_PREFIX: Final = "headrace-stream-"


@contextlib.contextmanager
def spill_folder() -> Iterator[str]:
    """A folder for one engine, removed at the end. It is locked until then, and a lock ends with its process."""
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, _opened(folder) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # It is locked, or another user's, or gone: then it is nothing of ours to remove.
        with contextlib.suppress(OSError), _opened(folder) as fd:
            if time.time() - os.fstat(fd).st_mtime > limits.SPILL_LEFT_S:  # a new one is not locked yet
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: str | Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
