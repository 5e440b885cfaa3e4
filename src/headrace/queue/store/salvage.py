"""A new database from what a damaged one still holds.

SQLite refuses a table from the first page that makes no sense. Here its pages are read one by one (`remains.py`); every
message that checks is kept, one that does not goes to `quarantine`, and what is missing is counted and told. The new file
takes the old one's place when it is whole and synced; a copy of the old files stays.
"""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from headrace.errors import StoreDamaged
from headrace.queue.model import TopicInfo, TopicSettings
from headrace.queue.store import files, rows, schema
from headrace.queue.store.disk import CHECKSUM, PAGE, Key, key_of, seq_of
from headrace.queue.store.folder import Folder
from headrace.queue.store.pages import Pages, Values
from headrace.queue.store.remains import Remains, Row
from headrace.queue.store.small_tables import (
    RESERVED_MAX,
    SHAPES,
    WHOLE,
    Directory,
    FoundQueue,
    claim_row,
    fitting,
    good_garbage,
)
from headrace.queue.store.wal import PAGE_BYTES, wal_path
from headrace.queue.store.wal_format import scan
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

log = logging.getLogger("headrace.store")

_BATCH: Final = 1_000
_UNKNOWN_RESERVE: Final = 1_000_000  # numbers left out when it is not known how many were given
_COLUMNS: Final = 15
_INSERT: Final = rows.INSERTS[1].replace("INSERT", "INSERT OR IGNORE", 1)
_QUARANTINE: Final = "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?)"
_COPIED: Final = ("dedup", "reader", "state", "fence", "deleted_queue", "quarantine", "claim", "move_task")
_WEIGHED: Final = (
    "meta", "commit_log", "queue", "progress", "garbage", "sqlite_sequence", "topic", "topic_log", "subscription"
)  # fmt: skip
_NAMES: Final = "sqlite_autoindex_queue_1"


def salvage(folder: Folder, *, why: str, vfs: str | None = None) -> dict[int, int]:
    """Replace the folder's database by a new one of what can be read of it. Nobody may have it open. Atomic.

    Args:
        why: what was found, for the log.

    Returns:
        Queue number -> how many of its messages are lost.

    Raises:
        StoreDamaged: nothing in it can be read.
    """
    kept = folder.keep_damaged()
    log.error(
        "%s is damaged (%s): a new one is made of what it holds; a copy of the files is in %s", folder.database, why, kept,
        extra={"action": "store.salvage"},
    )  # fmt: skip
    new = folder.database.with_name(folder.database.name + ".new")
    files.remove(new)
    with closing(Pages(folder.database, PAGE_BYTES, _newer_pages(folder.database))) as pages:
        remains = Remains(pages)
        with closing(apsw.Connection(str(new), vfs=vfs)) as db:
            lost = _Salvage(db, remains, folder, kept).run()
    files.sync_path(new)
    folder.take_in(new)
    return lost


def _newer_pages(database: Path) -> dict[int, bytes | memoryview]:
    """The pages that stand in the WAL, as of its last whole commit."""
    path = wal_path(database)
    wal = scan(bytearray(path.read_bytes())) if path.exists() else None
    pages: dict[int, bytes | memoryview] = {}
    pending: dict[int, bytes | memoryview] = {}
    for index, frame in enumerate(wal.frames if wal is not None else ()):
        if not frame.good:
            break
        assert wal is not None
        pending[frame.page] = wal.view(index)
        if frame.commit_pages:
            pages |= pending
            pending = {}
    return pages


class _Salvage:
    """One run: reads `remains`, fills `db`. Counts what it finds; what is missing follows from `progress`."""

    def __init__(self, db: apsw.Connection, remains: Remains, folder: Folder, kept: Path) -> None:
        self._db = db
        self._remains = remains
        self._folder = folder
        self._kept = kept
        self._now_ms = time.time_ns() // 1_000_000
        self._messages: list[Values] = []
        self._found: dict[int, bool] = {}  # queue number -> whether each of its messages has a group
        self._commit_seq = 0
        self._references = array("q")  # keys of messages whose body stands elsewhere
        self._bad: list[Values] = []  # rows for quarantine
        self._holes: list[tuple[Key, Key]] = []  # between which keys something could not be read
        self._weighed: dict[str, list[tuple[int, Values]]] = {name: [] for name in _WEIGHED}
        self._dropped: dict[str, int] = {}

    def run(self) -> dict[int, int]:
        db = self._db
        db.execute("PRAGMA journal_mode=OFF").fetchall()
        db.execute("PRAGMA synchronous=OFF")
        with db:
            for step in schema.STEPS:
                db.execute(step).fetchall()
            db.execute("DELETE FROM commit_log")
            self._read_all()
            self._check_worth()
            topics = self._put_topics()
            queues = self._put_queues(topics)
            lost = self._put_progress(queues)
            self._put_rest()
            db.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={schema.VERSION}")
        return lost

    # --- reading ---

    def _read_all(self) -> None:
        self._read_messages()
        for name in (*_COPIED, *_WEIGHED):
            for row in self._remains.rows(name):
                self._take(name, row)
        if self._remains.damaged & {"message", *SHAPES}:
            for row in self._remains.stray_rows():
                self._take_stray(row)
        self._flush()
        self._check_references()
        self._db.executemany(
            "INSERT OR IGNORE INTO quarantine SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE ?1 NOT IN (SELECT key FROM message)",
            self._bad,
        )

    def _read_messages(self) -> None:
        last, hole = 0, False
        for row in self._remains.rows("message"):
            if not self._take_message(row):
                hole = True
                continue
            if hole and row.key > last:
                self._holes.append((last, row.key))
            last, hole = max(last, row.key), False
        if hole or "message" in self._remains.damaged:
            self._holes.append((last, SEQ_MASK << SEQ_BITS))

    def _take_message(self, row: Row) -> bool:
        """Whether the row is a whole message. One that is not, but surely was one, is kept for quarantine."""
        values = row.values
        if values is not None and len(values) == _COLUMNS:
            if row.sure and rows.refers(values):
                self._references.append(row.key)
                self._add_message(row.key, values, grouped=values[6] is not None)
                return True  # checked when all bodies are there
            _, message = rows.from_row((row.key, *values[1:-1]))
            if message is not None:
                if row.sure:
                    self._add_message(row.key, values, grouped=message.group is not None)
                return row.sure
        if row.sure:
            id_, body, attributes = values[1:4] if values is not None and len(values) >= 4 else (None, None, None)
            kept = [value if isinstance(value, bytes) else None for value in (id_, body, attributes)]
            self._bad.append((row.key, self._now_ms, CHECKSUM if values is not None else PAGE, *kept))
        return False

    def _add_message(self, key: Key, values: Values, *, grouped: bool) -> None:
        number = key >> SEQ_BITS
        self._found[number] = grouped and self._found.get(number, True)
        commit_seq = values[-1] if isinstance(values[-1], int) else 0
        self._commit_seq = max(self._commit_seq, commit_seq)
        self._messages.append((key, *values[1:]))
        if len(self._messages) >= _BATCH:
            self._flush()

    def _check_references(self) -> None:
        """Messages whose body stands in a topic's row are whole if that body is there and is theirs."""
        for key in self._references:
            row: Any = self._db.execute(f"SELECT {rows.SELECTED} FROM message WHERE key = ?", (key,)).fetchone()  # noqa: S608
            if row is not None and rows.from_row(row)[1] is None:
                self._bad.append((key, self._now_ms, CHECKSUM, row[1], row[2], row[3]))
                self._db.execute("DELETE FROM message WHERE key = ?", (key,))

    def _flush(self) -> None:
        self._db.executemany(_INSERT, self._messages)
        self._messages.clear()

    def _take(self, name: str, row: Row) -> bool:
        """Take a small table's row, if it fits; whether it does."""
        values = row.values if name == "queue" else fitting(name, row.key, row.values)
        if values is None or not row.sure or not WHOLE.get(name, bool)(values):
            self._dropped[name] = self._dropped.get(name, 0) + 1
            return False
        if name in _WEIGHED:
            self._weighed[name].append((row.key, values))
        else:
            values = claim_row(values) if name == "claim" else values
            marks = ", ".join("?" * len(values))
            self._db.execute(f"INSERT OR IGNORE INTO {name} VALUES ({marks})", values)  # noqa: S608 - a fixed name
        return True

    def _take_stray(self, row: Row) -> None:
        """A row that no tree leads to: a message, or of the one damaged table whose shape it has."""
        if row.values is not None and len(row.values) == _COLUMNS:
            self._take_message(row)
            return
        fits = [
            name for name in self._remains.damaged & SHAPES.keys() if fitting(name, row.key, row.values) is not None
        ]
        if len(fits) == 1:
            self._take(fits[0], row)

    def _check_worth(self) -> None:
        if not (self._found or any(self._weighed.values())):
            raise StoreDamaged(
                str(self._folder.database), f"nothing in it can be read; a copy is in {self._kept}; restore a backup"
            )

    # --- writing ---

    def _put_topics(self) -> set[int]:
        """The topics that can be read, and their logs counted anew. One that cannot, but to whose messages queues refer, is
        deleted as far as anybody can see. Returns their numbers."""
        logs = {row[0]: row for _, row in self._weighed["topic_log"]}
        queues = {key for key, _ in self._weighed["queue"]}
        found = {key: (arn, text) for key, (_, arn, text) in self._weighed["topic"] if key not in queues}
        referred: list[Any] = self._db.execute(
            f"SELECT DISTINCT body >> {SEQ_BITS} FROM message WHERE typeof(body) = 'integer'"  # noqa: S608
        ).fetchall()
        nobody = msgspec.json.encode(TopicInfo("", TopicSettings(), self._now_ms, self._now_ms)).decode()
        topics: dict[int, tuple[str | None, str]] = {number: (None, nobody) for (number,) in referred}
        topics.update(found)
        for number, (arn, text) in topics.items():
            info = msgspec.json.decode(text, type=TopicInfo)
            self._db.execute(
                "INSERT OR IGNORE INTO topic VALUES (?, ?, ?)", (number, arn if arn == info.arn else None, text)
            )
            self._db.execute("INSERT INTO topic_log VALUES (?, ?, ?, ?, ?)", self._log(number, logs.get(number)))
        for _, row in self._weighed["subscription"]:
            if row[0] in found:
                self._db.execute("INSERT OR IGNORE INTO subscription VALUES (?, ?, ?)", row)
        return set(topics)

    def _log(self, number: int, before: Values | None) -> Values:
        """A topic's log: where it began, if that is known, and what is there now."""
        first = before[1] if before is not None else 1
        counted: list[Any] = self._db.execute(
            "SELECT count(*), ifnull(sum(length(body) + ifnull(length(attributes), 0)), 0), max(key) FROM message"
            " WHERE key BETWEEN ? AND ?",
            (key_of(number, first), key_of(number, SEQ_MASK)),
        ).fetchall()
        messages, size, top = counted[0]
        if before is not None and before[2] > messages:
            log.error(
                "%d messages of topic number %d are lost: they lay on damaged pages", before[2] - messages, number,
                extra={"action": "store.salvaged", "lost": before[2] - messages},
            )  # fmt: skip
        reserved = before[4] if before is not None else 0
        known = max(reserved, first, seq_of(top) + 1 if top is not None else 0)
        return (number, first, messages, size, known if before is not None else known + _UNKNOWN_RESERVE)

    def _put_queues(self, topics: set[int]) -> dict[int, FoundQueue]:
        directory = Directory(self._now_ms)
        directory.add_names([row.values for row in self._remains.rows(_NAMES) if row.values is not None])
        for key, values in self._weighed["queue"]:
            directory.add_row(key, values)
        garbage = [values for _, values in self._weighed["garbage"]]
        queues = directory.settle({n: grouped for n, grouped in self._found.items() if n not in topics}, garbage)
        for queue in queues.values():
            self._db.execute(
                "INSERT INTO queue VALUES (?, ?, ?, ?, ?)",
                (queue.number, queue.info.arn, msgspec.json.encode(queue.info).decode(), queue.floor, queue.purged_ms),
            )
        for row in garbage:
            if good_garbage(row, queues):
                self._db.execute("INSERT OR IGNORE INTO garbage VALUES (?, ?, ?)", row)
        numbers = [*queues, *self._found, *[row[1] >> SEQ_BITS for row in garbage]]
        stored = [row[1] for _, row in self._weighed["sqlite_sequence"] if row[0] == "queue" and row[1] < 1 << 23]
        self._db.execute("DELETE FROM sqlite_sequence")
        self._db.execute("INSERT INTO sqlite_sequence VALUES ('queue', ?)", (max([*numbers, *stored], default=0),))
        stored = [row[1] for _, row in self._weighed["sqlite_sequence"] if row[0] == "topic" and row[1] < 1 << 23]
        self._db.execute("INSERT INTO sqlite_sequence VALUES ('topic', ?)", (max([*topics, *stored], default=0),))
        return queues

    def _put_progress(self, queues: dict[int, FoundQueue]) -> dict[int, int]:
        """Count what there is; the difference to what there was is lost."""
        before = {values[0]: (values[1], values[2]) for _, values in self._weighed["progress"]}
        hit = "message" in self._remains.damaged or bool(self._bad)
        lost = {}
        for number, queue in queues.items():
            had, reserved = before.get(number, (None, 0))
            first, last = key_of(number, queue.floor), key_of(number, SEQ_MASK)
            found: list[Any] = self._db.execute(
                "SELECT count(*), max(key) FROM message WHERE key BETWEEN ? AND ?", (first, last)
            ).fetchall()
            messages, top = found[0]
            quarantined = sum(1 for row in self._bad if first <= row[0] <= last)
            missing = max(had - messages if had is not None else 0, quarantined) if hit else 0
            if missing > 0:
                lost[number] = missing
                self._tell(queue, missing)
            self._db.execute(
                "INSERT INTO progress VALUES (?, ?, ?)",
                (number, messages, self._reserved(queue, reserved, top, sure=had is not None)),
            )
        return lost

    def _reserved(self, queue: FoundQueue, reserved: int, top: Key | None, *, sure: bool) -> int:
        """Up to where numbers may have been given: none may be given again."""
        sure = sure and 0 <= reserved < RESERVED_MAX
        known = max(reserved if sure else 0, queue.floor, seq_of(top) + 1 if top is not None else 0)
        dedup: list[Any] = self._db.execute(
            "SELECT max(seq) FROM dedup WHERE queue = ? AND seq < ?", (queue.number, RESERVED_MAX)
        ).fetchall()
        known = max(known, (dedup[0][0] or 0) + 1)
        return known if sure else known + _UNKNOWN_RESERVE

    def _tell(self, queue: FoundQueue, missing: int) -> None:
        ranges = ", ".join(self._ranges(queue.number)) or "unknown"
        log.error(
            "%d messages of %s are lost: they lay on damaged pages; their numbers are in %s", missing, queue.info.arn,
            ranges, extra={"action": "store.salvaged", "queue": queue.info.arn, "lost": missing},
        )  # fmt: skip

    def _ranges(self, number: int) -> Iterator[str]:
        first, last = key_of(number, 0), key_of(number, SEQ_MASK)
        for row in self._bad:
            if first <= row[0] <= last:
                yield str(seq_of(row[0]))
        for low, high in self._holes:
            if low < last and high > first:
                upper = seq_of(high) - 1 if high <= last else "the end"
                yield f"{seq_of(max(low, first)) + 1} to {upper}"

    def _put_rest(self) -> None:
        db = self._db
        secret = next((row[1] for _, row in self._weighed["meta"] if row[0] == "secret" and len(row[1]) == 32), None)
        if secret is None:
            log.error(
                "the receipts' secret is lost: receipts given so far are invalid", extra={"action": "store.salvaged"}
            )
        db.execute("INSERT INTO meta VALUES ('secret', ?)", (secret or os.urandom(32),))
        noted = self._folder.noted()
        logged = [row for key, row in self._weighed["commit_log"] if key == 1]
        known = (noted.commit_seq, noted.now_ms) if noted is not None else (0, 0)
        seq, now_ms = (logged[0][1], logged[0][2]) if logged else (max(self._commit_seq, known[0]), known[1])
        db.execute("INSERT INTO commit_log VALUES (1, ?, ?)", (seq, now_ms))
        for table in ("claim", "reader", "subscription"):
            db.execute(f"DELETE FROM {table} WHERE queue NOT IN (SELECT id FROM queue)")  # noqa: S608 - a fixed name
        db.execute("DELETE FROM dedup WHERE queue NOT IN (SELECT id FROM queue UNION ALL SELECT id FROM topic)")
        for table, count in self._dropped.items():
            log.error(
                "%d damaged rows or pages of the table %s are left out", count, table,
                extra={"action": "store.salvaged", "table": table, "lost": count},
            )  # fmt: skip
