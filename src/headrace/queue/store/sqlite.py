"""The SQLite disk: rows in one file, WAL, every commit synced.

`synchronous=FULL`, always: NORMAL lost acknowledged work in 23 of 48 simulated power cuts, FULL in none. Checkpoints are
made here and not by SQLite on its own, since its automatic one swallows a failed sync. The first error that is not
"full" is the last: after a failed sync nobody knows what the disk has, and SQLite itself would go on.

A full disk. Each commit gives the database file the space that its new pages will need, before it goes to the WAL. So a
checkpoint never needs space, after it the WAL is used again from its start, and commits that only delete need none
either. What still needs some are leases, in their journal: the reserve is for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

import apsw

from headrace.clock import Anchor, Clock, SteadyClock
from headrace.errors import StoreError, StoreFailed, StoreFull, StoreUnusable, Unavailable
from headrace.queue.store import deleting, files, rows
from headrace.queue.store.changes import apply
from headrace.queue.store.disk import (
    Batch,
    Dedup,
    Key,
    LeaseRecord,
    PutQueue,
    Stored,
    TopicLog,
    Trimmed,
)
from headrace.queue.store.folder import Folder, Noted
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.opening import SqliteOpening
from headrace.queue.store.reading import CORRUPT, SqliteReads
from headrace.queue.store.wal import PAGE_BYTES

log = logging.getLogger("headrace.store")
T = TypeVar("T")

CHECKPOINT_PAGES: Final = 4_000  # 16 MiB of WAL: rarer checkpoints write fewer pages, a longer WAL recovers slower
WAL_BYTES: Final = (CHECKPOINT_PAGES + 1_000) * 4_120  # a checkpoint's worth of frames, and the commit that goes over
GROWTH_BYTES: Final = 262_144  # the database file grows in such steps: a system call each, of some 20 µs
SHARED_MEMORY_BYTES: Final = 2 * 32_768  # an index over 8,158 frames
SYNC_WEIGHT: Final = 0.05  # of the newest sync in their running mean: some twenty count


def open_store(
    folder: Path,
    *,
    cooldowns: bool = True,
    clock: Clock | None = None,
    vfs: str | None = None,
    wal_bytes: int = WAL_BYTES,
) -> tuple[LocalStore, Clock]:
    """Open, or create, the store in `folder`.

    Args:
        folder: created with mode 0700 if missing. One owner at a time, by a lock.
        cooldowns: whether SQS's 60 seconds between purges, and before a name is used again, are kept.
        clock: a test's; None takes the steady clock that goes on from the last time.
        vfs: the SQLite VFS for the database (a test's, that breaks).
        wal_bytes: how long the WAL is made beforehand, where there is room.

    Returns:
        The store and the clock that it runs on.

    Raises:
        StoreUnusable: locked by another process, not writable, made by a newer version; the disk fails, or is too small for
            a new store.
        StoreDamaged: acknowledged commits are missing.
    """
    data = Folder(folder)
    try:
        new = data.is_new()
        data.refuse_small_disk(wal_bytes)
        disk = SqliteDisk(data, vfs=vfs)
        _lengthen_wal(disk, wal_bytes, new=new)
        disk.reserve()
        if clock is None:
            steady = SteadyClock(disk.folder.anchor(), floor_ms=disk.latest_ms())
            _keep_anchor(disk, steady.anchor())
            clock = steady
        return LocalStore(disk, clock, cooldowns=cooldowns), clock
    except OSError as error:  # of a file beside the database
        data.close()
        raise StoreUnusable(str(folder), error.strerror or str(error)) from error
    except BaseException:
        data.close()
        raise


def _lengthen_wal(disk: SqliteDisk, wal_bytes: int, *, new: bool) -> None:
    try:
        disk.folder.lengthen_wal(wal_bytes)
    except OSError as error:
        if new and files.is_full(error):  # a quota: the disk itself has space
            disk.close()
            raise disk.folder.too_small(wal_bytes) from error
        log.warning("the WAL could not be lengthened: %s", error, extra={"action": "wal.short"})


def _keep_anchor(disk: SqliteDisk, anchor: Anchor) -> None:
    try:
        disk.anchor(anchor)
    except OSError as error:
        if not files.is_full(error):
            raise
        log.warning("the clock's anchor stays the old one: %s", error, extra={"action": "store.full"})


class SqliteDisk(SqliteOpening, SqliteReads):
    """Rows of one folder. `write`, `tidy` and `sweep` use the writing connection, all else the reading one, so that
    a commit in a thread and a read on the loop do not meet."""

    durable = True

    def __init__(self, folder: Folder, *, vfs: str | None = None) -> None:
        super().__init__(folder, vfs=vfs)
        self._failed: StoreFailed | None = None
        self._closed = False
        self.sync_seconds = 0.0
        self._batch = Batch()
        self._aside: apsw.Connection | None = None  # makes checkpoints beside the commits
        self.on_damage: Callable[[Key, str], None] = lambda _key, _reason: None
        self._fifo = {queue.number for queue in self._stored.queues if queue.info.settings.fifo}
        self._fifo_until_ms = max(self._noted.fifo_until_ms, self._stored.fifo_closed_until_ms)
        self._synced_bytes = self._journal.size_bytes
        # Closed after the connections: before, that would take away SQLite's locks, which are the process's.
        self._file = files.open_file(folder.database)
        self._shared_memory = self._open_shared_memory()
        self._note()

    def __str__(self) -> str:
        return str(self.folder)

    def _open_shared_memory(self) -> int:
        """The file of SQLite's index over the WAL, with space for all that the WAL holds: SQLite lengthens it after the
        commit is on the disk, and if there is no room then it is unknown what a restart will find."""
        fd = files.open_file(self.folder.database.with_name("headrace.db-shm"))
        try:
            files.extend(fd, SHARED_MEMORY_BYTES)
        except OSError as error:
            if not files.is_full(error):
                os.close(fd)
                raise
        return fd

    def latest_ms(self) -> int:
        """The latest steady time that was stored: by a commit, or with a lease."""
        return max(self._last_ms, self._latest_ms)

    def load(self) -> Stored:
        return self._stored

    # --- writing ---

    def prepare(self, batch: Batch) -> None:
        if self._failed is not None:
            raise self._failed
        self._batch = batch
        try:
            self._prepare(batch)
        except StoreFull:
            self._once_more(lambda: self._prepare(batch), frees=not batch.inserts)

    def _once_more(self, work: Callable[[], T], *, frees: bool) -> T:
        """The disk was full: try `work` again after a checkpoint, which lets the WAL be used again from its start; and, if it
        `frees` space, once more in the reserve. Otherwise the reserve is released for those that do.

        Raises StoreFull, and whatever `work` raises."""
        self._checkpoint(self._db)
        try:
            return work()
        except StoreFull:
            self.folder.free_reserve()
            if not frees:
                raise
        self._checkpoint(self._db)
        return work()

    def _prepare(self, batch: Batch) -> None:
        if not batch.rows():
            return
        db, seq = self._db, self._seq + 1
        try:
            db.execute("BEGIN IMMEDIATE")
            for change in batch.changes:
                apply(db, change)
            if batch.inserts:
                self._insert(_rows(batch, seq))
            if batch.deletes:
                deleting.delete(db, batch.deletes)
            if batch.dedups:
                self._dedup(batch.dedups, batch.now_ms)
            if batch.progress:
                self._progress(batch.progress)
            if batch.logs:
                self._logs(batch.logs)
            db.execute("UPDATE commit_log SET seq = ?, now_ms = ?", (seq, batch.now_ms))
            self._extend_database()
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

    def _extend_database(self) -> None:
        """Space for all pages of the open transaction, now: a checkpoint that finds none would leave the WAL to grow. What a
        checkpoint beside the commits cuts off again, the next commit puts back."""
        ((pages,),) = self._db.execute("PRAGMA page_count")
        needed = pages * PAGE_BYTES
        if os.fstat(self._file).st_size >= needed:
            return
        try:
            files.extend(self._file, -(-needed // GROWTH_BYTES) * GROWTH_BYTES)
        except OSError as error:
            if not files.is_full(error):
                raise
            files.extend(self._file, needed)

    def commit(self) -> None:
        batch = self._batch
        try:
            self._commit(batch)
        except StoreFull:
            self._once_more(self._prepare_and_commit, frees=not batch.inserts)

    def _prepare_and_commit(self) -> None:
        self._prepare(self._batch)
        self._commit(self._batch)

    def _commit(self, batch: Batch) -> None:
        try:
            if batch.sync_leases:
                self._sync_leases()
            if batch.rows():
                self._sync_rows(batch)
            self._note()
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

    def _sync_leases(self) -> None:
        written = self._journal.size_bytes
        try:
            self._journal.sync()
        except OSError as error:  # whatever its number: after a failed sync nobody knows what the disk has
            raise self._fail(error) from error
        self._synced_bytes = written

    def _sync_rows(self, batch: Batch) -> None:
        started = time.perf_counter()
        self._db.execute("COMMIT")
        self.sync_seconds += (time.perf_counter() - started - self.sync_seconds) * SYNC_WEIGHT
        self._seq, self._last_ms = self._seq + 1, batch.now_ms
        for change in batch.changes:
            if isinstance(change, PutQueue) and change.info.settings.fifo:
                self._fifo.add(change.number)

    def _note(self) -> None:
        """What is acknowledged now, noted beside the database."""
        noted = Noted(self._seq, self._last_ms, self._journal.number, self._synced_bytes, self._fifo_until_ms)
        try:
            self.folder.note(noted)
        except OSError as error:
            if not files.is_full(error):
                raise  # on a full disk the file may stay behind: the commit is durable, and must not be refused

    def _progress(self, progress: dict[int, tuple[int, int]]) -> None:
        self._db.executemany(
            "INSERT INTO progress VALUES (?, ?, ?)"
            " ON CONFLICT (queue) DO UPDATE SET messages = excluded.messages, reserved = excluded.reserved",
            [(number, messages, reserved) for number, (messages, reserved) in progress.items()],
        )

    def _logs(self, logs: dict[int, TopicLog]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO topic_log VALUES (?, ?, ?, ?, ?)",
            [(number, log.first, log.messages, log.bytes, log.reserved) for number, log in logs.items()],
        )

    def _insert(self, new: list[rows.Row]) -> None:
        start = 0
        for count, sql in rows.INSERTS.items():
            while len(new) - start >= count:
                self._db.execute(sql, tuple(chain.from_iterable(new[start : start + count])))
                start += count

    def _dedup(self, dedups: list[Dedup], now_ms: int) -> None:
        self._db.executemany(
            "INSERT INTO dedup (queue, key, message_id, seq, expires_ms) VALUES (?, ?, ?, ?, ?)",
            [(dedup.queue, dedup.key, dedup.sent.id, dedup.sent.seq, dedup.expires_ms) for dedup in dedups],
        )
        # They expire in the order of their rows: look at the oldest few, delete at least as fast as they come.
        self._db.execute(
            "DELETE FROM dedup WHERE id IN (SELECT id FROM dedup ORDER BY id LIMIT ?) AND expires_ms <= ?",
            (2 * len(dedups) + 8, now_ms),
        )

    def _roll_back(self) -> None:
        if not self._db.get_autocommit():
            try:
                self._db.execute("ROLLBACK")
            except apsw.Error as error:
                log.warning("rollback: %s", error, extra={"action": "store.rollback"})

    def _explain(self, error: Exception, connection: apsw.Connection | None = None) -> StoreError:
        """What an error means: full (try again), busy (try again), or the end."""
        if isinstance(error, StoreError):
            return error
        if files.is_full(error) or _is_full(error, connection or self._db):
            return StoreFull(str(self.folder))
        if isinstance(error, apsw.BusyError):
            return Unavailable(
                f"{self.folder.database} is locked by another program that writes to it; end that program"
            )
        if isinstance(error, CORRUPT):
            self._suspect(error)
        return self._fail(error)

    def _fail(self, error: Exception) -> StoreFailed:
        self._failed = StoreFailed(f"{type(error).__name__}: {error}")
        return self._failed

    def _suspect(self, error: Exception) -> None:
        log.error(
            "%s: a damaged page: %s; the next start checks the database and repairs it", self.folder.database, error,
            extra={"action": "store.damaged"},
        )  # fmt: skip
        self.folder.mark_suspect()

    def tidy_due(self) -> bool:
        return self._wal_pages >= CHECKPOINT_PAGES and self._failed is None

    def tidy_aside(self) -> None:
        if self._aside is None:
            self._aside = self._connect(self._vfs)
        self._checkpoint(self._aside)

    def tidy(self) -> None:
        if self._checkpoint(self._db):
            self._wal_pages = 0

    def _checkpoint(self, connection: apsw.Connection) -> bool:
        """Bring what the WAL has to the database; False if a reader is in the way (again after the next commit)."""
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return False
        except Exception as error:
            explained = self._explain(error, connection)
            if isinstance(explained, StoreFull):
                self.folder.free_reserve()
            raise explained from error
        return True

    def sweep(self, limit: int) -> bool:
        if self._failed is not None:
            return False
        return self._free(lambda: deleting.sweep(self._db, limit))

    def trim(self, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
        if self._failed is not None:
            return Trimmed(0, 0, after, more=False)
        return self._free(lambda: deleting.trim(self._db, topic, after=after, before=before, limit=limit))

    def _free(self, delete: Callable[[], T]) -> T:
        """Run a slice of deletes, which is a commit of its own."""

        def work() -> T:
            try:
                return delete()
            except Exception as error:
                self._roll_back()
                raise self._explain(error) from error

        try:
            return work()
        except StoreFull:
            return self._once_more(work, frees=True)

    # --- leases ---

    def lease(self, record: LeaseRecord) -> None:
        if record.queue in self._fifo:
            self._fifo_until_ms = max(self._fifo_until_ms, record.expires_ms)
        self._journal.note(record)

    def flush_leases(self) -> None:
        try:
            self._journal.flush()
        except OSError as error:
            explained = self._explain(error)
            try:
                self._flush_in_reserve(explained)
            except (OSError, StoreError):
                self._journal.forget_noted()
                raise explained from error

    def _flush_in_reserve(self, refused: StoreError) -> None:
        if not isinstance(refused, StoreFull):
            raise refused
        self.folder.free_reserve()
        self._journal.flush()

    def leases_want_snapshot(self) -> bool:
        return self._journal.wants_snapshot(tight=not self.folder.reserved)

    def snapshot_leases(self, records: Iterable[LeaseRecord]) -> None:
        kept = [*([self._closure] if self._closure is not None else []), *records]
        try:
            try:
                self._journal.snapshot(kept)
            except OSError as error:
                if not files.is_full(error):
                    raise
                self.folder.free_reserve()
                self._journal.snapshot(kept)
            self._synced_bytes = self._journal.size_bytes
            self._note()
        except OSError as error:
            raise self._explain(error) from error

    # --- the rest ---

    def reserve(self) -> bool:
        ((unused,),) = self._reader.execute("PRAGMA freelist_count")
        return self.folder.keep_reserve(unused * PAGE_BYTES)

    def reserved(self) -> bool:
        return self.folder.reserved

    def size_bytes(self) -> int:
        return self.folder.size_bytes()

    def anchor(self, anchor: Anchor) -> None:
        self.folder.keep_anchor(anchor)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._reader.close()
            if self._aside is not None:
                self._aside.close()
            if self._failed is None:
                with contextlib.suppress(apsw.BusyError):  # a backup still reads: the next start has the WAL
                    self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._db.close()
            os.close(self._file)
            os.close(self._shared_memory)
            self._journal.close()
        except (apsw.Error, OSError) as error:
            log.error("closing the store: %s", error, extra={"action": "store.close"})
        finally:
            self.folder.close()


def _is_full(error: Exception, connection: apsw.Connection) -> bool:
    """SQLite says "full" of a disk, and "I/O error" of a quota."""
    if not isinstance(error, apsw.IOError):
        return isinstance(error, apsw.FullError)
    code = getattr(error, "extendedresult", None)  # apsw's type hints lack it
    return code == apsw.SQLITE_IOERR_WRITE and connection.system_errno in files.FULL


def _rows(batch: Batch, commit_seq: int) -> list[rows.Row]:
    new = [rows.to_row(number, message, commit_seq) for number, message in batch.inserts]
    return [rows.refer(row, batch.references) for row in new] if batch.references else new
