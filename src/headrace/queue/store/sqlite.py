"""The SQLite disk: rows in one file, WAL, every commit synced.

`synchronous=FULL`, always: NORMAL lost acknowledged work in 23 of 48 simulated power cuts, FULL in none. Checkpoints are
made here and not by SQLite on its own, since its automatic one swallows a failed sync. The first error that is not
"full" is the last: after a failed sync nobody knows what the disk has, and SQLite itself would go on.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Final

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

log = logging.getLogger("headrace.store")

CHECKPOINT_PAGES: Final = 4_000  # 16 MiB of WAL: rarer checkpoints write fewer pages, a longer WAL recovers slower
WAL_BYTES: Final = (CHECKPOINT_PAGES + 1_000) * 4_120  # a checkpoint's worth of frames, and the commit that goes over
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
        wal_bytes: how long the WAL is made beforehand.

    Returns:
        The store and the clock that it runs on.

    Raises:
        StoreUnusable: locked by another process, not writable, made by a newer version; the disk fails.
        StoreDamaged: acknowledged commits are missing.
    """
    data = Folder(folder)
    try:
        disk = SqliteDisk(data, vfs=vfs)
        data.lengthen_wal(wal_bytes)
        if clock is None:
            steady = SteadyClock(disk.folder.anchor(), floor_ms=disk.latest_ms())
            disk.anchor(steady.anchor())
            clock = steady
        return LocalStore(disk, clock, cooldowns=cooldowns), clock
    except OSError as error:  # of a file beside the database
        data.close()
        raise StoreUnusable(str(folder), error.strerror or str(error)) from error
    except BaseException:
        data.close()
        raise


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
        self._note()

    def __str__(self) -> str:
        return str(self.folder)

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
            if batch.inserts:
                raise
            self._prepare(batch)  # in the room that was kept for this

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
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

    def commit(self) -> None:
        try:
            self._commit(self._batch)
        except StoreFull:
            if self._batch.inserts:
                raise
            self._prepare(self._batch)  # a full disk: once more, in the room that was kept for this
            self._commit(self._batch)

    def _commit(self, batch: Batch) -> None:
        try:
            if batch.sync_leases:
                written = self._journal.size_bytes
                self._journal.sync()
                self._synced_bytes = written
            if batch.rows():
                self._sync_rows(batch)
            self._note()
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

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
        self.folder.note(Noted(self._seq, self._last_ms, self._journal.number, self._synced_bytes, self._fifo_until_ms))

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

    def _explain(self, error: Exception) -> StoreError:
        """What an error means: full (try again), busy (try again), or the end."""
        if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in files.FULL):
            self.folder.free_reserve()
            return StoreFull(str(self.folder))
        if isinstance(error, apsw.BusyError):
            return Unavailable(
                f"{self.folder.database} is locked by another program that writes to it; end that program"
            )
        if isinstance(error, CORRUPT):
            self._suspect(error)
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
            raise self._explain(error) from error
        return True

    def sweep(self, limit: int) -> bool:
        if self._failed is not None:
            return False
        try:
            return deleting.sweep(self._db, limit)
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

    def trim(self, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
        if self._failed is not None:
            return Trimmed(0, 0, after, more=False)
        try:
            return deleting.trim(self._db, topic, after=after, before=before, limit=limit)
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

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
                self._journal.flush()  # a full disk: in the room that was kept
            except OSError:
                self._journal.forget_noted()
                raise explained from error

    def leases_want_snapshot(self) -> bool:
        return self._journal.wants_snapshot()

    def snapshot_leases(self, records: Iterable[LeaseRecord]) -> None:
        try:
            self._journal.snapshot([self._closure, *records] if self._closure is not None else records)
            self._synced_bytes = self._journal.size_bytes
            self._note()
        except OSError as error:
            raise self._explain(error) from error

    # --- the rest ---

    def reserve(self) -> bool:
        return self.folder.keep_reserve()

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
            self._journal.close()
        except (apsw.Error, OSError) as error:
            log.error("closing the store: %s", error, extra={"action": "store.close"})
        finally:
            self.folder.close()


def _rows(batch: Batch, commit_seq: int) -> list[rows.Row]:
    new = [rows.to_row(number, message, commit_seq) for number, message in batch.inserts]
    return [rows.refer(row, batch.references) for row in new] if batch.references else new
