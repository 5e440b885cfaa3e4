"""A disk that remembers: every write, sync, truncation and deletion of a store's files, in order, with marks between.

SQLite's files go through a virtual file system of apsw's. What is remembered can be played up to any point, with what was
not synced by then lost, torn or reordered: that is a power cut (`crash_states.py`). The same place is where faults are
planted: a call that fails, a disk that is full.

WAL mode's shared memory passes by unseen; recovery rebuilds it.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import apsw

EventKind = Literal["create", "write", "truncate", "allocate", "sync", "delete", "rename", "folder_sync", "mark"]
_numbers: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `name` is the file's, without its folder; `data` a write's bytes or a mark's value."""

    kind: EventKind
    name: str = ""
    offset: int = 0
    data: Any = b""


Fault = Callable[[str, str, int], bool]
"""(call, file name, by how many bytes the file grows) -> whether it fails instead of being done."""


def never(_call: str, _name: str, _growth: int) -> bool:
    return False


_EXTENDED: Final = {"write": apsw.SQLITE_IOERR_WRITE, "sync": apsw.SQLITE_IOERR_FSYNC}


@dataclass
class DiskLog:
    """What happened on the disk. `fails` is asked before each call that changes or syncs something; `errno_` is how."""

    events: list[Event] = field(default_factory=list)
    fails: Fault = never
    errno_: int = errno.EIO

    def mark(self, value: Any) -> None:
        """Note that something was answered here."""
        self.events.append(Event("mark", data=value))

    def check_os(self, call: str, name: str, growth: int = 0) -> None:
        if self.fails(call, name, growth):
            raise OSError(self.errno_, f"planted: {call} {name}: {errno.errorcode[self.errno_]}")

    def check_sqlite(self, call: str, name: str, growth: int = 0) -> None:
        """As SQLite's unix layer reports it: of a quota it knows nothing, there `xGetLastError` has the number."""
        if self.fails(call, name, growth):
            text = f"planted: {call} {name}: {errno.errorcode[self.errno_]}"
            if self.errno_ == errno.ENOSPC and call == "write":
                raise apsw.FullError(text)
            error = apsw.IOError(text)
            error.extendedresult = _EXTENDED.get(call, apsw.SQLITE_IOERR)  # type: ignore[attr-defined]  # apsw's hints lack it
            raise error


class RecordingVFS(apsw.VFS):
    """SQLite's own file system, overheard."""

    def __init__(self, log: DiskLog) -> None:
        self.log = log
        self.base = apsw.vfs_names()[0]  # the default one so far
        super().__init__(f"recording-{next(_numbers)}", self.base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's names
        return RecordingFile(self.log, self.base, name, flags)

    def xGetLastError(self) -> tuple[int, str | None]:  # noqa: N802
        return (self.log.errno_, None) if self.log.fails is not never else super().xGetLastError()

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        name = Path(filename).name
        self.log.check_sqlite("delete", name)
        super().xDelete(filename, syncdir)
        self.log.events.append(Event("delete", name))
        if syncdir:
            self.log.events.append(Event("folder_sync"))


class RecordingFile(apsw.VFSFile):
    """One open file. A journal's or WAL's first sync also syncs its folder: so does SQLite's unix layer inside."""

    def __init__(self, log: DiskLog, base: str, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.log = log
        self.name = Path(path).name if path else "temporary"
        self.kept = bool(path) and not flags[0] & apsw.SQLITE_OPEN_DELETEONCLOSE
        existed = bool(path) and Path(path).exists()
        super().__init__(base, name, flags)
        journal = flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL)
        self.sync_folder = bool(journal and flags[0] & apsw.SQLITE_OPEN_CREATE)
        if self.kept and not existed:
            log.events.append(Event("create", self.name))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._do("write", lambda: super(RecordingFile, self).xWrite(data, offset), offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._do("truncate", lambda: super(RecordingFile, self).xTruncate(newsize), newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._do("sync", lambda: super(RecordingFile, self).xSync(flags))
        if self.sync_folder and self.kept:
            self.sync_folder = False
            self.log.events.append(Event("folder_sync"))

    def _do(self, call: EventKind, act: Callable[[], None], offset: int = 0, data: bytes = b"") -> None:
        if self.kept:
            growth = max(0, offset + len(data) - self.xFileSize()) if call == "write" else 0
            self.log.check_sqlite(call, self.name, growth)
        act()
        if self.kept:
            self.log.events.append(Event(call, self.name, offset, data))


class RecordingOs:
    """The module `os`, overheard: put in its place in the modules that write the files beside the database."""

    def __init__(self, log: DiskLog) -> None:
        self.log = log
        self.names: dict[int, str] = {}
        self.appends: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, *args: Any) -> int:
        name, existed = Path(path).name, Path(path).exists()
        fd = os.open(path, flags, *args)
        self.names[fd] = "" if Path(path).is_dir() else name
        (self.appends.add if flags & os.O_APPEND else self.appends.discard)(fd)
        if not existed:
            self.log.events.append(Event("create", name))
        return fd

    def close(self, fd: int) -> None:
        self.names.pop(fd, None)
        os.close(fd)

    def write(self, fd: int, data: Any) -> int:
        size = os.fstat(fd).st_size
        offset = size if fd in self.appends else os.lseek(fd, 0, os.SEEK_CUR)
        self.log.check_os("write", self.names[fd], max(0, offset + len(data) - size))
        written = os.write(fd, data)
        self.log.events.append(Event("write", self.names[fd], offset, bytes(data[:written])))
        return written

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self.log.check_os("write", self.names[fd], max(0, offset + len(data) - os.fstat(fd).st_size))
        written = os.pwrite(fd, data, offset)
        self.log.events.append(Event("write", self.names[fd], offset, data[:written]))
        return written

    def ftruncate(self, fd: int, length: int) -> None:
        self.log.check_os("truncate", self.names[fd])
        os.ftruncate(fd, length)
        self.log.events.append(Event("truncate", self.names[fd], length))

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        self.log.check_os("write", self.names[fd], max(0, offset + length - os.fstat(fd).st_size))
        os.posix_fallocate(fd, offset, length)
        self.log.events.append(Event("allocate", self.names[fd], offset + length))

    def fsync(self, fd: int) -> None:
        self.log.check_os("sync", self.names[fd])
        os.fsync(fd)
        name = self.names[fd]
        self.log.events.append(Event("sync", name) if name else Event("folder_sync"))

    fdatasync = fsync

    def rename(self, source: Any, target: Any) -> None:
        self.log.check_os("rename", Path(source).name)
        os.rename(source, target)  # noqa: PTH104 - this is os
        self.log.events.append(Event("rename", Path(source).name, data=Path(target).name))

    def unlink(self, path: Any) -> None:
        self.log.check_os("delete", Path(path).name)
        os.unlink(path)  # noqa: PTH108 - this is os
        self.log.events.append(Event("delete", Path(path).name))


@contextmanager
def recorded(*modules: ModuleType) -> Iterator[DiskLog]:
    """While the block runs, new SQLite connections are overheard, and what `modules` do through their `os`."""
    log = DiskLog()
    vfs = RecordingVFS(log)
    stand_in = RecordingOs(log)
    try:
        for module in modules:
            module.os = stand_in  # type: ignore[attr-defined]  # a module's import, replaced
        yield log
    finally:
        for module in modules:
            module.os = os  # type: ignore[attr-defined]
        vfs.unregister()
