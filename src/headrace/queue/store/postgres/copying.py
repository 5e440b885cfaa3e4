"""A PostgreSQL store as the source of a copy (`store/copying.py`); `copy_target.py` is its counterpart."""

from __future__ import annotations

import hashlib
from typing import Any, Final, LiteralString

import msgspec

from headrace.clock import Clock
from headrace.errors import StoreUnusable
from headrace.queue import limits
from headrace.queue.model import Message, MoveTask, QueueInfo, Subscription, TopicInfo
from headrace.queue.store import copying
from headrace.queue.store.copying import DedupRecord, MessageRecord, QueueRecord, Rest, StateKey, TopicRecord
from headrace.queue.store.postgres import rows, schema
from headrace.queue.store.postgres.connecting import BY_INDEX, Connection, connect, url_of
from headrace.queue.store.postgres.schema import CLAIMED_MS

APPLICATION: Final = "headrace copy"

_TABLES: Final[LiteralString] = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'headrace'::regnamespace AND relkind = 'r'"
)
_OTHERS: Final[LiteralString] = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'headrace'"
)
_NOW: Final[LiteralString] = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + offset_ms FROM clock"
# All that moves with a message, or without one.
_STATE_OF_IT: Final[LiteralString] = """
SELECT d.version, s.last_value,
    (SELECT (count(*), sum(seq), sum(receives), sum(visible_ms % 1000000007))::text FROM message),
    (SELECT (count(*), sum(seq))::text FROM published), (SELECT sum(epoch)::text FROM fence),
    (SELECT (count(*), sum(octet_length(value)), sum(hashtext(encode(value, 'hex'))))::text FROM state),
    (SELECT (count(*), sum(number), sum(cardinality(seqs)))::text FROM claim)
FROM directory d, message_seq s
"""
_TOTAL: Final[LiteralString] = """
SELECT (SELECT count(*) FROM message m JOIN queue q ON q.id = m.queue AND m.seq >= q.floor)
    + (SELECT count(*) FROM published p JOIN topic t ON t.id = p.topic AND p.seq >= t.first)
"""
# So many messages, and so many bytes, from a seq on: the seq of the last of them. Bodies are measured, not read.
_LOT: Final[LiteralString] = """
SELECT max(seq) FROM (
    SELECT seq, sum(octet_length(body)) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM (SELECT seq, body FROM {table} WHERE {of} = %s AND seq > %s ORDER BY seq LIMIT %s) lot
) sized WHERE coalesce(before, 0) < %s
"""
_LOT_OF_QUEUE: Final[LiteralString] = _LOT.replace("{table}", "message").replace("{of}", "queue")
_LOT_OF_TOPIC: Final[LiteralString] = _LOT.replace("{table}", "published").replace("{of}", "topic")
_MESSAGES: Final[LiteralString] = (
    "SELECT "  # noqa: S608 - our own columns
    + rows.COLUMNS
    + ", m.visible_ms, m.receives, m.received_ms, m.first_ms FROM message m"
    " WHERE m.queue = %s AND m.seq > %s AND m.seq <= %s ORDER BY m.seq"
)
_PUBLISHED: Final[LiteralString] = """
SELECT seq, id, body, attributes, sent_ms, due_ms, grp, dedup_id, trace, sender, 0, NULL::bigint, source
FROM published WHERE topic = %s AND seq > %s AND seq <= %s ORDER BY seq
"""
# What a purge has freed is not copied.
_DEDUP: Final[LiteralString] = """
SELECT d.queue, d.key, d.id, d.seq, d.expires_ms FROM dedup d LEFT JOIN queue q ON q.id = d.queue
WHERE d.seq >= coalesce(q.floor, 0)
"""
_STATE_LOT: Final[LiteralString] = """
SELECT name, key, value FROM (
    SELECT name, key, value,
        sum(octet_length(value)) OVER (ORDER BY name, key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM (SELECT name, key, value FROM state WHERE (name, key) > (%s, %s) ORDER BY name, key LIMIT %s) lot
) sized WHERE coalesce(before, 0) < %s ORDER BY name, key
"""


class PostgresSource:
    """All of a store at one moment. Its tables are locked against writers until `close`."""

    def __init__(self, url: str, *, written: bool = False, clock: Clock | None = None) -> None:
        """`written`: what a copy has just written, which nobody else can open. `clock`: for tests.

        Raises StoreUnusable: there is no store, or brokers have it. psycopg.Error.
        """
        self.place = url_of(url)
        self._connection = connect(url, statement_ms=0)
        try:
            self._enter(written=written)
            self._clock = clock
            self._now = self.now()
        except BaseException:
            self._connection.close()
            raise

    def _enter(self, *, written: bool) -> None:
        connection = self._connection
        alone(connection, self.place)
        version = schema.version_of(connection)
        if not (written and version == schema.COPYING):
            schema.check_version(self.place, version)
        tables = ", ".join(sorted(name for (name,) in connection.execute(_TABLES).fetchall()))
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        if not written:  # before the moment that is read begins; others may still look
            connection.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE".encode())
        self._queues = {arn: (number, floor) for number, arn, floor in self._all("SELECT id, arn, floor FROM queue")}
        self._topics = {arn: (number, first) for number, arn, first in self._all("SELECT id, arn, first FROM topic")}
        self._names = {number: arn for arn, (number, _) in [*self._queues.items(), *self._topics.items()]}

    def _all(self, sql: LiteralString, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values, binary=True).fetchall()

    def _one(self, sql: LiteralString, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        return self._all(sql, values)[0]

    def identity(self) -> str:
        (secret,) = self._one("SELECT secret FROM meta")
        state = repr((bytes(secret), self._connection.execute(_STATE_OF_IT).fetchone()))
        return hashlib.sha256(state.encode()).hexdigest()

    def now(self) -> int:
        now: int = self._clock() if self._clock is not None else self._one(_NOW)[0]
        return now

    def total(self) -> int:
        found: int = self._one(_TOTAL)[0]
        return found

    def queues(self) -> list[QueueRecord]:
        ((last, used),) = self._all("SELECT last_value, is_called FROM message_seq")
        return [
            QueueRecord(msgspec.json.decode(text, type=QueueInfo), floor, purged_ms, last if used else 0)
            for text, floor, purged_ms in self._all("SELECT info::text, floor, purged_ms FROM queue ORDER BY arn")
        ]

    def topics(self) -> list[TopicRecord]:
        found = self._all("SELECT info::text, first, last FROM topic ORDER BY arn")
        return [TopicRecord(msgspec.json.decode(text, type=TopicInfo), first, last) for text, first, last in found]

    def messages(self, queue: str, after: int) -> list[MessageRecord]:
        number, floor = self._queues[queue]
        return [_record(row) for row in self._lot(_LOT_OF_QUEUE, _MESSAGES, number, max(after, floor - 1))]

    def published(self, topic: str, after: int) -> list[Message]:
        number, first = self._topics[topic]
        return [rows.message_of(row) for row in self._lot(_LOT_OF_TOPIC, _PUBLISHED, number, max(after, first - 1))]

    def _lot(self, lot: LiteralString, read: LiteralString, number: int, after: int) -> list[tuple[Any, ...]]:
        (last,) = self._one(lot, (number, after, copying.BATCH, copying.BATCH_BYTES))
        return self._all(read, (number, after, last)) if last is not None else []

    def state(self, after: StateKey) -> list[tuple[str, bytes, bytes]]:
        found = self._all(_STATE_LOT, (*after, copying.BATCH, copying.BATCH_BYTES))
        return [(name, bytes(key), bytes(value)) for name, key, value in found]

    def rest(self) -> Rest:
        names = self._names
        return Rest(
            sorted(
                DedupRecord(names[place], bytes(key), bytes(id_), seq, expires_ms)
                for place, key, id_, seq, expires_ms in self._all(_DEDUP)
                if place in names and expires_ms > self._now
            ),
            sorted(
                (names[queue], reader, number, seqs)
                for queue, reader, number, seqs in self._all("SELECT queue, reader, number, seqs FROM claim")
                if queue in names
            ),
            sorted(
                (names[queue], *rest)
                for queue, *rest in self._all("SELECT queue, name, acknowledged FROM reader")
                if queue in names
            ),
            self._moves(),
            dict(self._all("SELECT name, epoch FROM fence ORDER BY name")),
            dict(
                self._all(
                    "SELECT arn, max(deleted_ms) FROM deleted_queue WHERE deleted_ms > %s GROUP BY arn ORDER BY arn",
                    (self._now - limits.COOLDOWN_MS,),
                )
            ),
            self._subscriptions(),
        )

    def _moves(self) -> list[MoveTask]:
        found = self._all(
            "SELECT handle, source, target, rate_max, status, started_ms, moved, to_move, failure FROM move_task"
            " ORDER BY handle"
        )
        return [MoveTask(*row) for row in found]

    def _subscriptions(self) -> list[tuple[str, Subscription]]:
        found = self._all("SELECT topic, queue, filter::text, scope, position FROM subscription")
        made = [
            (
                self._names[topic],
                Subscription(self._names[queue], msgspec.json.decode(text) if text else None, scope, position),
            )
            for topic, queue, text, scope, position in found
            if topic in self._names and queue in self._names
        ]
        return sorted(made, key=lambda one: (one[0], one[1].queue))

    def close(self) -> None:
        self._connection.close()


def _record(row: tuple[Any, ...]) -> MessageRecord:
    message = rows.message_of(row)
    until_ms, receives, received_ms, first_ms = row[rows.WIDTH :]
    claimed = until_ms >= CLAIMED_MS
    if not receives:
        return MessageRecord(message, claimed=claimed)
    return MessageRecord(message, 0 if claimed else until_ms, receives, received_ms or 0, first_ms or 0, claimed)


def alone(connection: Connection, place: str) -> None:
    """Raise StoreUnusable if brokers are connected; and let this session wait as long as a copy takes."""
    connection.execute("SELECT set_config('application_name', %s, false)", (APPLICATION,))
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    for name in BY_INDEX:
        connection.execute("SELECT set_config(%s, 'on', false)", (name,))
    row = connection.execute(_OTHERS).fetchone()
    if row is not None and row[0]:
        raise StoreUnusable(place, f"brokers are using it ({row[0]} connections): stop them first")
