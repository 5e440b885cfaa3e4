"""The stateful machine with topics: the queues of `machine.py`, some of them subscribed, compared with a list of what was
published.

    class TestMine(topic_machine_for(my_kind).TestCase):
        settings = settings(max_examples=50, stateful_step_count=40)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from headrace.queue import attributes
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Message, Sent, arn_of, topic_arn_of
from headrace.testing.driver import StoreKind
from headrace.testing.machine import DEDUP_IDS, FIFO, GROUPS, LATE, SECOND, StoreMachine
from headrace.testing.model import FIVE_MINUTES_MS, ModelMessage, ModelQueue, require

RETENTION_MS: Final = 60_000
LATE_MAX_MS: Final = SECOND
"""How long the log may keep a message beyond its retention."""

KINDS = st.sampled_from(["red", "green", None])
TOPICS = st.sampled_from(["t", "t.fifo"])
SUBSCRIBERS: Final = ("plain", "retried", "plain.fifo", "retried.fifo")
REPLAYED: Final = ("plain", "plain.fifo")
"""Queues without dead letters: the model knows messages by id, and a replay gives the same ids again."""
FILL: Final = b"." * 400
"""Makes half of the bodies so long that they are stored once."""


@dataclass(eq=False)
class Published:
    id: bytes
    seq: int
    body: bytes
    group: str | None
    kind: str | None
    sent_ms: int


@dataclass(eq=False)
class ModelTopic:
    """All that was ever published, who is subscribed with which filter, and dedup ids: (id, end, message id, seq)."""

    name: str
    published: list[Published] = field(default_factory=list)
    subscribed: dict[str, str | None] = field(default_factory=dict)
    known_ids: list[tuple[str, int, bytes, int]] = field(default_factory=list)

    def publish(
        self, entries: Sequence[Entry], kinds: Sequence[str | None], sent: Sequence[Sent], now: int
    ) -> list[Published]:
        """The entries, all valid, were answered `sent`. Returns those that are no duplicates."""
        new = []
        for entry, kind, one in zip(entries, kinds, sent, strict=True):
            require(isinstance(one, Sent), f"a valid entry was refused: {one!r}")
            if not self._is_duplicate(entry, one, now):
                last = self.published[-1].seq if self.published else 0
                require(one.seq > last, f"sequence number {one.seq} after {last}")
                message = Published(one.id, one.seq, entry.body, entry.group, kind, now)
                self.published.append(message)
                new.append(message)
        return new

    def _is_duplicate(self, entry: Entry, sent: Sent, now: int) -> bool:
        for known, ends, message_id, seq in self.known_ids:
            if known == entry.dedup_id and now < ends:
                require(sent == Sent(message_id, seq, duplicate=True), "a duplicate was published")
                return True
        require(not sent.duplicate, "a new message was called a duplicate")
        if entry.dedup_id is not None:
            self.known_ids.append((entry.dedup_id, now + FIVE_MINUTES_MS, sent.id, sent.seq))
        return False

    def compare_log(self, shown: Sequence[Message], now: int) -> None:
        """The log is the newest of what was published: none is missing, none stays for long beyond its retention."""
        expected = self.published[len(self.published) - len(shown) :]
        require(
            [(m.seq, m.id, m.body, m.group) for m in shown] == [(p.seq, p.id, p.body, p.group) for p in expected],
            f"the log of {self.name} shows {len(shown)} messages that are not the last ones published",
        )
        due = sum(one.sent_ms + RETENTION_MS > now for one in self.published)
        most = sum(one.sent_ms + RETENTION_MS > now - LATE_MAX_MS for one in self.published)
        require(
            due <= len(shown) <= most, f"the log of {self.name} has {len(shown)} messages: {due} to {most} are right"
        )


class TopicMachine(StoreMachine):
    """Two topics, a standard and a FIFO one, over the machine's queues."""

    def __init__(self) -> None:
        super().__init__()
        self.topics = {name: ModelTopic(name) for name in ("t", "t.fifo")}
        for name in self.topics:
            settings = {"retention_ms": RETENTION_MS, "fifo": name.endswith(".fifo")}
            self.driver.run(ops.CreateTopic(topic_arn_of(name), settings))

    @initialize()
    def subscribe_one_each(self) -> None:
        self._subscribe("t", "plain", None, start=None)
        self._subscribe("t.fifo", "plain.fifo", None, start=None)

    # Publishing

    @rule(
        name=TOPICS,
        items=st.lists(st.tuples(GROUPS, DEDUP_IDS, KINDS, st.booleans()), min_size=1, max_size=4),
        transacted=st.booleans(),
        late=LATE,
    )
    def publish(
        self, name: str, items: list[tuple[str, str | None, str | None, bool]], transacted: bool, late: int
    ) -> None:
        self._late(late)
        entries = [self._published(name, *item) for item in items]
        arn = topic_arn_of(name)
        if transacted:
            sent = self.driver.run(ops.Transact(sends=[(arn, entries)])).sent[0]
        else:
            sent = self.driver.run(ops.Send(arn, entries))
        new = self.topics[name].publish(entries, [kind for _, _, kind, _ in items], sent, self.now)
        for queue, wanted in self.topics[name].subscribed.items():
            self._arrived(queue, [one for one in new if wanted is None or one.kind == wanted])

    def _published(self, name: str, group: str, dedup_id: str | None, kind: str | None, long: bool) -> Entry:
        blob = attributes.encode({"kind": ("String", kind)}) if kind is not None else b""
        body = self._body() + (FILL if long else b"")
        if name.endswith(".fifo"):
            return Entry(body, blob, group=group, dedup_id=dedup_id or f"unique-{self.bodies}")
        return Entry(body, blob)

    def _arrived(self, name: str, expected: list[Published]) -> None:
        """The queue shows the messages after all it had, in order."""
        queue = self.queues[name]
        shown = [one.message for one in self.driver.peek(queue.arn, after=max(queue.last_seq, self._top(queue)))]
        require(
            [(m.id, m.body, m.group) for m in shown] == [(p.id, p.body, p.group) for p in expected],
            f"{name} was given {[m.body[:8] for m in shown]}, expected {[p.body[:8] for p in expected]}",
        )
        for message in shown:
            visible_ms = None if queue.fifo else self.now + queue.delay_ms
            queue.messages.append(
                ModelMessage(message.id, message.seq, message.body, message.group, self.now, visible_ms)
            )
            queue.last_seq = message.seq

    def _top(self, queue: ModelQueue) -> int:
        return max((message.seq for message in queue.messages), default=0)

    # Subscribing

    @rule(name=TOPICS, queue=st.sampled_from(SUBSCRIBERS), kind=KINDS)
    def subscribe(self, name: str, queue: str, kind: str | None) -> None:
        if not (queue in FIFO and name == "t"):
            self._subscribe(name, queue, kind, start=None)

    @rule(name=TOPICS, queue=st.sampled_from(REPLAYED), kind=KINDS, back=st.sampled_from([0, 1, 3, 1_000]))
    def replay(self, name: str, queue: str, kind: str | None, back: int) -> None:
        """Empty the queue and give it the last `back` messages of the log."""
        if queue in FIFO and name == "t":
            return
        log = self.driver.run(ops.ReadLog(topic_arn_of(name)))
        start = log[-back - 1].seq if back < len(log) else 0
        self._subscribe(name, queue, kind, start=start)
        self.queues[queue].purge(len(self.queues[queue].messages))
        ids = {message.id for message in log if message.seq > start}
        chosen = [one for one in self.topics[name].published if one.id in ids and (kind is None or one.kind == kind)]
        self._arrived(queue, chosen)

    def _subscribe(self, name: str, queue: str, kind: str | None, *, start: int | None) -> None:
        policy = {"kind": [kind]} if kind is not None else {}
        operation = ops.Subscribe(topic_arn_of(name), arn_of(queue), policy, after=start, purge=start is not None)
        self.driver.run(operation)
        self.topics[name].subscribed[queue] = kind

    @rule(name=TOPICS, queue=st.sampled_from(SUBSCRIBERS))
    def unsubscribe(self, name: str, queue: str) -> None:
        self.driver.run(ops.Unsubscribe(topic_arn_of(name), arn_of(queue)))
        self.topics[name].subscribed.pop(queue, None)

    # After each step

    @invariant()
    def topics_are_what_the_model_says(self) -> None:
        for name, topic in self.topics.items():
            told = self.driver.run(ops.GetTopic(topic_arn_of(name)))
            shown = self.driver.run(ops.ReadLog(topic_arn_of(name)))
            topic.compare_log(shown, self.now)
            size = sum(len(message.body) + len(message.attributes) for message in shown)
            require((told.counts.logged, told.counts.log_bytes) == (len(shown), size), f"{name} counts {told.counts}")
            states = {one.subscription.queue: one.subscription.position for one in told.subscriptions}
            require(states == {arn_of(queue): None for queue in topic.subscribed}, f"{name}: {states}")


def topic_machine_for(kind: StoreKind) -> type[TopicMachine]:
    """The machine for one kind of store: `topic_machine_for(kind).TestCase` is a test class."""
    return type(f"{kind.name.title()}TopicMachine", (TopicMachine,), {"kind": kind})


__all__ = ["TopicMachine", "topic_machine_for"]
