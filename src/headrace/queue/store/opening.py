"""Opening the SQLite disk: what was noted beside, the WAL, the lease journal, the database; damage repaired on the way.

In this order: the WAL is mended before SQLite sees it (`wal.py`); the last commit is compared with the last that was
acknowledged; a database that makes no sense is made anew of what it holds (`salvage.py`), once.
"""

from __future__ import annotations

import os
import time
from typing import Final

import apsw

from headrace.errors import StoreDamaged, StoreUnusable
from headrace.queue import limits
from headrace.queue.store import files, schema
from headrace.queue.store.disk import LeaseRecord, Stored
from headrace.queue.store.folder import MIB, RESERVE_MIN_BYTES, Folder, Noted
from headrace.queue.store.journal import NO_QUEUE, LeaseJournal
from headrace.queue.store.loading import (
    DAMAGE,
    check_file_header,
    check_schema,
    check_whole,
    is_current,
    load,
    read_commit,
)
from headrace.queue.store.salvage import salvage
from headrace.queue.store.wal import check_wal

WRITER_CACHE_KIB: Final = 65_536
READER_CACHE_KIB: Final = 8_192
BUSY_MS: Final = 5_000  # somebody looks in with sqlite3; a writer there must not be waited for longer
CHECKED_BYTES_MAX: Final = 128 * 1_048_576  # checked whole at every start: 0.2 s; beyond, when damage was met
TIME_TRUSTED_MS: Final = limits.DAY_MS  # a stored time further ahead of all others is a flipped bit
LOST_MIN: Final = 16  # commits within one millisecond: never so many


class SqliteOpening:
    """The files of one folder, opened: `_db` writes, `_reader` reads, `_journal` keeps leases, `_stored` is what they
    knew."""

    def __init__(self, folder: Folder, *, vfs: str | None = None) -> None:
        """Raises StoreDamaged, StoreUnusable."""
        self.folder = folder
        self._vfs = vfs
        self._wal_pages = 0
        self._closure: LeaseRecord | None = None  # keeps FIFO queues closed, across snapshots too
        folder.make_way()
        with _Opening(folder):
            self._noted = folder.noted() or Noted()
            unmended = check_wal(folder.database, keep=folder.keep_damaged, acknowledged=self._noted.commit_seq > 0)
            self._journal = self._open_journal()
            self._latest_ms = max([record.received_ms for record in self._journal.records], default=0)
            self._open_or_salvage(whole=unmended > 0 or folder.suspect())
            self._journal.records.clear()
            if self._stored.fifo_closed_until_ms:
                self._closure = LeaseRecord(NO_QUEUE, 0, self._stored.fifo_closed_until_ms, [])
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            folder.clear_suspect()
            folder.sync()

    def _open_or_salvage(self, *, whole: bool) -> None:
        """Open the database; if it is damaged, make a new one of what can be read of it, and open that."""
        try:
            self._stored = self._open_checked(whole=whole)
        except DAMAGE as error:
            self._disconnect()
            lost = salvage(self.folder, why=str(error) or type(error).__name__, vfs=self._vfs)
            self._stored = self._open_checked(whole=True)
            self._stored.lost = lost

    def _open_checked(self, *, whole: bool) -> Stored:
        check_file_header(self.folder.database)
        self._open()
        if self._missing():
            self._disconnect()  # SQLite took the last commit for a torn one, but it was acknowledged
            whole |= check_wal(self.folder.database, keep=self.folder.keep_damaged, tail=True) > 0
            self._open()
        check_schema(self._db)
        if whole or self.folder.database.stat().st_size <= CHECKED_BYTES_MAX:
            check_whole(self._db)
        stored = load(self._db, self._journal.records)
        self._check_gap()
        return stored

    def _open(self) -> None:
        self._db = self._connect(self._vfs)
        self._migrate()
        self._db.execute(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")
        self._db.set_wal_hook(self._count_wal)
        self._reader = self._connect(self._vfs)
        self._reader.execute(f"PRAGMA query_only=ON; PRAGMA cache_size=-{READER_CACHE_KIB}")
        self._seq, self._last_ms = self._believed(*read_commit(self._db))

    def _disconnect(self) -> None:
        for connection in (getattr(self, "_reader", None), getattr(self, "_db", None)):
            if connection is not None:
                connection.close()

    def _believed(self, seq: int, now_ms: int) -> tuple[int, int]:
        """Number and time of the last commit: as the database has them, unless what was noted beside shows a flipped
        bit. A time too late would let every message expire."""
        noted = self._noted
        if now_ms == noted.now_ms and noted.commit_seq - seq >= LOST_MIN:
            seq = noted.commit_seq
        if seq == noted.commit_seq:
            return seq, noted.now_ms
        latest_ms = max(noted.now_ms, time.time_ns() // 1_000_000) + TIME_TRUSTED_MS
        return seq, now_ms if now_ms <= latest_ms else noted.now_ms

    def _open_journal(self) -> LeaseJournal:
        """The lease journal. If leases were lost, one on a FIFO queue may be alive until the last that was noted ends."""
        noted = self._noted
        journal = LeaseJournal(self.folder.journal, noted)
        if journal.lost:
            now_ms = max([time.time_ns() // 1_000_000, noted.now_ms, *[one.received_ms for one in journal.records]])
            until_ms = noted.fifo_until_ms or now_ms + limits.VISIBILITY_MAX_MS
            closure = LeaseRecord(NO_QUEUE, 0, until_ms, [])
            journal.records.append(closure)
            journal.note(closure)
            journal.flush()
            journal.sync()
        return journal

    def _missing(self) -> int:
        """How many acknowledged commits the database does not have."""
        return max(0, self.folder.acknowledged() - self._seq)

    def _connect(self, vfs: str | None) -> apsw.Connection:
        connection = apsw.Connection(str(self.folder.database), vfs=vfs, statementcachesize=200)
        connection.set_busy_timeout(BUSY_MS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a WAL that may be damaged stays as it is
        connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0").fetchall()
        connection.execute("PRAGMA temp_store=MEMORY")
        return connection

    def _migrate(self) -> None:
        version = self._db.pragma("user_version")
        assert isinstance(version, int)
        if version != schema.VERSION and is_current(self._db):
            version = schema.VERSION  # the number alone is damaged
            self._db.execute(f"PRAGMA user_version={version}")
        if version > schema.VERSION:
            raise StoreUnusable(
                str(self.folder),
                f"it was written by a newer headrace (format {version}, this one knows {schema.VERSION})",
            )
        for number in range(version, schema.VERSION):
            with self._db:
                self._db.execute(schema.STEPS[number])
                if number == 0:
                    self._db.execute("INSERT INTO meta VALUES ('secret', ?)", (os.urandom(32),))
                    self._db.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version={number + 1}")

    def _check_gap(self) -> None:
        """Acknowledged commits that the database does not have: damage that SQLite itself does not notice."""
        missing = self._missing()
        if missing:
            kept = self.folder.keep_damaged()
            raise StoreDamaged(
                str(self.folder.database),
                f"commits {self._seq + 1} to {self._seq + missing} were acknowledged and are missing; a copy is in"
                f" {kept}; to go on without them remove {self.folder.acknowledged_path}",
            )

    def _count_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK


class _Opening:
    """Errors while a store is opened, in words for who runs it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, DAMAGE):
            raise StoreDamaged(str(self.folder.database), f"it cannot be repaired: {error}") from error
        if isinstance(error, apsw.Error | OSError) and files.free_bytes(self.folder.path) < RESERVE_MIN_BYTES:
            raise StoreUnusable(
                str(self.folder), f"its disk is full: free some space, at least {RESERVE_MIN_BYTES // MIB} MiB"
            ) from error
        if isinstance(error, apsw.Error | OSError):
            raise StoreUnusable(str(self.folder), f"{type(error).__name__}: {error}") from error
