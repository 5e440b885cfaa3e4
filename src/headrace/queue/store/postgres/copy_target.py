"""A PostgreSQL store as the target of a copy (`store/copying.py`).

Its tables have the version COPYING until it is whole, which no broker opens. What it is copied from stands in a table of its own,
`copy`, which is dropped then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, LiteralString

import msgspec

from headrace.errors import StoreUnusable
from headrace.queue.model import Message
from headrace.queue.store.copying import MessageRecord, QueueRecord, Rest, Source, StateKey, TopicRecord
from headrace.queue.store.postgres import schema
from headrace.queue.store.postgres.connecting import connect, url_of
from headrace.queue.store.postgres.copying import PostgresSource, alone
from headrace.queue.store.postgres.schema import CLAIMED_MS

_LOCK: Final = 0x686370  # "hcp": one copy at a time
_EMPTY: Final[LiteralString] = (
    "SELECT EXISTS (SELECT FROM queue) OR EXISTS (SELECT FROM topic) OR EXISTS (SELECT FROM state)"
    " OR EXISTS (SELECT FROM fence) OR EXISTS (SELECT FROM message)"
)
# The source's time goes on, if it is another than the database's.
_CLOCK: Final[LiteralString] = """
UPDATE clock SET seen_ms = apart.now_ms, offset_ms = CASE WHEN abs(apart.ms) > 1000 THEN apart.ms ELSE 0 END
FROM (
    SELECT asked.now_ms, asked.now_ms - (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms
    FROM (SELECT %s::bigint AS now_ms) asked
) apart
"""
_MESSAGES: Final[LiteralString] = (
    "COPY message (seq, visible_ms, queue, receives, received_ms, first_ms, sent_ms, due_ms, prior_receives, prior_first_ms,"
    " id, grp, dedup_id, trace, sender, source, attributes, body) FROM STDIN (FORMAT BINARY)"
)
_TYPES: Final = [
    "int8", "int8", "int4", "int4", "int8", "int8", "int8", "int8", "int4", "int8",
    "bytea", "text", "text", "text", "text", "text", "bytea", "bytea",
]  # fmt: skip
_PUBLISHED: Final[LiteralString] = (
    "COPY published (seq, sent_ms, due_ms, topic, id, grp, dedup_id, trace, sender, source, attributes, body)"
    " FROM STDIN (FORMAT BINARY)"
)
_PUBLISHED_TYPES: Final = [
    "int8", "int8", "int8", "int4", "bytea", "text", "text", "text", "text", "text", "bytea", "bytea",
]  # fmt: skip
# What an earlier try has put.
_CLEARED: Final[tuple[LiteralString, ...]] = (
    "DELETE FROM dedup", "DELETE FROM claim", "DELETE FROM reader", "DELETE FROM fence", "DELETE FROM deleted_queue",
    "DELETE FROM subscription", "DELETE FROM message_group", "DELETE FROM move_task",
)  # fmt: skip
_LOGGED: Final[LiteralString] = """
UPDATE topic t SET logged = log.messages, log_bytes = log.size, last_ms = coalesce(log.last_ms, 0) FROM (
    SELECT t.id, count(p.seq) AS messages, max(p.sent_ms) AS last_ms,
        coalesce(sum(octet_length(p.body) + coalesce(octet_length(p.attributes), 0)), 0) AS size
    FROM topic t LEFT JOIN published p ON p.topic = t.id GROUP BY t.id
) log WHERE log.id = t.id
"""
_GROUPS: Final[LiteralString] = """
INSERT INTO message_group (queue, name, head, head_sent_ms, busy_ms, turn)
SELECT DISTINCT ON (m.queue, m.grp) m.queue, m.grp, m.seq, m.sent_ms,
    CASE WHEN m.visible_ms > %(now)s AND m.receives + (m.visible_ms >= %(claimed)s)::int > 0 THEN m.visible_ms ELSE 0 END, m.seq
FROM message m WHERE m.queue = ANY (%(fifo)s) AND m.grp IS NOT NULL ORDER BY m.queue, m.grp, m.seq
"""
# Its next claims go on in the groups that a reader has claimed from.
_READERS: Final[LiteralString] = """
UPDATE message_group g SET reader = c.reader
FROM claim c CROSS JOIN LATERAL unnest(c.seqs) AS bound (seq) JOIN message m ON m.queue = c.queue AND m.seq = bound.seq
WHERE g.queue = m.queue AND g.name = m.grp AND g.busy_ms = %s
"""


class PostgresTarget:
    """A database without a store, or with an empty one. One transaction a call."""

    def __init__(self, url: str) -> None:
        """Raises StoreUnusable: brokers, or another copy, have it. psycopg.Error."""
        self.place = url_of(url)
        self._url = url
        self._connection = connect(url, statement_ms=0)
        self._now = 0
        self._numbers: dict[str, int] = {}
        try:
            alone(self._connection, self.place)
            if not self._one("SELECT pg_try_advisory_lock(%s)", (_LOCK,))[0]:
                raise StoreUnusable(self.place, "another copy into it is running")
        except BaseException:
            self._connection.close()
            raise

    def _one(self, sql: LiteralString, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        row = self._connection.execute(sql, values).fetchone()
        assert row is not None
        return row

    def begin(self, source: Source) -> None:
        self._now = source.now()
        identity = source.identity()
        if schema.version_of(self._connection) != schema.COPYING:
            self._make(source, identity)
        elif self._one("SELECT source FROM copy")[0] != identity:
            raise StoreUnusable(
                self.place,
                f"a copy of another store, or of {source.place} before it was last used, has begun there;"
                " DROP SCHEMA headrace CASCADE, and begin again",
            )
        self._numbers = dict(self._connection.execute("SELECT arn, id FROM queue UNION ALL SELECT arn, id FROM topic"))

    def _make(self, source: Source, identity: str) -> None:
        schema.migrate(self._connection)
        with self._connection.transaction():
            if self._one(_EMPTY)[0]:
                raise StoreUnusable(self.place, "there is a store with queues or state in it; name another database")
            self._connection.execute("UPDATE meta SET version = %s", (schema.COPYING,))
            self._connection.execute("CREATE TABLE copy (source text NOT NULL)")
            self._connection.execute("INSERT INTO copy VALUES (%s)", (identity,))
            self._make_places(source.queues(), source.topics())
            self._connection.execute("UPDATE directory SET version = version + 1")
            self._connection.execute(_CLOCK, (source.now(),))

    def _make_places(self, queues: Sequence[QueueRecord], topics: Sequence[TopicRecord]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO queue (arn, info, floor, purged_ms) VALUES (%s, %s, %s, %s)",
                [(one.info.arn, _json(one.info), one.floor, one.purged_ms) for one in queues],
            )
            cursor.executemany(
                "INSERT INTO topic (arn, info, revision, first, last) SELECT %s, %s, version, %s, %s FROM directory",
                [(one.info.arn, _json(one.info), one.first, one.last) for one in topics],
            )
        last = max([1, *[one.last for one in queues], *[one.last for one in topics], *[one.floor for one in queues]])
        self._connection.execute("SELECT setval('message_seq', %s)", (last,))

    def done(self) -> int:
        found: int = self._one("SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM published)")[0]
        return found

    def last_message(self, queue: str) -> int:
        last: int = self._one("SELECT coalesce(max(seq), 0) FROM message WHERE queue = %s", (self._numbers[queue],))[0]
        return last

    def last_published(self, topic: str) -> int:
        last: int = self._one("SELECT coalesce(max(seq), 0) FROM published WHERE topic = %s", (self._numbers[topic],))[
            0
        ]
        return last

    def last_state(self) -> StateKey:
        row = self._connection.execute(
            "SELECT name, key FROM state ORDER BY name DESC, key DESC LIMIT 1", binary=True
        ).fetchone()
        return (row[0], bytes(row[1])) if row is not None else ("", b"")

    def put_messages(self, queue: QueueRecord, records: list[MessageRecord]) -> None:
        number = self._numbers[queue.info.arn]
        self._copy_in(_MESSAGES, _TYPES, [_row(number, one) for one in records])

    def put_published(self, topic: TopicRecord, messages: list[Message]) -> None:
        number = self._numbers[topic.info.arn]
        self._copy_in(
            _PUBLISHED,
            _PUBLISHED_TYPES,
            [
                (
                    one.seq, one.sent_ms, one.visible_ms, number, one.id, one.group, one.dedup_id, one.trace, one.sender,
                    one.source, one.attributes or None, one.body,
                )
                for one in messages
            ],
        )  # fmt: skip

    def put_state(self, values: list[tuple[str, bytes, bytes]]) -> None:
        self._copy_in("COPY state (name, key, value) FROM STDIN (FORMAT BINARY)", ["text", "bytea", "bytea"], values)

    def _copy_in(self, sql: LiteralString, types: list[str], values: Iterable[Sequence[Any]]) -> None:
        with self._connection.transaction(), self._connection.cursor().copy(sql) as copy:
            copy.set_types(types)
            for row in values:
                copy.write_row(row)

    def put_rest(self, rest: Rest) -> None:
        number = self._numbers
        with self._connection.transaction(), self._connection.cursor() as cursor:
            for statement in _CLEARED:
                cursor.execute(statement)
            cursor.executemany(
                "INSERT INTO dedup (queue, key, id, seq, expires_ms) VALUES (%s, %s, %s, %s, %s)",
                [(number[one.place], one.digest, one.id, one.seq, one.expires_ms) for one in rest.dedups],
            )
            cursor.executemany(
                "INSERT INTO claim (queue, reader, number, seqs) VALUES (%s, %s, %s, %s)",
                [(number[queue], *others) for queue, *others in rest.claims],
            )
            cursor.executemany(
                "INSERT INTO reader (queue, name, acknowledged) VALUES (%s, %s, %s)",
                [(number[queue], *others) for queue, *others in rest.readers],
            )
            cursor.executemany("INSERT INTO fence VALUES (%s, %s)", rest.fences.items())
            cursor.executemany(
                "INSERT INTO deleted_queue SELECT nextval(pg_get_serial_sequence('queue', 'id')), %s, %s, true",
                rest.deleted.items(),
            )
            cursor.executemany(
                "INSERT INTO subscription (topic, queue, filter, scope, position) VALUES (%s, %s, %s, %s, %s)",
                [
                    (
                        number[topic],
                        number[one.queue],
                        _json(one.filter) if one.filter else None,
                        one.scope,
                        one.position,
                    )
                    for topic, one in rest.subscriptions
                ],
            )
            cursor.executemany(
                "INSERT INTO move_task (handle, source, target, rate_max, status, started_ms, moved, to_move, failure,"
                " earned_ms, earned) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0)",
                [
                    (
                        one.handle, one.source, one.target, one.rate_max, one.status, one.started_ms, one.moved,
                        one.to_move, one.failure, self._now,
                    )
                    for one in sorted(rest.moves, key=lambda task: task.started_ms)
                ],
            )  # fmt: skip
            cursor.execute(_LOGGED)
            fifo = [number[name] for name in number if name.endswith(".fifo") and number[name] > 0]
            cursor.execute(_GROUPS, {"now": self._now, "claimed": CLAIMED_MS, "fifo": fifo})
            cursor.execute(_READERS, (CLAIMED_MS,))

    def reader(self) -> Source:
        return PostgresSource(self._url, written=True, clock=lambda: self._now)

    def publish(self) -> None:
        with self._connection.transaction():
            self._connection.execute("UPDATE meta SET version = %s", (schema.VERSION,))
            self._connection.execute("DROP TABLE copy")
        self._connection.execute("ANALYZE message, message_group, published, state, dedup")

    def close(self) -> None:
        self._connection.close()


def _row(number: int, record: MessageRecord) -> tuple[Any, ...]:
    one = record.message
    until_ms = max(1, record.until_ms) if record.receives else one.visible_ms or 0
    return (
        one.seq, CLAIMED_MS if record.claimed else until_ms, number, record.receives,
        record.received_ms if record.receives else None, record.first_ms if record.receives else None,
        one.sent_ms, one.visible_ms, one.receives, one.first_received_ms, one.id, one.group, one.dedup_id, one.trace,
        one.sender, one.source, one.attributes or None, one.body,
    )  # fmt: skip


def _json(value: Any) -> str:
    text: bytes = msgspec.json.encode(value)
    return text.decode()
