"""The SQLite disk: rows in one file, WAL, every commit synced.

`synchronous=FULL`, always: NORMAL lost acknowledged work in 23 of 48 simulated power cuts, FULL in none. Checkpoints are
made here and not by SQLite on its own, since its automatic one swallows a failed sync. The first error that is not
"full" is the last: after a failed sync nobody knows what the disk has, and SQLite itself would go on.
"""

from __future__ import annotations

import errno
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import apsw
import msgspec

from headrace.clock import Anchor, Clock, SteadyClock
from headrace.errors import StoreDamaged, StoreError, StoreFailed, StoreFull, StoreUnusable, Unavailable
from headrace.queue.leases import Lease
from headrace.queue.model import Message, MoveTask, QueueInfo, Sent
from headrace.queue.store import rows, schema
from headrace.queue.store.changes import apply
from headrace.queue.store.disk import (
    CHECKSUM,
    PAGE,
    Batch,
    Dedup,
    Key,
    LeaseRecord,
    PutClaim,
    PutGarbage,
    PutReader,
    Stored,
    StoredAttempt,
    StoredLease,
    StoredQueue,
    key_of,
    seq_of,
)
from headrace.queue.store.folder import Folder
from headrace.queue.store.journal import LeaseJournal
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.wal import check_wal
from headrace.queue.timers import SEQ_MASK

log = logging.getLogger("headrace.store")

CHECKPOINT_PAGES: Final = 4_000  # 16 MiB of WAL: rarer checkpoints write fewer pages, a longer WAL recovers slower
WRITER_CACHE_KIB: Final = 65_536
READER_CACHE_KIB: Final = 8_192
SYNC_WEIGHT: Final = 0.05  # of the newest sync in their running mean: some twenty count
BUSY_MS: Final = 5_000  # somebody looks in with sqlite3; a writer there must not be waited for longer
_LEASES_A_QUERY: Final = 10_000


def open_store(
    folder: Path, *, cooldowns: bool = True, clock: Clock | None = None, vfs: str | None = None
) -> tuple[LocalStore, Clock]:
    """Open, or create, the store in `folder`.

    Args:
        folder: created with mode 0700 if missing. One owner at a time, by a lock.
        cooldowns: whether SQS's 60 seconds between purges, and before a name is used again, are kept.
        clock: a test's; None takes the steady clock that goes on from the last time.
        vfs: the SQLite VFS for the database (a test's, that breaks).

    Returns:
        The store and the clock that it runs on.

    Raises:
        StoreUnusable: locked by another process, not writable, made by a newer version.
        StoreDamaged: acknowledged commits are missing.
    """
    data = Folder(folder)
    try:
        disk = SqliteDisk(data, vfs=vfs)
        if clock is None:
            steady = SteadyClock(disk.folder.anchor(), floor_ms=disk.latest_ms())
            disk.anchor(steady.anchor())
            clock = steady
        return LocalStore(disk, clock, cooldowns=cooldowns), clock
    except BaseException:
        data.close()
        raise


class SqliteDisk:
    """Rows of one folder. `write`, `tidy` and `sweep` use the writing connection, all else the reading one, so that
    a commit in a thread and a read on the loop do not meet."""

    durable = True

    def __init__(self, folder: Folder, *, vfs: str | None = None) -> None:
        self.folder = folder
        self._failed: StoreFailed | None = None
        self._closed = False
        self.sync_seconds = 0.0
        self._wal_pages = 0
        self.on_damage: Callable[[Key, str], None] = lambda _key, _reason: None
        folder.keep_reserve()
        with self._opening():
            check_wal(folder.database, keep=folder.keep_damaged)
            self._open(vfs)
            if self._missing():
                self._mend_tail()
                self._open(vfs)
            self._check_gap()
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            self._journal = LeaseJournal(folder.journal)
            folder.sync()

    def _open(self, vfs: str | None) -> None:
        self._db = self._connect(vfs)
        self._migrate()
        self._db.execute(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")
        self._db.set_wal_hook(self._count_wal)
        self._reader = self._connect(vfs)
        self._reader.execute(f"PRAGMA query_only=ON; PRAGMA cache_size=-{READER_CACHE_KIB}")
        row = self._row(self._db, "SELECT seq, now_ms FROM commit_log")
        self._seq, self._last_ms = int(row[0]), int(row[1])

    def _missing(self) -> int:
        """How many acknowledged commits the database does not have."""
        behind: int = self.folder.acknowledged() - self._seq
        return max(0, behind)

    def _mend_tail(self) -> None:
        """SQLite took the last commit's frames for a torn tail, but it was acknowledged: so they are damaged."""
        self._reader.close()
        self._db.close()
        check_wal(self.folder.database, keep=self.folder.keep_damaged, tail=True)

    def __str__(self) -> str:
        return str(self.folder)

    # --- opening ---

    def _connect(self, vfs: str | None) -> apsw.Connection:
        connection = apsw.Connection(str(self.folder.database), vfs=vfs, statementcachesize=200)
        connection.set_busy_timeout(BUSY_MS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a WAL that may be damaged stays as it is
        connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA temp_store=MEMORY")
        return connection

    def _opening(self) -> _Opening:
        return _Opening(self.folder)

    def _migrate(self) -> None:
        (version,) = self._row(self._db, "PRAGMA user_version")
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

    def latest_ms(self) -> int:
        """The latest steady time that was stored: by a commit, or with a lease."""
        return max(self._last_ms, max((record.received_ms for record in self._journal.records), default=0))

    @staticmethod
    def _row(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> Any:
        return connection.execute(sql, values).fetchone()

    def load(self) -> Stored:
        with self._opening():
            return self._load()

    def _load(self) -> Stored:
        db = self._db
        (secret,) = self._row(db, "SELECT value FROM meta WHERE name = 'secret'")
        leases, attempts = self._load_leases()
        last = self._row(db, "SELECT seq FROM sqlite_sequence WHERE name = 'queue'")
        return Stored(
            secret=secret,
            queues=[
                StoredQueue(
                    number, msgspec.json.decode(info, type=QueueInfo), floor, purged_ms, messages or 0, reserved or 0
                )
                for number, info, floor, purged_ms, messages, reserved in db.execute(
                    "SELECT id, info, floor, purged_ms, messages, reserved FROM queue LEFT JOIN progress ON queue = id"
                )
            ],
            last_queue=last[0] if last is not None else 0,
            delayed=list(db.execute("SELECT key, visible_ms FROM message WHERE visible_ms IS NOT NULL")),
            leases=leases,
            attempts=attempts,
            dedups=[
                Dedup(queue, key, Sent(message_id, seq), expires_ms)
                for queue, key, message_id, seq, expires_ms in db.execute(
                    "SELECT queue, key, message_id, seq, expires_ms FROM dedup ORDER BY id"
                )
            ],
            claims=[
                PutClaim(queue, reader, number, msgspec.msgpack.decode(seqs, type=list[int]))
                for queue, reader, number, seqs in db.execute("SELECT queue, reader, number, seqs FROM claim")
            ],
            readers=[PutReader(*row) for row in db.execute("SELECT queue, reader, acknowledged FROM reader")],
            moves=[msgspec.json.decode(task, type=MoveTask) for (task,) in db.execute("SELECT task FROM move_task")],
            fences=dict(db.execute("SELECT name, epoch FROM fence")),
            deleted_queues=dict(db.execute("SELECT arn, deleted_ms FROM deleted_queue")),
            garbage=[PutGarbage(*row) for row in db.execute("SELECT first, last FROM garbage")],
        )

    def _load_leases(self) -> tuple[list[StoredLease], list[StoredAttempt]]:
        """The journal's last word on each message that still exists."""
        last: dict[Key, tuple[LeaseRecord, int, int]] = {}
        attempts: dict[tuple[int, str], StoredAttempt] = {}
        for record in self._journal.records:
            for seq, receives, first_ms in record.items:
                last[key_of(record.queue, seq)] = (record, receives, first_ms)
            if record.attempt_id is not None:
                leased = [(seq, receives) for seq, receives, _ in record.items]
                attempts[record.queue, record.attempt_id] = StoredAttempt(
                    record.queue, record.attempt_id, record.received_ms, record.expires_ms, leased
                )
        self._journal.records.clear()
        leases = []
        for key, sent_ms, group in self._existing(sorted(last)):
            record, receives, first_ms = last[key]
            leases.append(
                StoredLease(key, Lease(receives, first_ms, record.received_ms, record.expires_ms, sent_ms, group))
            )
        return leases, list(attempts.values())

    def _existing(self, keys: list[Key]) -> Iterator[tuple[Key, int, str | None]]:
        for start in range(0, len(keys), _LEASES_A_QUERY):
            yield from self._db.execute(
                "SELECT key, sent_ms, message_group FROM message WHERE key IN carray(?)",
                (apsw.carray(array("q", keys[start : start + _LEASES_A_QUERY])),),
            )

    # --- writing ---

    def write(self, batch: Batch) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            self._write(batch)
        except StoreFull:
            if batch.inserts:
                raise
            self._write(batch)  # in the room that was kept for this

    def _write(self, batch: Batch) -> None:
        try:
            if batch.sync_leases:
                self._journal.sync()
            if batch.rows():
                self._commit(batch)
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

    def _commit(self, batch: Batch) -> None:
        db = self._db
        seq = self._seq + 1
        db.execute("BEGIN IMMEDIATE")
        for change in batch.changes:
            apply(db, change)
        if batch.inserts:
            db.executemany(rows.INSERT, [rows.to_row(number, message, seq) for number, message in batch.inserts])
        if batch.deletes:
            self._delete(batch.deletes)
        if batch.dedups:
            self._dedup(batch.dedups, batch.now_ms)
        if batch.progress:
            db.executemany(
                "INSERT INTO progress VALUES (?, ?, ?)"
                " ON CONFLICT (queue) DO UPDATE SET messages = excluded.messages, reserved = excluded.reserved",
                [(number, messages, reserved) for number, (messages, reserved) in batch.progress.items()],
            )
        db.execute("UPDATE commit_log SET seq = ?, now_ms = ?", (seq, batch.now_ms))
        started = perf_counter()
        db.execute("COMMIT")
        self.sync_seconds += (perf_counter() - started - self.sync_seconds) * SYNC_WEIGHT
        self._seq, self._last_ms = seq, batch.now_ms
        self.folder.acknowledge(seq)

    def _delete(self, keys: set[Key]) -> None:
        """Runs of keys as ranges, the rest as one list: in order of arrival a thousand deletes are one range."""
        ordered = sorted(keys)
        first = ordered[0]
        if ordered[-1] - first == len(ordered) - 1:
            self._db.execute("DELETE FROM message WHERE key BETWEEN ? AND ?", (first, ordered[-1]))
        else:
            self._db.execute("DELETE FROM message WHERE key IN carray(?)", (apsw.carray(array("q", ordered)),))

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
        if isinstance(error, apsw.FullError) or (
            isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        ):
            self.folder.free_reserve()
            return StoreFull(str(self.folder))
        if isinstance(error, apsw.BusyError):
            return Unavailable(
                f"{self.folder.database} is locked by another program that writes to it; end that program"
            )
        self._failed = StoreFailed(f"{type(error).__name__}: {error}")
        return self._failed

    def _count_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def tidy(self) -> None:
        if self._wal_pages < CHECKPOINT_PAGES or self._failed is not None:
            return
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return  # a reader is in the way; after the next commit again
        except Exception as error:
            raise self._explain(error) from error
        self._wal_pages = 0

    def sweep(self, limit: int) -> bool:
        if self._failed is not None:
            return False
        try:
            return self._sweep(limit)
        except Exception as error:
            self._roll_back()
            raise self._explain(error) from error

    def _sweep(self, limit: int) -> bool:
        db = self._db
        row = self._row(db, "SELECT id, first, last FROM garbage ORDER BY id LIMIT 1")
        if row is None:
            return False
        number, first, last = row
        with db:
            db.execute(
                "DELETE FROM message WHERE key IN (SELECT key FROM message WHERE key BETWEEN ? AND ? LIMIT ?)",
                (first, last, limit),
            )
            if db.changes() < limit:
                db.execute("DELETE FROM garbage WHERE id = ?", (number,))
        return True

    # --- leases ---

    def lease(self, record: LeaseRecord) -> None:
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
            self._journal.snapshot(records)
        except OSError as error:
            raise self._explain(error) from error

    # --- reading ---

    def read(self, keys: Sequence[Key]) -> dict[Key, Message]:
        if not keys:
            return {}
        if len(keys) == 1:
            sql, values = f"SELECT {rows.COLUMNS} FROM message WHERE key = ?", (keys[0],)  # noqa: S608
        else:
            sql = f"SELECT {rows.COLUMNS} FROM message WHERE key IN carray(?)"  # noqa: S608
            values = (apsw.carray(array("q", keys)),)  # type: ignore[assignment]
        found: dict[Key, Message] = {}
        try:
            for row in self._reader.execute(sql, values):
                key, message = rows.from_row(row)
                if message is None:
                    self.on_damage(key, CHECKSUM)
                else:
                    found[key] = message
        except apsw.CorruptError:
            return self._read_one_by_one(keys)
        except apsw.Error as error:
            raise self._explain(error) from error
        return found

    def _read_one_by_one(self, keys: Sequence[Key]) -> dict[Key, Message]:
        """A page is damaged: what lies elsewhere is still read."""
        if len(keys) == 1:
            self.on_damage(keys[0], PAGE)
            return {}
        found: dict[Key, Message] = {}
        for key in keys:
            found.update(self.read([key]))
        return found

    def scan(self, queue: int, *, after: int, limit: int, bytes_max: int) -> tuple[list[Message], int, bool]:
        found: list[Message] = []
        seq, size, looked = after, 0, 0
        try:
            for row in self._reader.execute(
                f"SELECT {rows.COLUMNS} FROM message WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",  # noqa: S608
                (key_of(queue, after), key_of(queue, SEQ_MASK), limit),
            ):
                key, message = rows.from_row(row)
                seq = seq_of(key)
                looked += 1
                if message is None:
                    self.on_damage(key, CHECKSUM)
                    continue
                found.append(message)
                size += len(message.body)
                if size >= bytes_max:
                    return found, seq, True
        except apsw.CorruptError:
            return found, self._behind_damage(queue, seq), True
        except apsw.Error as error:
            raise self._explain(error) from error
        return found, seq, looked == limit

    def _behind_damage(self, queue: int, seq: int) -> int:
        """The seq before the next readable message, behind a page that cannot be read: found by doubling steps and
        then halving them."""
        step, low = 1, seq
        while seq + step < SEQ_MASK and not self._readable(queue, seq + step):
            low, step = seq + step, step * 2
        high = min(seq + step, SEQ_MASK)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._readable(queue, middle) else (middle, high)
        log.error(
            "messages %d to %d of queue number %d are on damaged pages", seq + 1, high, queue,
            extra={"action": "store.damaged"},
        )  # fmt: skip
        for lost in range(seq + 1, min(high, seq + 1_000) + 1):
            self.on_damage(key_of(queue, lost), PAGE)
        return high

    def _readable(self, queue: int, after: int) -> bool:
        try:
            self._row(
                self._reader,
                f"SELECT {rows.COLUMNS} FROM message WHERE key > ? AND key <= ? ORDER BY key LIMIT 1",  # noqa: S608
                (key_of(queue, after), key_of(queue, SEQ_MASK)),
            )
        except apsw.CorruptError:
            return False
        return True

    def groups(self, queue: int, seqs: Sequence[int]) -> dict[int, str]:
        keys = array("q", [key_of(queue, seq) for seq in seqs])
        return {
            seq_of(key): group
            for key, group in self._query(
                "SELECT key, message_group FROM message WHERE key IN carray(?) AND message_group IS NOT NULL",
                (apsw.carray(keys),),
            )
        }

    def first(self, queue: int, *, after: int) -> tuple[int, int] | None:
        found = self._query(
            "SELECT key, sent_ms FROM message WHERE key > ? AND key <= ? ORDER BY key LIMIT 1",
            (key_of(queue, after), key_of(queue, SEQ_MASK)),
        )
        return (seq_of(found[0][0]), found[0][1]) if found else None

    def sent_after(self, queue: int, sent_ms: int) -> list[int]:
        out = []
        newest = self._reader.execute(
            "SELECT key, sent_ms FROM message WHERE key > ? AND key <= ? ORDER BY key DESC",
            (key_of(queue, 0), key_of(queue, SEQ_MASK)),
        )
        for key, sent in newest:
            if sent <= sent_ms:
                break
            out.append(seq_of(key))
        newest.close()
        return out

    def expired(self, queue: int, *, after: int, sent_before_ms: int, limit: int) -> list[int]:
        first, last = key_of(queue, after), key_of(queue, SEQ_MASK)
        front = self._query(
            "SELECT key, sent_ms FROM message WHERE key > ? AND key <= ? ORDER BY key LIMIT ?", (first, last, limit)
        )
        out = []
        for key, sent_ms in front:
            if sent_ms > sent_before_ms:
                break
            out.append(seq_of(key))
        moved = self._query(
            "SELECT key FROM message WHERE source IS NOT NULL AND sent_ms <= ? AND key > ? AND key <= ? LIMIT ?",
            (sent_before_ms, first, last, limit),
        )
        return list(dict.fromkeys(out + [seq_of(key) for (key,) in moved]))

    def state(self, name: str, *, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found = self._query(
            "SELECT key, value FROM state WHERE name = ? AND key >= ? AND key > ? ORDER BY key LIMIT ?",
            (name, prefix, after, limit),
        )
        return [(key, value) for key, value in found if key.startswith(prefix)]

    def _query(self, sql: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._reader.execute(sql, values).fetchall()
        except apsw.CorruptError as error:
            log.error("a damaged page: %s", error, extra={"action": "store.damaged"})
            return []
        except apsw.Error as error:
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
            if self._failed is None:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._db.close()
            self._journal.close()
        except (apsw.Error, OSError) as error:
            log.error("closing the store: %s", error, extra={"action": "store.close"})
        finally:
            self.folder.close()


class _Opening:
    """Errors while a store is opened, in words for who runs it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            raise StoreDamaged(str(self.folder.database), f"SQLite says: {error}") from error
        if isinstance(error, apsw.Error | OSError):
            raise StoreUnusable(str(self.folder), f"{type(error).__name__}: {error}") from error
