"""A file system of a few MiB, for real processes to fill."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

MIB: Final = 1_048_576


@contextmanager
def small_disk(place: Path, size_mib: int) -> Iterator[Path]:
    """A tmpfs of that size at `place`; the test is skipped where none may be mounted."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root on Linux")
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def occupy(path: Path, *, leave_bytes: int) -> None:
    """Let another program's file take the disk, but for so many bytes."""
    stat = os.statvfs(path.parent)
    free = stat.f_bavail * stat.f_frsize
    with path.open("wb") as file, contextlib.suppress(OSError):
        if free > leave_bytes:
            os.posix_fallocate(file.fileno(), 0, free - leave_bytes)
