"""Topics' logs: reading them, giving them to queues that are catching up, ending their retention.

Catching up: each slice is one commit that puts logged messages into the queue and moves its position. What is published
meanwhile goes to the log alone. Numbers rise in the order of the commits, so a slice steps over none. The last one is made
with the topic locked: nobody publishes, so it takes all there is, and makes the subscription live.
"""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec

from headrace.queue import limits
from headrace.queue import topics as rules
from headrace.queue.filters import Subject
from headrace.queue.model import Message
from headrace.queue.operations import ReadLog
from headrace.queue.store.checks import check_limit
from headrace.queue.store.postgres import publishing
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.catalog import StoredSubscription, StoredTopic
from headrace.queue.store.postgres.new import New
from headrace.queue.store.postgres.transaction import CatalogMoved, Transaction

# Without a join, whatever the planner thinks of the limit. A message more than asked for tells whether there are more.
_PAGE: Final[LiteralString] = """
SELECT seq, id, CASE WHEN size < %(copied)s THEN body END, attributes, sent_ms, due_ms, grp, dedup_id, trace, sender, 0, NULL,
    source, last
FROM (
    SELECT front.*, sum(size) OVER (ORDER BY seq) - size AS before, max(seq) OVER () AS last FROM (
        SELECT p.*, octet_length(p.body)::bigint AS size FROM published p
        WHERE p.topic = %(topic)s AND p.seq > %(after)s AND p.seq >= (SELECT first FROM topic WHERE id = %(topic)s)
        ORDER BY p.seq LIMIT %(limit)s + 1
    ) AS front
) AS page
WHERE before < %(bytes)s ORDER BY seq LIMIT %(limit)s
"""
_LOOK: Final[LiteralString] = "SELECT position FROM subscription WHERE topic = %s AND queue = %s"
_POSITION: Final[LiteralString] = "SELECT position FROM subscription WHERE topic = %s AND queue = %s FOR UPDATE"
_REVISION: Final[LiteralString] = "SELECT revision FROM topic WHERE id = %s"
_MOVE: Final[LiteralString] = "UPDATE subscription SET position = %s WHERE topic = %s AND queue = %s"
_REVISED: Final[LiteralString] = "UPDATE topic SET revision = %s WHERE id = %s"
_FRONTS: Final[LiteralString] = """
SELECT t.id, t.log_bytes, (SELECT min(s.position) FROM subscription s WHERE s.topic = t.id), p.seq, p.sent_ms FROM unnest(%s) AS asked (id) JOIN topic t USING (id)
CROSS JOIN LATERAL (SELECT p.seq, p.sent_ms FROM published p WHERE p.topic = t.id AND p.seq >= t.first
    ORDER BY p.seq LIMIT 1) AS p
WHERE t.logged > 0
"""
_FRONT: Final[LiteralString] = """
SELECT p.seq, p.sent_ms, octet_length(p.body) + coalesce(octet_length(p.attributes), 0) FROM published p
WHERE p.topic = %s AND p.seq >= (SELECT first FROM topic WHERE id = %s) ORDER BY p.seq LIMIT %s
"""
_HELD: Final[LiteralString] = """
SELECT t.log_bytes, (SELECT min(s.position) FROM subscription s WHERE s.topic = t.id) FROM topic t WHERE t.id = %s
"""
_DROP: Final[LiteralString] = (
    "UPDATE topic SET first = %s, logged = logged - %s, log_bytes = log_bytes - %s WHERE id = %s"
)
_WHOLE: Final = 1 << 30  # more bytes than a body may have


class Page(msgspec.Struct, frozen=True):
    """Messages of a log, in order; whether there are more behind them."""

    messages: list[Message]
    more: bool


def read_log(tx: Transaction, operation: ReadLog) -> list[Message]:
    topic = tx.catalog.topic(operation.topic)
    check_limit(operation.limit)
    bytes_max = min(max(operation.bytes_max, 1), limits.NATIVE_BATCH_BYTES_MAX)
    return _page(tx, topic, operation.after, limit=operation.limit, bytes_max=bytes_max, copied=_WHOLE).messages


def _page(tx: Transaction, topic: StoredTopic, after: int, *, limit: int, bytes_max: int, copied: int) -> Page:
    """The next messages; bodies of `copied` bytes or more are left out (empty)."""
    known = {"topic": topic.number, "after": after, "limit": limit, "bytes": bytes_max, "copied": copied}
    found = tx.execute(_PAGE, known).fetchall()
    messages = [Message(row[0], row[1], row[2] or b"", row[3] or b"", *row[4:13]) for row in found]
    return Page(messages, bool(found) and found[-1][13] > found[-1][0])


# --- catching up ---


class Turn(msgspec.Struct):
    """Whether logs were shortened last; and who of those that catch up was given a slice last: (number of the topic, of the
    queue)."""

    shortened: bool = False
    last: tuple[int, int] = (-1 << 31, 0)


def tend(tx: Transaction, turn: Turn) -> bool:
    """Shorten logs, or give a slice: not both in one transaction, for who gives a slice has locked a subscription, and topics
    are locked before those."""
    turn.shortened = not turn.shortened
    for shortens in (turn.shortened, not turn.shortened):
        done = retain(tx) if shortens else catch_up(tx, turn)
        if done:
            return True
    return False


def catch_up(tx: Transaction, turn: Turn) -> bool:
    """Give a queue that is catching up its next slice, one after the other in turn. Returns whether there is one."""
    topics = tx.catalog.topics.values()
    behind = {(t.number, one.number): (t, one) for t in topics for one in t.subscriptions.values() if not one.live}
    if not behind:
        return False
    turns = sorted(behind)
    turn.last = next((one for one in turns if one > turn.last), turns[0])
    _give_slice(tx, *behind[turn.last])
    return True


def _give_slice(tx: Transaction, topic: StoredTopic, one: StoredSubscription) -> None:
    """Nobody is kept from publishing, unless this may be the last slice."""
    row = tx.execute(_LOOK, (topic.number, one.number)).fetchone()
    position = row[0] if row is not None else None
    if position is None:
        return
    page = _next_page(tx, topic, one, position)
    if not page.more:
        _give_last(tx, topic, one)
    elif _locked_position(tx, topic, one) == position:
        row = tx.execute(_REVISION, (topic.number,)).fetchone()
        if row is None or row[0] != topic.revision:
            raise CatalogMoved
        tx.execute(_MOVE, (_put(tx, topic, one, page), topic.number, one.number))


def _give_last(tx: Transaction, topic: StoredTopic, one: StoredSubscription) -> None:
    tx.lock_directory()
    publishing.locked(publishing.lock(tx, [topic]), [topic])
    position = _locked_position(tx, topic, one)
    if position is None:
        return
    after = give(tx, topic, one, position)
    tx.execute(_MOVE, (after, topic.number, one.number))
    revise(tx, topic, {**topic.subscriptions, one.number: msgspec.structs.replace(one, live=after is None)})


def revise(tx: Transaction, topic: StoredTopic, subscriptions: dict[int, StoredSubscription]) -> None:
    """A locked topic has these subscriptions with the directory's next version."""
    revision = tx.catalog.version + 1
    tx.execute(_REVISED, (revision, topic.number))
    changed = msgspec.structs.replace(topic, revision=revision, subscriptions=subscriptions)
    tx.catalog = tx.catalog.with_topics({topic.arn: changed})


def give(tx: Transaction, topic: StoredTopic, one: StoredSubscription, position: int) -> int | None:
    """Give the queue the next messages of the log of a topic that is locked. Returns its new position, None: it is live."""
    page = _next_page(tx, topic, one, position)
    after = _put(tx, topic, one, page)
    return after if page.more else None


def _locked_position(tx: Transaction, topic: StoredTopic, one: StoredSubscription) -> int | None:
    row = tx.execute(_POSITION, (topic.number, one.number)).fetchone()
    return row[0] if row is not None else None


def _next_page(tx: Transaction, topic: StoredTopic, one: StoredSubscription, position: int) -> Page:
    reads_bodies = one.policy is not None and one.scope == "MessageBody"
    return _page(
        tx, topic, position, limit=limits.CATCH_UP_SLICE, bytes_max=limits.CATCH_UP_BYTES_MAX,
        copied=_WHOLE if reads_bodies else limits.REFERENCE_BYTES_MIN,
    )  # fmt: skip


def _put(tx: Transaction, topic: StoredTopic, one: StoredSubscription, page: Page) -> int | None:
    """Put what the subscription lets in of a page into its queue. Returns the seq of the page's last message."""
    new, queue = New(tx.now), tx.catalog.by_number[one.number]
    for message in page.messages:
        if one.policy is None or one.policy.lets_in(Subject(message.attributes, message.body)):
            publishing.put(new, queue, message, (topic.number, message.seq), tx.now)
    tx.wrote()
    for _ in new.store(tx):
        pass  # whatever it waits for, nothing else is to be done meanwhile
    return page.messages[-1].seq if page.messages else None


# --- retention ---


def retain(tx: Transaction) -> bool:
    """Let what is past its retention leave the logs, a slice of each. Returns whether anything is."""
    topics = {topic.number: topic for topic in tx.catalog.topics.values()}
    rows = tx.execute(_FRONTS, (Ints(topics),)).fetchall() if topics else []
    over = [
        topics[number]
        for number, size, held, seq, sent_ms in rows
        if rules.droppable([(seq, sent_ms, 0)], topics[number].info.settings, log_bytes=size, held=held, now=tx.now)
    ]
    if not over:
        return False
    publishing.locked(publishing.lock(tx, over), over)
    for topic in over:
        _retain(tx, topic)
    return True


def _retain(tx: Transaction, topic: StoredTopic) -> None:
    held = tx.execute(_HELD, (topic.number,))
    front = tx.execute(_FRONT, (topic.number, topic.number, limits.LOG_SLICE)).fetchall()
    row = held.fetchone()
    assert row is not None
    count = rules.droppable(front, topic.info.settings, log_bytes=row[0], held=row[1], now=tx.now)
    if count:
        size = sum(bytes_ for _, _, bytes_ in front[:count])
        tx.execute(_DROP, (front[count - 1][0] + 1, count, size, topic.number))
        tx.wrote(durable=False)
