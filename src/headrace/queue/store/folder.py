"""The data folder: its lock, its small files, and what is kept for a bad day.

headrace.db, -wal, -shm   the database
leases.journal            leases (journal.py)
lock                      held by the one process that owns the folder; its pid
clock.json                the steady clock's anchor
acknowledged              number and time of the last acknowledged commit, and how far the lease journal is good:
                          overwritten after each, without a sync, so it never runs ahead of the disk and survives a
                          kill; what is behind it is damaged
suspect                   the last run met damage in the database: it is checked whole at the next start
reserve                   room for leases and deletes when the disk is full
headrace.db.salvaged      a rebuilt database on its way to the old one's place
damaged-*                 copies made before something was repaired or refused
store                     in a folder without a store: where it is (signpost.py)
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import struct
import time
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from headrace.clock import Anchor
from headrace.errors import StoreUnusable
from headrace.queue.store import files, signpost

log = logging.getLogger("headrace.store")

MIB: Final = 1_048_576
RESERVE_BYTES: Final = 8 * MIB  # leases of some 100,000 messages
RESERVE_SHARE: Final = 8  # of a small disk at most this part
RESERVE_MIN_BYTES: Final = MIB  # the lease journal, compacted more often then, and its next snapshot
MARGIN_BYTES: Final = 4 * MIB  # room beyond it before sends are accepted again: else they would be refused at once
_noted = struct.Struct("<5Q")
_checksum = struct.Struct("<I")
NOTED_BYTES: Final = _noted.size + _checksum.size


class Noted(msgspec.Struct, frozen=True):
    """What is known to have been answered. Times are steady ms.

    Attributes:
        commit_seq, now_ms: number and time of the last acknowledged commit.
        journal: which lease journal; `journal_bytes` of it were written and synced.
        fifo_until_ms: no lease on a FIFO queue lasts longer.
    """

    commit_seq: int = 0
    now_ms: int = 0
    journal: int = 0
    journal_bytes: int = 0
    fifo_until_ms: int = 0


def pack_noted(noted: Noted) -> bytes:
    """The content of the file `acknowledged`."""
    data = _noted.pack(noted.commit_seq, noted.now_ms, noted.journal, noted.journal_bytes, noted.fifo_until_ms)
    return data + _checksum.pack(crc32(data))


def unpack_noted(data: bytes) -> Noted | None:
    """What `pack_noted` wrote; None if it does not check."""
    fields, checksum = data[: _noted.size], data[_noted.size :]
    if len(data) != NOTED_BYTES or _checksum.pack(crc32(fields)) != checksum:
        return None
    return Noted(*_noted.unpack(fields))


class _Clock(msgspec.Struct):
    """The anchor, and the CRC-32 of its JSON: a flipped digit would let every message expire."""

    anchor: Anchor
    checksum: int


def unpack_anchor(data: bytes) -> Anchor | None:
    """The anchor in the content of `clock.json`; None if it does not check."""
    try:
        kept = msgspec.json.decode(data, type=_Clock)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return kept.anchor if crc32(msgspec.json.encode(kept.anchor)) == kept.checksum else None


class Folder:
    """One data folder, locked for this process. `close` gives it up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "headrace.db"
        self.journal = path / "leases.journal"
        self.acknowledged_path = path / "acknowledged"
        self._reserve = path / "reserve"
        self._clock = path / "clock.json"
        self._suspect = path / "suspect"
        self._salvaged = path / "headrace.db.salvaged"
        self._kept: Path | None = None
        self._told = False
        self.reserved = False
        self._lock: int | None = None
        files.refuse_address(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            signpost.obey(path)
            self._lock = self._take_lock()
            self._finish_taking_in()
            os.close(files.open_file(self.database))  # private from the start; SQLite's other files follow it
            self._acknowledged = files.open_file(self.acknowledged_path)
        except OSError as error:
            self._drop_lock()
            raise StoreUnusable(str(path), error.strerror or str(error)) from error

    def __str__(self) -> str:
        return str(self.path)

    def _take_lock(self) -> int:
        fd = files.open_file(self.path / "lock")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StoreUnusable(
                str(self.path),
                f"another broker (pid {owner}) has it; stop that one, or give this one a folder of its own",
            ) from None
        os.ftruncate(fd, 0)
        files.overwrite(fd, f"{os.getpid()}\n".encode())
        return fd

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def note(self, noted: Noted) -> None:
        """Note what has been answered. Without a sync: a power cut may take it back, never forward."""
        files.overwrite(self._acknowledged, pack_noted(noted))

    def noted(self) -> Noted | None:
        """What was noted last; None when nothing was, or the file is damaged."""
        data = os.pread(self._acknowledged, NOTED_BYTES, 0)
        noted = unpack_noted(data)
        if noted is not None:
            return noted
        if any(data) and not self._told:  # a power cut may leave it empty
            self._told = True
            log.warning(
                "%s cannot be read: torn by a power cut, or damaged", self.acknowledged_path,
                extra={"action": "store.damaged"},
            )  # fmt: skip
        return None

    def acknowledged(self) -> int:
        """The last acknowledged commit that is known; 0 when none is."""
        noted = self.noted()
        return noted.commit_seq if noted is not None else 0

    def anchor(self) -> Anchor | None:
        anchor = None
        with contextlib.suppress(OSError):
            anchor = unpack_anchor(self._clock.read_bytes())
        if anchor is not None:
            return anchor
        if self._clock.exists():
            log.error("%s is damaged: the wall clock is trusted", self._clock, extra={"action": "store.damaged"})
        return None

    def keep_anchor(self, anchor: Anchor) -> None:
        files.replace(self._clock, msgspec.json.encode(_Clock(anchor, crc32(msgspec.json.encode(anchor)))))

    def refuse_small_disk(self, wal_bytes: int) -> None:
        """Raise StoreUnusable where a new store could keep nothing. One with messages is opened on any disk."""
        if self.is_new() and self._free_bytes() < wal_bytes + self._wanted_bytes():
            raise self.too_small(wal_bytes)

    def is_new(self) -> bool:
        return self.database.stat().st_size == 0

    def too_small(self, wal_bytes: int) -> StoreUnusable:
        needed = wal_bytes + self._wanted_bytes()
        return StoreUnusable(
            str(self),
            f"a new store needs {needed / MIB:.1f} MiB of free disk space, and {self._free_bytes() / MIB:.1f} MiB are free;"
            f" {wal_bytes / MIB:.1f} MiB of them are for the write-ahead log, which gets its space before the first commit, so"
            " that messages can be deleted when the disk is full; free some space, or use a larger disk",
        )

    def _free_bytes(self) -> int:
        """What is free, the reserve included: it is there to be used."""
        with contextlib.suppress(FileNotFoundError):
            return files.free_bytes(self.path) + self._reserve.stat().st_size
        return files.free_bytes(self.path)

    def _reserve_bytes(self) -> int:
        """How large the reserve should be here."""
        return max(RESERVE_MIN_BYTES, min(RESERVE_BYTES, files.total_bytes(self.path) // RESERVE_SHARE))

    def _wanted_bytes(self) -> int:
        """The room with which sends are accepted."""
        return self._reserve_bytes() + MARGIN_BYTES

    def make_way(self) -> None:
        """On a disk without room, SQLite's and our small files get the reserve, or the store could not be opened."""
        if files.free_bytes(self.path) < RESERVE_MIN_BYTES:
            self.free_reserve()

    def keep_reserve(self, unused_bytes: int = 0) -> bool:
        """Make the reserve if it is missing, and if there is room for more than that; whether it is there.

        Args:
            unused_bytes: room within the database, for messages but not for the reserve.
        """
        try:
            free = self._free_bytes()
            if free < RESERVE_MIN_BYTES or free + unused_bytes < self._wanted_bytes():
                return False
            files.allocate(self._reserve, min(free, self._reserve_bytes()))
            self.reserved = True
        except OSError:
            self.free_reserve()
        return self.reserved

    def free_reserve(self) -> None:
        """The disk is full: give the reserved room to leases and deletes."""
        self.reserved = False
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def keep_damaged(self) -> Path:
        """Copy database and journals aside, before anything is done about damage; once while the folder is open, since
        later copies would be of what was repaired. Returns the folder of the copy."""
        if self._kept is None:
            kept = self._free_name(time.strftime("damaged-%Y%m%d-%H%M%S", time.gmtime()))
            kept.mkdir(mode=0o700)
            for name in ("headrace.db", "headrace.db-wal", "leases.journal", "acknowledged"):
                if (self.path / name).exists():
                    shutil.copy2(self.path / name, kept / name)
            self._kept = kept
        return self._kept

    def _free_name(self, name: str) -> Path:
        """`name`, or `name-2` and so on: an older copy is never written over."""
        names = [name, *[f"{name}-{number}" for number in range(2, 1_000)]]
        return next(self.path / one for one in names if not (self.path / one).exists())

    def suspect(self) -> bool:
        """Whether the database is to be checked whole."""
        return self._suspect.exists()

    def mark_suspect(self) -> None:
        with contextlib.suppress(OSError):
            os.close(files.open_file(self._suspect))

    def clear_suspect(self) -> None:
        files.remove(self._suspect)

    def take_in(self, database: Path) -> None:
        """Let a database that is whole and synced take the place of the folder's. Atomic: what a crash leaves half done
        is finished by the next start, which finds it under a name of its own."""
        files.rename(database, self._salvaged)
        self.sync()
        self._finish_taking_in()

    def _finish_taking_in(self) -> None:
        if not self._salvaged.exists():
            return
        for name in ("headrace.db-wal", "headrace.db-shm"):  # they belong to the old one
            files.remove(self.path / name)
        self.sync()
        files.rename(self._salvaged, self.database)
        self.sync()

    def sync(self) -> None:
        """The names of all files made so far are on the disk."""
        files.sync_folder(self.path)

    def lengthen_wal(self, size_bytes: int) -> None:
        """Write zeros behind what the WAL holds, up to `size_bytes`, so that commits go over blocks that the disk has.
        A sync of a file that grew waits for the file system's journal too: 4 ms instead of 0.3 on a busy machine.
        SQLite takes zeros for the end. On a disk with little room the WAL gets half of it.

        Raises OSError: there was less room than the disk says (a quota). The WAL is as it was.
        """
        fd = files.open_file(self.path / "headrace.db-wal", append=True)
        try:
            size = os.fstat(fd).st_size
            missing = max(0, size_bytes - size)
            if missing > self._free_bytes() - self._wanted_bytes():
                missing = min(missing, files.free_bytes(self.path) // 2)
            try:
                files.write(fd, bytes(missing))
                files.sync_data(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def size_bytes(self) -> int:
        total = 0
        for name in ("headrace.db", "headrace.db-wal", "leases.journal"):
            with contextlib.suppress(OSError):
                total += (self.path / name).stat().st_size
        return total

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._acknowledged)
        self._drop_lock()
