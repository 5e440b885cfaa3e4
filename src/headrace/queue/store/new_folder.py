"""A folder that is there whole or not at all: made beside its place, synced, renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from headrace.errors import StoreFull, StoreUnusable
from headrace.queue.store import files

PARTIAL: Final = ".partial"


def must_be_free(target: Path) -> None:
    """Raises StoreUnusable unless a folder of that name can be made, or is there and empty."""
    files.refuse_address(target)
    try:
        if target.is_dir() and not any(target.iterdir()):
            return
    except OSError as error:
        raise StoreUnusable(str(target), error.strerror or str(error)) from error
    if target.exists() or target.is_symlink():
        raise StoreUnusable(str(target), "it is there already, and not an empty folder; name a new one")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its name at the end, synced; on an error it is gone. One that a kill left is
    written anew."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700, exist_ok=True)
        with _locked(partial):
            _clear(partial)
            try:
                yield partial
                for path in partial.iterdir():
                    files.sync_path(path)
                files.sync_folder(partial)
                files.rename(partial, target)
                files.sync_folder(target.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except apsw.FullError as error:
        raise StoreFull(str(target)) from error
    except (apsw.Error, OSError) as error:
        if isinstance(error, OSError) and error.errno in files.FULL:
            raise StoreFull(str(target)) from error
        raise StoreUnusable(str(target), getattr(error, "strerror", None) or str(error)) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreUnusable(str(folder), "another process writes it just now; wait for that one") from None
    finally:
        os.close(fd)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
