"""What a store has promised about a topic, and a random workload that collects promises: as `promises.py`, for topics.

A topic with a log and an inbox, three queues: one is given all, one what its filter lets in, one is given the log again and
again. Bodies are unique; most are long enough to be stored once and referred to.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from headrace.errors import HeadraceError
from headrace.queue import attributes
from headrace.queue import operations as ops
from headrace.queue.model import Entry, TopicDescription, arn_of, topic_arn_of
from headrace.testing.driver import StoreDriver
from tests.faults.recording import DiskLog

TOPIC: Final = topic_arn_of("flights")
INBOX: Final = arn_of("inbox")
ALL: Final = arn_of("all")
SOME: Final = arn_of("some")
AGAIN: Final = arn_of("again")
LOG_BYTES: Final = 20_000
LEASE_MS: Final = 1_000
HOUR_MS: Final = 3_600_000
KINDS: Final = ("late", "early")


@dataclass
class TopicPromises:
    """What was answered, and what is on its way.

    Attributes:
        published: bodies whose publishing was answered, in order; `publishing`: on its way, one commit.
        last_seq: the highest number that was answered.
        late: those of either that the filter lets in.
        deleted: (queue, body) whose delete was answered; `deleting`: on its way.
        replayed: the queue AGAIN was given the log, or is about to be: None while it never was.
        bounded: the log has had a bound by size: it may have lost its front.
    """

    now_ms: int = 0
    ready: bool = False
    published: list[bytes] = field(default_factory=list)
    publishing: list[bytes] = field(default_factory=list)
    last_seq: int = 0
    late: set[bytes] = field(default_factory=set)
    deleted: set[tuple[str, bytes]] = field(default_factory=set)
    deleting: set[tuple[str, bytes]] = field(default_factory=set)
    replayed: bool | None = None
    bounded: bool = False


class TopicWorkload:
    """Random operations on the topic, and the promises that their answers are."""

    def __init__(self, driver: StoreDriver, log: DiskLog, chance: random.Random) -> None:
        self.driver = driver
        self.log = log
        self.chance = chance
        self.promises = TopicPromises()
        self.count = 0

    def set_up(self) -> None:
        for arn in (INBOX, ALL, SOME, AGAIN):
            self.driver.run(ops.CreateQueue(arn, {"visibility_ms": LEASE_MS}))
        self.driver.run(ops.CreateTopic(TOPIC, {"retention_ms": HOUR_MS, "inbox": INBOX}))
        self.driver.run(ops.Subscribe(TOPIC, ALL))
        self.driver.run(ops.Subscribe(TOPIC, SOME, {"kind": ["late"]}))
        self.promises.ready = True
        self._mark()

    def run(self, steps: int) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (8, self.publish), (6, self.take), (2, self.replay), (1, self.bound), (3, self.pass_time), (1, self.restart)
        ]  # fmt: skip
        weights = [weight for weight, _ in actions]
        for _, action in self.chance.choices(actions, weights, k=steps):
            action()

    def _mark(self) -> None:
        self.promises.now_ms = self.driver.clock()
        self.log.mark(copy.deepcopy(self.promises))

    def _entry(self) -> Entry:
        self.count += 1
        body = b"%d:" % self.count + b"x" * self.chance.choice([0, 300, 300, 2_000, 9_000])
        kind = self.chance.choice(KINDS)
        if kind == KINDS[0]:
            self.promises.late.add(body)
        return Entry(body, attributes.encode({"kind": ("String", kind)}))

    def publish(self) -> None:
        target = self.chance.choice([TOPIC, TOPIC, INBOX])
        batches = [[self._entry() for _ in range(self.chance.randint(1, 3))] for _ in range(self.chance.randint(1, 3))]
        self.promises.publishing = [entry.body for batch in batches for entry in batch]
        self._mark()
        for outcome in self.driver.outcomes([ops.Send(target, batch) for batch in batches]):
            _must_be_good(outcome)
            self.promises.last_seq = max(self.promises.last_seq, *[sent.seq for sent in outcome])
        self.promises.published += self.promises.publishing
        self.promises.publishing = []
        self._mark()

    def take(self) -> None:
        """Receive from a queue and delete; those that are left come again."""
        queue = self.chance.choice([ALL, SOME])
        taken = self.driver.receive(queue, self.chance.randint(1, 8))
        self.promises.deleting = {(queue, one.message.body) for one in taken}
        self._mark()
        for outcome in self.driver.delete(queue, *[one.receipt for one in taken]) if taken else ():
            _must_be_good(outcome)
        self.promises.deleted |= self.promises.deleting
        self.promises.deleting = set()
        self._mark()

    def replay(self) -> None:
        self.promises.replayed = self.promises.replayed or False
        self._mark()
        self.driver.run(ops.Subscribe(TOPIC, AGAIN, after=0, purge=True))
        self.promises.replayed = True
        self._mark()

    def bound(self) -> None:
        size = self.chance.choice([0, LOG_BYTES])
        self.promises.bounded = self.promises.bounded or size > 0
        self._mark()
        self.driver.run(ops.ChangeTopic(TOPIC, {"retention_bytes": size}))
        self._mark()

    def pass_time(self) -> None:
        """So that leases end, the log lets go what is too much, and rows that nobody needs are deleted."""
        self.driver.pass_time(self.chance.choice([1, 1_500, 5_000]))
        self._mark()

    def restart(self) -> None:
        self._mark()
        self.driver.reopen()
        self._mark()


def _must_be_good(outcome: object) -> None:
    for one in outcome if isinstance(outcome, list) else [outcome]:
        if isinstance(one, HeadraceError):
            raise one


def topic_broken(promises: TopicPromises, driver: StoreDriver) -> list[str]:
    """The promises that the recovered store of `driver` breaks, in words."""
    if not promises.ready:
        return []
    driver.settle()  # a queue that was catching up when the power failed is given the rest
    shown = {queue: [one.message.body for one in driver.peek(queue)] for queue in (INBOX, ALL, SOME, AGAIN)}
    log = [message.body for message in driver.run(ops.ReadLog(TOPIC))]
    found = _broken_commit(promises, shown, log)
    there = promises.published + [body for body in promises.publishing if body in log]
    for queue, wanted in ((ALL, there), (SOME, [body for body in there if body in promises.late])):
        found += _broken_queue(promises, queue, wanted, shown[queue])
    found += _broken_log(promises, there, log, driver)
    found += _broken_replay(promises, there, shown[AGAIN])
    found += [f"in the inbox {body[:20]!r}" for body in shown[INBOX]]
    return found + _broken_future(promises, driver)


def _broken_commit(promises: TopicPromises, shown: dict[str, list[bytes]], log: list[bytes]) -> list[str]:
    """What was being published is everywhere or nowhere, all of it."""
    places = {
        body in where
        for body in promises.publishing
        for where in [log, shown[ALL], *([shown[SOME]] if body in promises.late else [])]
    }
    return ["half a publish"] if len(places) > 1 else []


def _broken_queue(promises: TopicPromises, queue: str, wanted: list[bytes], shown: list[bytes]) -> list[str]:
    certain = [body for body in wanted if (queue, body) not in promises.deleted | promises.deleting]
    found = [f"lost {body[:20]!r} of {queue}" for body in certain if body not in shown]
    found += [f"back after its delete {body[:20]!r}" for body in shown if (queue, body) in promises.deleted]
    found += [f"not for {queue} {body[:20]!r}" for body in shown if body not in wanted]
    if shown != [body for body in wanted if body in shown]:
        found.append(f"order or number of {queue}")
    return found


def _broken_log(promises: TopicPromises, there: list[bytes], log: list[bytes], driver: StoreDriver) -> list[str]:
    found = [] if log == there[len(there) - len(log) :] else ["log is not the end of what was published"]
    found += [] if promises.bounded or log == there else ["log lost its front"]
    description: TopicDescription = driver.run(ops.GetTopic(TOPIC))
    told, size = (description.counts.logged, description.counts.log_bytes), sum(len(body) for body in log)
    extra = len(log) * len(attributes.encode({"kind": ("String", KINDS[0])}))
    if told[0] != len(log) or not size <= told[1] <= size + 2 * extra:
        found.append(f"log counts {told} but has {len(log)}, {size} bytes")
    return found


def _broken_replay(promises: TopicPromises, there: list[bytes], shown: list[bytes]) -> list[str]:
    """The queue has what was logged when it was given the log, and all since, in order."""
    if promises.replayed is None:
        return ["replay that was never asked for"] if shown else []
    if promises.replayed is False and not shown:
        return []
    found = [] if shown == there[len(there) - len(shown) :] else ["replay with a gap, a duplicate or in disorder"]
    return found + ([] if promises.bounded or len(shown) == len(there) else ["replay that lost its front"])


def _broken_future(promises: TopicPromises, driver: StoreDriver) -> list[str]:
    """Nothing that is deleted late takes a body from a queue, and what is published now arrives, with a new number."""
    before = {queue: [one.message.body for one in driver.peek(queue)] for queue in (ALL, SOME, AGAIN)}
    driver.pass_time(5_000)
    after = {queue: [one.message.body for one in driver.peek(queue)] for queue in (ALL, SOME, AGAIN)}
    found = [] if before == after else ["bodies taken from a queue that refers to them"]
    sent = driver.send(TOPIC, b"fresh")
    fresh = driver.peek(ALL)[-1].message.body == b"fresh"
    return found + ([] if fresh and sent.seq > promises.last_seq else [f"{sent.seq} after {promises.last_seq}"])
