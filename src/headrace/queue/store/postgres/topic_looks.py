"""Looking at topics: describe, list; and how far behind those are that catch up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from headrace.queue.model import QueueCounts, Subscription, SubscriptionState, TopicCounts, TopicDescription
from headrace.queue.operations import GetTopic, ListTopics
from headrace.queue.store.checks import check_limit
from headrace.queue.store.postgres import counting, totals
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.catalog import StoredTopic
from headrace.queue.store.postgres.transaction import Transaction

LAG_COUNTED_MAX: Final = (
    10_000  # logged messages that a look at a topic counts one by one: some 2 ms; the rest is estimated
)

_LOGS: Final[LiteralString] = """
SELECT t.id, t.logged, t.log_bytes,
    (SELECT p.sent_ms FROM published p WHERE p.topic = t.id AND p.seq >= t.first ORDER BY p.seq LIMIT 1),
    t.first, greatest(t.last, pg_sequence_last_value('message_seq'::regclass))
FROM topic t WHERE t.id = ANY (%s)
"""
_POSITIONS: Final[LiteralString] = """
SELECT s.topic, s.queue, s.position,
    (SELECT count(*) FROM (
        SELECT FROM published p WHERE p.topic = s.topic AND p.seq > s.position ORDER BY p.seq LIMIT %s) AS behind),
    (t.last - s.position)::float / greatest(t.last - t.first + 1, 1), t.logged
FROM subscription s JOIN topic t ON t.id = s.topic WHERE s.topic = ANY (%s) AND s.position IS NOT NULL
"""


_EMPTY: Final = (0, 0, None, 1, 0)  # a topic that has just been deleted


def get_topic(tx: Transaction, operation: GetTopic) -> TopicDescription:
    return _describe(tx, [tx.catalog.topic(operation.topic)])[0]


def list_topics(tx: Transaction, operation: ListTopics) -> list[TopicDescription]:
    check_limit(operation.limit)
    arns = sorted(arn for arn in tx.catalog.topics if arn.startswith(operation.prefix) and arn > operation.after)
    return _describe(tx, [tx.catalog.topics[arn] for arn in arns[: operation.limit]])


def _describe(tx: Transaction, topics: Sequence[StoredTopic]) -> list[TopicDescription]:
    """All of them, however many, in a few statements."""
    numbers = Ints([topic.number for topic in topics])
    known = totals.read(tx, topics)
    logs = {number: row for number, *row in tx.execute(_LOGS, (numbers,)).fetchall()}
    behind = _behind(tx, topics)
    queues = {number: tx.catalog.by_number[number] for topic in topics for number in topic.subscriptions}
    waiting = {number: _messages(counts) for number, counts in counting.count(tx, list(queues.values())).items()}
    out = []
    for topic in topics:
        states = []
        for one in sorted(topic.subscriptions.values(), key=lambda one: one.arn):
            position, lag = behind.get((topic.number, one.number), (None, 0))
            told = Subscription(one.arn, one.filter, one.scope, position)
            states.append(SubscriptionState(told, lag, waiting[one.number]))
        out.append(TopicDescription(topic.info, _counts(known[topic.number], logs.get(topic.number, _EMPTY)), states))
    return out


def _counts(known: dict[str, int], log: Sequence[Any]) -> TopicCounts:
    logged, log_bytes, oldest_ms, first, last = log
    return TopicCounts(known["sent"], known["duplicates"], 0, logged, log_bytes, oldest_ms, first, last or 0)


def _messages(counts: QueueCounts) -> int:
    return counts.visible + counts.in_flight + counts.delayed


def _behind(tx: Transaction, topics: Sequence[StoredTopic]) -> dict[tuple[int, int], tuple[int, int]]:
    """By numbers of a topic and of a queue that is catching up: its position, about how many logged messages it has yet to be
    given."""
    late = [topic.number for topic in topics if any(not one.live for one in topic.subscriptions.values())]
    rows = tx.execute(_POSITIONS, (LAG_COUNTED_MAX, Ints(late))).fetchall() if late else []
    return {
        (topic, queue): (position, lag if lag < LAG_COUNTED_MAX else max(lag, round(logged * min(share, 1))))
        for topic, queue, position, lag, share, logged in rows
    }
