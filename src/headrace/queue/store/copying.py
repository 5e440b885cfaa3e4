"""Moving a whole store into another one, of whatever kind: `headrace store copy`.

A store that can be copied has a Source, which reads it as records, and a Target, which takes them. Records name queues and
topics by ARN, and keep numbers: of messages, receives, claims. What is not copied: receipts (they are a store's own, so
leased messages are visible again when their lease ends), receive attempts, what was purged.

The target says itself how far it is, so a copy that was killed goes on where it stopped, and puts nothing in twice. Nobody can
open it before it has been compared with the source, whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeAlias
from zlib import crc32

import msgspec

from headrace.errors import StoreDamaged
from headrace.queue.model import Message, MoveTask, QueueInfo, Subscription, TopicInfo, short_name

BATCH: Final = 5_000  # messages in one commit: its sync costs less than 1 % of it
BATCH_BYTES: Final = 16 * 1_048_576  # bodies in memory at once; one message more may come

Progress: TypeAlias = Callable[[str, int, int], None]
"""progress(stage, done, total)."""
StateKey: TypeAlias = tuple[str, bytes]


class QueueRecord(msgspec.Struct, frozen=True):
    """A queue. `last`: no message has had a higher number."""

    info: QueueInfo
    floor: int
    purged_ms: int | None
    last: int


class TopicRecord(msgspec.Struct, frozen=True):
    """A topic. Its log begins at seq `first`; no message has had a higher number than `last`."""

    info: TopicInfo
    first: int
    last: int


class MessageRecord(msgspec.Struct, frozen=True, array_like=True):
    """A message in a queue.

    Attributes:
        until_ms: when its lease ends or has ended; 0 if it was never received (a delay is the message's own `visible_ms`).
        receives, received_ms, first_ms: from this queue; how often, the latest, the first time.
        claimed: it is bound to a claim.
    """

    message: Message
    until_ms: int = 0
    receives: int = 0
    received_ms: int = 0
    first_ms: int = 0
    claimed: bool = False


class DedupRecord(msgspec.Struct, frozen=True, order=True):
    """The digest of a dedup key that a queue or topic (`place`) has seen, and the message that it named."""

    place: str
    digest: bytes
    id: bytes
    seq: int
    expires_ms: int


class Rest(msgspec.Struct):
    """What is small. Claims: (queue, reader, number, seqs). Readers: (queue, reader, acknowledged). Subscriptions: (topic, …)."""

    dedups: list[DedupRecord] = []
    claims: list[tuple[str, str, int, list[int]]] = []
    readers: list[tuple[str, str, int]] = []
    moves: list[MoveTask] = []
    fences: dict[str, int] = {}
    deleted: dict[str, int] = {}
    subscriptions: list[tuple[str, Subscription]] = []


class Source(Protocol):
    """A store that is read. Nobody writes to it meanwhile: that is refused when it is opened. Messages come ascending."""

    place: str

    def identity(self) -> str:
        """What the store is, and what state it is in: another as soon as anything has been done to it."""

    def now(self) -> int:
        """The store's time, steady ms."""

    def total(self) -> int:
        """How many messages it has, those of logs included."""

    def queues(self) -> list[QueueRecord]: ...

    def topics(self) -> list[TopicRecord]: ...

    def messages(self, queue: str, after: int) -> list[MessageRecord]:
        """The next messages with a seq > after; empty: there are no more."""

    def published(self, topic: str, after: int) -> list[Message]: ...

    def state(self, after: StateKey) -> list[tuple[str, bytes, bytes]]: ...

    def rest(self) -> Rest: ...

    def close(self) -> None: ...


class Target(Protocol):
    """A store that is made. Until `publish` nobody but a copy from the same source can open it."""

    place: str

    def begin(self, source: Source) -> None:
        """Make queues and topics, or go on with what a copy from this very source has begun.

        Raises StoreUnusable: it is not empty, in use, or begun from another source or another state of this one.
        """

    def done(self) -> int:
        """How many messages it has."""

    def last_message(self, queue: str) -> int: ...

    def last_published(self, topic: str) -> int: ...

    def last_state(self) -> StateKey: ...

    def put_messages(self, queue: QueueRecord, records: list[MessageRecord]) -> None:
        """Durable when it returns, as are the others."""

    def put_published(self, topic: TopicRecord, messages: list[Message]) -> None: ...

    def put_state(self, values: list[tuple[str, bytes, bytes]]) -> None: ...

    def put_rest(self, rest: Rest) -> None:
        """Idempotent, the last of all."""

    def reader(self) -> Source:
        """What was written, to compare."""

    def publish(self) -> None:
        """From now on it is a store."""

    def close(self) -> None: ...


class Copied(msgspec.Struct, frozen=True):
    """What is in the new store."""

    queues: int
    topics: int
    messages: int


def copy(source: Source, target: Target, *, progress: Progress) -> Copied:
    """Copy all of it; what an earlier call has done is not done again.

    Raises:
        StoreUnusable: the target cannot take it.
        StoreDamaged: the two differ at the end; the target stays closed to everybody.
    """
    target.begin(source)
    total, done = source.total(), target.done()
    progress("copy", done, total)
    queues, topics = source.queues(), source.topics()
    for topic in topics:
        for published in _pages(source.published, topic.info.arn, target.last_published(topic.info.arn)):
            target.put_published(topic, published)
            progress("copy", done := done + len(published), total)
    for queue in queues:
        for records in _pages(source.messages, queue.info.arn, target.last_message(queue.info.arn)):
            target.put_messages(queue, records)
            progress("copy", done := done + len(records), total)
    while values := source.state(target.last_state()):
        target.put_state(values)
    target.put_rest(source.rest())
    written = target.reader()
    try:
        _compare(source, written, target.place, progress)
    finally:
        written.close()
    target.publish()
    return Copied(len(queues), len(topics), total)


def _pages(read: Callable[[str, int], list[Any]], place: str, after: int) -> Iterator[list[Any]]:
    while found := read(place, after):
        yield found
        after = _seq(found[-1])


def _seq(record: Message | MessageRecord) -> int:
    return record.seq if isinstance(record, Message) else record.message.seq


# --- comparing ---


class _Sum(msgspec.Struct):
    """A count and a digest of things in any order."""

    count: int = 0
    digest: int = 0

    def add(self, ones: Iterable[Any]) -> None:
        for one in ones:
            self.count += 1
            self.digest = (self.digest + crc32(msgspec.msgpack.encode(one))) % (1 << 64)


def _compare(source: Source, written: Source, place: str, progress: Progress) -> None:
    total, done = source.total(), 0
    queues, others = ({one.info.arn: one.info for one in side.queues()} for side in (source, written))
    _must_equal(place, "queues", queues, others)
    ours, theirs = ({one.info.arn: (one.info, one.first) for one in side.topics()} for side in (source, written))
    _must_equal(place, "topics", ours, theirs)
    for arn in ours:
        sums = [_sum(side.published, arn) for side in (source, written)]
        _must_equal(place, f"the log of {short_name(arn)}", *sums)
        progress("compare", done := done + sums[0].count, total)
    for arn in queues:
        sums = [_sum(side.messages, arn) for side in (source, written)]
        _must_equal(place, f"the messages of {short_name(arn)}", *sums)
        progress("compare", done := done + sums[0].count, total)
    _must_equal(place, "state", *[_sum_of_state(side) for side in (source, written)])
    _must_equal(
        place, "dedup ids, claims, moves, fences, subscriptions", *[_sum_of_rest(side) for side in (source, written)]
    )


def _sum(read: Callable[[str, int], list[Any]], place: str) -> _Sum:
    made = _Sum()
    for page in _pages(read, place, 0):
        made.add(page)
    return made


def _sum_of_state(side: Source) -> _Sum:
    made, after = _Sum(), ("", b"")
    while page := side.state(after):
        made.add(page)
        after = page[-1][:2]
    return made


def _sum_of_rest(side: Source) -> _Sum:
    rest, made = side.rest(), _Sum()
    for part in (rest.dedups, rest.claims, rest.readers, rest.moves, rest.fences.items(), rest.subscriptions):
        made.add(part)
    return made


def _must_equal(place: str, what: str, one: Any, other: Any) -> None:
    if one != other:
        raise StoreDamaged(place, f"{what} differ from the source's: {_told(one)}, and {_told(other)} here")


def _told(one: Any) -> str:
    return f"{one.count} of digest {one.digest:x}" if isinstance(one, _Sum) else f"{len(one)}"
