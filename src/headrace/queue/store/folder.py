"""The data folder: its lock, its small files, and what is kept for a bad day.

headrace.db, -wal, -shm   the database
leases.journal            leases (journal.py)
lock                      held by the one process that owns the folder; its pid
clock.json                the steady clock's anchor
acknowledged              the number of the last acknowledged commit: overwritten after each, without a sync, so it
                          never runs ahead of the disk and survives a kill; a database behind it is damaged
reserve                   room for deletes and leases when the disk is full
damaged-*                 copies made before something was repaired or refused
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
from headrace.queue.store import files

log = logging.getLogger("headrace.store")

RESERVE_BYTES: Final = 8 * 1_048_576  # deletes of some 100,000 messages, or leases of as many
MARGIN_BYTES: Final = 8 * 1_048_576  # room beyond it before sends are taken again: else they would be refused at once
_acknowledged = struct.Struct("<QI")


class Folder:
    """One data folder, locked for this process. `close` gives it up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "headrace.db"
        self.journal = path / "leases.journal"
        self.acknowledged_path = path / "acknowledged"
        self._reserve = path / "reserve"
        self._clock = path / "clock.json"
        self.reserved = False
        self._lock: int | None = None
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = self._take_lock()
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

    def acknowledge(self, commit_seq: int) -> None:
        """Note the last acknowledged commit."""
        number = commit_seq.to_bytes(8, "little")
        files.overwrite(self._acknowledged, _acknowledged.pack(commit_seq, crc32(number)))

    def acknowledged(self) -> int:
        """The last acknowledged commit that is known; 0 when none is, or the file is damaged."""
        data = os.pread(self._acknowledged, _acknowledged.size, 0)
        if len(data) < _acknowledged.size:
            return 0
        commit_seq, checksum = _acknowledged.unpack(data)
        return commit_seq if crc32(commit_seq.to_bytes(8, "little")) == checksum else 0

    def anchor(self) -> Anchor | None:
        try:
            return msgspec.json.decode(self._clock.read_bytes(), type=Anchor)
        except (OSError, msgspec.DecodeError):
            return None

    def keep_anchor(self, anchor: Anchor) -> None:
        files.replace(self._clock, msgspec.json.encode(anchor))

    def keep_reserve(self) -> bool:
        """Make the reserve if it is missing, and if the disk has room for more than that; whether it is there."""
        try:
            if not self._reserve.exists() and files.free_bytes(self.path) < RESERVE_BYTES + MARGIN_BYTES:
                return False
            files.allocate(self._reserve, RESERVE_BYTES)
            self.reserved = True
        except OSError:
            self.free_reserve()
        return self.reserved

    def free_reserve(self) -> None:
        """The disk is full: give the reserved room to deletes and leases."""
        self.reserved = False
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def keep_damaged(self) -> Path:
        """Copy database and journals aside, before anything is done about damage. Returns the folder of the copy."""
        kept = self.path / time.strftime("damaged-%Y%m%d-%H%M%S", time.gmtime())
        kept.mkdir(mode=0o700, exist_ok=True)
        for name in ("headrace.db", "headrace.db-wal", "leases.journal", "acknowledged"):
            if (self.path / name).exists():
                shutil.copy2(self.path / name, kept / name)
        return kept

    def sync(self) -> None:
        """The names of all files made so far are on the disk."""
        files.sync_folder(self.path)

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
