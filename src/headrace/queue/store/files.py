"""The file operations that durability rests on, in one place: each is a step that a test can make fail.

SQLite's own files go through its VFS; these are the files beside the database.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import Final

from headrace.errors import StoreUnusable

FULL: Final = (errno.ENOSPC, errno.EDQUOT)  # the errors of a disk, or a quota, without room
PRIVATE: Final = 0o600  # messages are their owner's: no group, no others
_ADDRESS: Final = re.compile(r"(?:^|/)(?:[a-z][a-z0-9+]*:/|[A-Za-z0-9.-]+:[0-9]{4,5}$)")  # a Path has one slash of two


def refuse_address(folder: Path) -> None:
    """Raise StoreUnusable for a folder that would be made with an address as its name, by a slip: `localhost:9324`, which
    is a broker without `http://`, or the URL of a database. What was sent would be stored where nobody looks."""
    if _ADDRESS.search(str(folder)) and not folder.exists():
        named = re.sub(r":[^:@/]+@", ":…@", str(folder))  # no password into logs
        hint = "a broker is named as http://HOST:PORT, a PostgreSQL database by --store"
        raise StoreUnusable(named, f"that is an address, and no folder: {hint}")


def is_full(error: BaseException) -> bool:
    """Whether a file could not be written for lack of room on the disk, or within a quota."""
    return isinstance(error, OSError) and error.errno in FULL


def open_file(path: Path, *, append: bool = False) -> int:
    """Open for reading and writing, created if missing, private."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    return os.open(path, flags, PRIVATE)


def write(fd: int, data: bytes) -> None:
    """Write all of `data` at the file's position (its end, when opened to append)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def overwrite(fd: int, data: bytes) -> None:
    """Write `data` over the file's beginning."""
    os.pwrite(fd, data, 0)


def sync_data(fd: int) -> None:
    """The file's data is on the disk when this returns. (macOS: fdatasync is absent, fsync is what there is.)"""
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)


def sync_folder(path: Path) -> None:
    """Created, renamed and removed names of the folder are on the disk when this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_path(path: Path) -> None:
    """A file that another layer has written is on the disk when this returns."""
    fd = open_file(path)
    try:
        sync_data(fd)
    finally:
        os.close(fd)


def rename(path: Path, target: Path) -> None:
    """`path` takes `target`'s place and name; on the disk after the folder's sync."""
    os.rename(path, target)  # noqa: PTH104 - this module's `os` is where tests listen


def remove(path: Path) -> None:
    """The file is gone, if it was there; on the disk after the folder's sync."""
    if path.exists():
        os.unlink(path)  # noqa: PTH108 - as in `rename`


def replace(path: Path, data: bytes, *, beside: str = "new") -> None:
    """Change a file whole: write beside it, sync, rename over it, sync the folder.

    Args:
        beside: what ends the name of the file beside it; another for each who may do this at a time.
    """
    new = path.with_name(f"{path.name}.{beside}")
    fd = open_file(new)
    try:
        os.ftruncate(fd, 0)
        write(fd, data)
        sync_data(fd)
    except OSError:
        with contextlib.suppress(OSError):
            remove(new)  # on a full disk half a file takes the room that others need
        raise
    finally:
        os.close(fd)
    rename(new, path)
    sync_folder(path.parent)


def allocate(path: Path, size_bytes: int) -> None:
    """Fill `path` with `size_bytes` that really take room on the disk."""
    fd = open_file(path)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    finally:
        os.close(fd)


def extend(fd: int, size_bytes: int) -> None:
    """Make the file at least `size_bytes` long, with room on the disk for all of it."""
    size = os.fstat(fd).st_size
    if size < size_bytes:
        os.posix_fallocate(fd, size, size_bytes - size)


def total_bytes(path: Path) -> int:
    """The size of the file system of `path`."""
    stat = os.statvfs(path)
    return stat.f_blocks * stat.f_frsize


def free_bytes(path: Path) -> int:
    """What an unprivileged process may still write on the disk of `path`."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize
