"""From the database and the lease journal to what a store holds in memory; whether they agree with themselves.

The small tables have no checksum. What cannot be true (a name that differs from its queue's, a count that no row bears
out) is found here before it does harm: a number given twice, a message that is never looked for.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from headrace.queue.leases import Lease
from headrace.queue.model import MoveTask, QueueInfo, Sent, Subscription, TopicInfo
from headrace.queue.store import rows, schema
from headrace.queue.store.disk import (
    Dedup,
    Key,
    LeaseRecord,
    PutClaim,
    PutGarbage,
    PutReader,
    PutSubscription,
    Stored,
    StoredAttempt,
    StoredLease,
    StoredQueue,
    StoredTopic,
    TopicLog,
    key_of,
)
from headrace.queue.store.journal import NO_QUEUE
from headrace.queue.store.remains import reference
from headrace.queue.store.small_tables import QUEUE_NUMBER_MAX, RESERVED_MAX, FoundQueue, can_filter, good_garbage
from headrace.queue.store.wal import PAGE_BYTES
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

SECRET_BYTES: Final = 32
_LEASES_A_QUERY: Final = 10_000


class Inconsistent(Exception):
    """The database contradicts itself. The message says where."""


DAMAGE: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.TooBigError,  # a size that cannot be
    apsw.SQLError,  # a table or column that is not there
    Inconsistent,
    msgspec.MsgspecError,
    UnicodeDecodeError,
)
"""What reading a damaged database raises."""


def load(db: apsw.Connection, records: list[LeaseRecord]) -> Stored:
    """All that is held in memory, from the database and the lease journal's records.

    Raises:
        Inconsistent, apsw.Error, msgspec.MsgspecError, UnicodeDecodeError: the database is damaged.
    """
    ((secret,),) = _rows(db, "SELECT value FROM meta WHERE name = 'secret'", count=1)
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        raise Inconsistent("the receipts' secret is not one")
    queues = [_queue(db, *row) for row in db.execute(_QUEUES)]
    claims = _rows(db, "SELECT queue, reader, number, seqs FROM claim")
    tasks = _rows(db, "SELECT task FROM move_task")
    _are_texts(*[task for (task,) in tasks])
    if not all(isinstance(seqs, bytes) for *_, seqs in claims):
        raise Inconsistent("a claim's numbers are none")
    last = dict(db.execute("SELECT name, seq FROM sqlite_sequence"))
    dedups = [
        Dedup(queue, key, Sent(message_id, seq), expires_ms)
        for queue, key, message_id, seq, expires_ms in db.execute(_DEDUPS)
    ]
    stored = Stored(
        secret=secret,
        queues=queues,
        last_queue=last.get("queue", 0),
        topics=[_topic(db, *row) for row in db.execute(_TOPICS)],
        last_topic=last.get("topic", 0),
        subscriptions=[
            PutSubscription(topic, queue, msgspec.json.decode(details, type=Subscription))
            for topic, queue, details in db.execute("SELECT topic, queue, details FROM subscription")
        ],
        delayed=list(db.execute("SELECT key, visible_ms FROM message WHERE visible_ms IS NOT NULL")),
        dedups=dedups,
        claims=[
            PutClaim(queue, reader, number, msgspec.msgpack.decode(seqs, type=list[int]))
            for queue, reader, number, seqs in claims
        ],
        readers=[PutReader(*row) for row in db.execute("SELECT queue, reader, acknowledged FROM reader")],
        moves=[msgspec.json.decode(task, type=MoveTask) for (task,) in tasks],
        fences=dict(db.execute("SELECT name, epoch FROM fence")),
        deleted_queues=dict(db.execute("SELECT arn, deleted_ms FROM deleted_queue")),
        garbage=[PutGarbage(*row) for row in db.execute("SELECT first, last FROM garbage")],
    )
    _check(stored)
    _load_leases(db, records, stored)
    return stored


_QUEUES: Final = (
    "SELECT id, arn, info, floor, purged_ms, messages, reserved FROM queue LEFT JOIN progress ON queue = id"
)


_DEDUPS: Final = (  # those of purged messages are forgotten
    "SELECT dedup.queue, key, message_id, seq, expires_ms FROM dedup LEFT JOIN queue ON queue.id = dedup.queue"
    " WHERE seq >= coalesce(floor, 0) ORDER BY dedup.id"
)


_TOPICS: Final = "SELECT id, arn, info, first, messages, bytes, reserved FROM topic LEFT JOIN topic_log ON topic = id"


def _rows(db: apsw.Connection, sql: str, values: tuple[Any, ...] = (), *, count: int | None = None) -> list[Any]:
    found = db.execute(sql, values).fetchall()
    if count is not None and len(found) != count:
        raise Inconsistent(f"{len(found)} rows where {count} should be: {sql}")
    return found


def _queue(
    db: apsw.Connection, number: int, arn: str, text: str, floor: int, purged_ms: int | None,
    messages: int | None, reserved: int | None,
) -> StoredQueue:  # fmt: skip
    """One queue's rows, compared with the messages that it has."""
    messages, reserved = messages or 0, reserved or 0
    _are_texts(arn, text)
    _are_integers(number, floor, purged_ms or 0, messages, reserved)
    info = msgspec.json.decode(text, type=QueueInfo)
    if info.arn != arn:
        raise Inconsistent(f"queue {number} has two names")
    if not (0 < number <= QUEUE_NUMBER_MAX and 0 <= floor <= max(reserved, 1) < RESERVED_MAX and messages >= 0):
        raise Inconsistent(f"the numbers of queue {arn} cannot be")
    keys = (key_of(number, floor), key_of(number, SEQ_MASK))
    # Two statements: in one, SQLite reads every row between.
    ((lowest,),) = _rows(db, "SELECT min(key) FROM message WHERE key BETWEEN ? AND ?", keys)
    ((highest,),) = _rows(db, "SELECT max(key) FROM message WHERE key BETWEEN ? AND ?", keys)
    if (lowest is not None) != (messages > 0):
        raise Inconsistent(f"queue {arn} has {messages} messages by its count, and not by its rows")
    if highest is not None and highest > key_of(number, reserved):
        raise Inconsistent(f"queue {arn} has a message with a number that was never given")
    return StoredQueue(number, info, floor, purged_ms, messages, reserved)


def _topic(
    db: apsw.Connection, number: int, arn: str | None, text: str,
    first: int | None, messages: int | None, size: int | None, reserved: int | None,
) -> StoredTopic:  # fmt: skip
    """One topic's rows, compared with the messages that it has."""
    log = TopicLog(first or 0, messages or 0, size or 0, reserved or 0)
    _are_texts(text, *([arn] if arn is not None else []))
    _are_integers(number, log.first, log.messages, log.bytes, log.reserved)
    info = msgspec.json.decode(text, type=TopicInfo)
    if arn is not None and info.arn != arn:
        raise Inconsistent(f"topic {number} has two names")
    if not (0 < number <= QUEUE_NUMBER_MAX and 0 <= log.first <= max(log.reserved, 1) < RESERVED_MAX):
        raise Inconsistent(f"the numbers of topic {info.arn} cannot be")
    keys = (key_of(number, 0), key_of(number, SEQ_MASK))
    ((highest,),) = _rows(db, "SELECT max(key) FROM message WHERE key BETWEEN ? AND ?", keys)
    if highest is not None and highest > key_of(number, log.reserved):
        raise Inconsistent(f"topic {info.arn} has a message with a number that was never given")
    logged = highest is not None and highest >= key_of(number, log.first)
    if log.messages < 0 or log.bytes < 0 or logged != (log.messages > 0):
        raise Inconsistent(f"topic {info.arn} has {log.messages} messages by its count, and not by its rows")
    return StoredTopic(number, info if arn is not None else None, log)


def _keys(number: Any, first: Any) -> tuple[Key, Key]:
    """Between which keys the messages of a queue or topic are, from number `first` on."""
    _are_integers(number, first)
    if not (0 < number <= QUEUE_NUMBER_MAX and 0 <= first < RESERVED_MAX):
        raise Inconsistent(f"the numbers of queue or topic {number} cannot be")
    return key_of(number, first), key_of(number, SEQ_MASK)


def _are_integers(*values: Any) -> None:
    if not all(type(value) is int for value in values):
        raise Inconsistent("a number is none")


def _are_texts(*values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise Inconsistent("a text is none")


def _check(stored: Stored) -> None:
    """What the small tables say must be possible."""
    _are_integers(stored.last_queue, *[number for pair in stored.delayed for number in pair])
    _are_integers(*[number for one in stored.dedups for number in (one.queue, one.sent.seq, one.expires_ms)])
    _are_integers(*[number for one in stored.claims for number in (one.queue, one.number)])
    _are_integers(*[number for one in stored.readers for number in (one.queue, one.acknowledged)])
    _are_integers(*stored.fences.values(), *stored.deleted_queues.values())
    _are_texts(*[one.key for one in stored.dedups])
    _are_texts(*[one.reader for one in stored.claims], *[one.reader for one in stored.readers])
    _are_texts(*stored.fences, *stored.deleted_queues)
    if not all(isinstance(one.sent.id, bytes) for one in stored.dedups):
        raise Inconsistent("a message id is none")
    if not all(0 <= last <= QUEUE_NUMBER_MAX for last in (stored.last_queue, stored.last_topic)):
        raise Inconsistent("the number of the last queue cannot be")
    if {queue.number for queue in stored.queues} & {topic.number for topic in stored.topics}:
        raise Inconsistent("a queue and a topic have the same number")
    if not all(one.details is not None and can_filter(one.details) for one in stored.subscriptions):
        raise Inconsistent("a subscription's filter is none")
    queues = {queue.number: FoundQueue(queue.number, queue.info, queue.floor) for queue in stored.queues}
    for garbage in stored.garbage:
        _are_integers(garbage.first, garbage.last)
        if not good_garbage((0, garbage.first, garbage.last), queues):
            raise Inconsistent("a range of purged messages cannot be")


def check_whole(db: apsw.Connection) -> None:
    """Read every page and compare counts; raises as `load` does. Takes about 1 s for 600 MB."""
    ((found,),) = _rows(db, "PRAGMA integrity_check(1)")
    if found != "ok":
        raise Inconsistent(str(found))
    check_counts(db)


def check_counts(db: apsw.Connection) -> None:
    """Compare what is counted of each queue and topic with its rows; raises as `load` does."""
    for number, arn, _, floor, _, messages, _ in _rows(db, _QUEUES):
        ((there,),) = _rows(db, "SELECT count(*) FROM message WHERE key BETWEEN ? AND ?", _keys(number, floor))
        if there != (messages or 0):
            raise Inconsistent(f"queue {arn} has {there} messages, and {messages or 0} by its count")
    for number, _, _, first, messages, *_ in _rows(db, _TOPICS):
        ((there,),) = _rows(db, "SELECT count(*) FROM message WHERE key BETWEEN ? AND ?", _keys(number, first or 0))
        if there != (messages or 0):
            raise Inconsistent(f"topic {number} has {there} messages, and {messages or 0} by its count")
    strays = _rows(
        db,
        f"SELECT key >> {SEQ_BITS} FROM message WHERE key >> {SEQ_BITS} NOT IN"  # noqa: S608
        " (SELECT id FROM queue UNION ALL SELECT id FROM topic)"
        " AND NOT EXISTS (SELECT 1 FROM garbage WHERE key BETWEEN first AND last) LIMIT 1",
    )
    if strays:
        raise Inconsistent(f"there are messages of a queue {strays[0][0]} that does not exist")


def is_current(db: apsw.Connection) -> bool:
    """Whether the tables are those of this version, word for word."""
    return _wrong_table(db) is None


def check_schema(db: apsw.Connection) -> None:
    """Raises Inconsistent unless the tables are those of this version."""
    wrong = _wrong_table(db)
    if wrong is not None:
        raise Inconsistent(f"the schema of {wrong} is not what it was")


def _wrong_table(db: apsw.Connection) -> str | None:
    found = dict(db.execute("SELECT name, sql FROM sqlite_schema"))
    return next((name for name, root in reference().items() if found.get(name, "") != root.sql), None)


def check_file_header(database: Path) -> None:
    """Look at the file's first 100 bytes before SQLite does, which believes them. Raises Inconsistent.

    An empty file is a new one; with a rollback journal beside it, SQLite itself puts the header right.
    """
    with database.open("rb") as file:
        header = file.read(_HEADER.size)
    if not header or database.with_name(database.name + "-journal").exists():
        return
    if len(header) < _HEADER.size:
        raise Inconsistent("the file is cut within its header")
    magic, page_size, write, read, rest, fractions, schema_format, largest_root, encoding, vacuum, application = (
        _HEADER.unpack(header)
    )
    good = (
        magic == b"SQLite format 3\0"
        and page_size == PAGE_BYTES
        and (write, read) in ((1, 1), (2, 2))
        and (rest, fractions) == (0, b"\x40\x20\x20")
        and schema_format in (0, 4)
        and encoding in (0, 1)
        and (largest_root, vacuum) == (0, 0)
        and application in (0, schema.APPLICATION_ID)
    )
    if not good:
        raise Inconsistent("the file's header is not that of a database of headrace")


# Of the fields between, SQLite checks some (sizes, free list), and nobody depends on the others.
_HEADER: Final = struct.Struct(">16sH3B3s20xI4xII4xII28x")


def read_commit(db: apsw.Connection) -> tuple[int, int]:
    """(number, steady time) of the last commit."""
    ((seq, now_ms),) = _rows(db, "SELECT seq, now_ms FROM commit_log", count=1)
    _are_integers(seq, now_ms)
    return seq, now_ms


def _load_leases(db: apsw.Connection, records: list[LeaseRecord], stored: Stored) -> None:
    """The journal's last word on each message that still exists, and until when FIFO queues are closed."""
    last: dict[Key, tuple[LeaseRecord, int, int]] = {}
    attempts: dict[tuple[int, str], StoredAttempt] = {}
    for record in records:
        if record.queue == NO_QUEUE:
            stored.fifo_closed_until_ms = max(stored.fifo_closed_until_ms, record.expires_ms)
        for seq, receives, first_ms in record.items:
            last[key_of(record.queue, seq)] = (record, receives, first_ms)
        if record.attempt_id is not None:
            leased = [(seq, receives) for seq, receives, _ in record.items]
            attempts[record.queue, record.attempt_id] = StoredAttempt(
                record.queue, record.attempt_id, record.received_ms, record.expires_ms, leased
            )
    fifo = {queue.number for queue in stored.queues if queue.info.settings.fifo}
    stored.leases = list(_leases(db, last, fifo, stored))
    stored.attempts = list(attempts.values())


def _leases(
    db: apsw.Connection, last: dict[Key, tuple[LeaseRecord, int, int]], fifo: set[int], stored: Stored
) -> Iterator[StoredLease]:
    for key, sent_ms, group in _existing(db, sorted(last), fifo):
        record, receives, first_ms = last[key]
        if group is None and key >> SEQ_BITS in fifo:
            # Its group is not known: no group may be taken for free that may be this one.
            stored.fifo_closed_until_ms = max(stored.fifo_closed_until_ms, record.expires_ms)
            continue
        yield StoredLease(key, Lease(receives, first_ms, record.received_ms, record.expires_ms, sent_ms, group))


def _existing(db: apsw.Connection, keys: list[Key], fifo: set[int]) -> Iterator[tuple[Key, int, str | None]]:
    """(key, sent time, group) of the messages that exist. The group of a FIFO message only if its row checks: it is what
    keeps the group locked."""
    plain = [key for key in keys if key >> SEQ_BITS not in fifo]
    for start in range(0, len(plain), _LEASES_A_QUERY):
        for key, sent_ms, group in db.execute(
            "SELECT key, sent_ms, CAST(message_group AS BLOB) FROM message WHERE key IN carray(?)",
            (apsw.carray(array("q", plain[start : start + _LEASES_A_QUERY])),),
        ):
            yield key, sent_ms, group.decode(errors="replace") if group is not None else None
    for key in keys:
        if key >> SEQ_BITS in fifo:
            yield from _checked(db, key)


def _checked(db: apsw.Connection, key: Key) -> Iterator[tuple[Key, int, str | None]]:
    try:
        row = db.execute(f"SELECT {rows.SELECTED} FROM message WHERE key = ?", (key,)).fetchone()  # noqa: S608 - fixed
    except UnicodeDecodeError:
        yield key, 0, None
        return
    if row is not None:
        _, message = rows.from_row(row)
        yield (key, message.sent_ms, message.group) if message is not None else (key, 0, None)
