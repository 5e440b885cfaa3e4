"""What a store has promised at some moment, and a random workload that collects promises.

The workload marks the disk's log before and after each operation with a copy of its promises, so that for any cut it is
known what was answered, and what was on its way. Afterwards `broken` counts the promises that a recovered store breaks.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.errors import HeadraceError, StoreError
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Peeked, Redrive, Sent, arn_of
from headrace.testing.driver import StoreDriver
from tests.faults.recording import DiskLog

PLAIN: Final = arn_of("plain")
RETRIED: Final = arn_of("retried")
DEAD: Final = arn_of("dead")
CLAIMED: Final = arn_of("claimed")
FIFO: Final = arn_of("q.fifo")
QUEUES: Final = (PLAIN, RETRIED, DEAD, CLAIMED, FIFO)
LEASE_MS: Final = 60_000
DEDUP_MS: Final = 300_000


@dataclass
class Promises:
    """Bodies are unique, so a body names its message.

    Attributes:
        stored: body -> what a send answered.
        deleted: bodies whose delete was answered.
        unsure: bodies of operations on their way: there or not, but whole.
        together: of a transaction on its way: (acknowledged body, sent body, state key and value), all or none.
        leased: body of a FIFO queue's message -> (group, seq, until when it is in flight).
        dedup: dedup id -> (message id, until when a repeat is a duplicate).
        claims: claim number -> bodies.
        state: what was put; `state_unsure` on its way.
        epoch: the newest fence.
    """

    now_ms: int = 0
    stored: dict[bytes, Sent] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    unsure: set[bytes] = field(default_factory=set)
    together: tuple[bytes, bytes, bytes, bytes] | None = None
    leased: dict[bytes, tuple[str, int, int]] = field(default_factory=dict)
    dedup: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    claims: dict[int, list[bytes]] = field(default_factory=dict)
    state: dict[bytes, bytes] = field(default_factory=dict)
    epoch: int = 0
    ready: bool = False


class Workload:
    """Random operations on a few queues, and the promises that their answers are."""

    def __init__(self, driver: StoreDriver, log: DiskLog, chance: random.Random) -> None:
        self.driver = driver
        self.log = log
        self.chance = chance
        self.promises = Promises()
        self.held: list[tuple[str, Delivery]] = []
        self.count = 0

    def set_up(self) -> None:
        self.driver.create("plain", visibility_ms=LEASE_MS)
        self.driver.create("dead", visibility_ms=LEASE_MS)
        self.driver.create("retried", visibility_ms=0, redrive=Redrive(DEAD, 2))
        self.driver.create("claimed", visibility_ms=LEASE_MS)
        self.driver.create("q.fifo", visibility_ms=LEASE_MS)
        self.promises.ready = True
        self._mark()

    def run(self, steps: int) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (6, self.send),
            (4, self.send_fifo),
            (4, self.receive),
            (5, self.receive_fifo),
            (5, self.delete),
            (2, self.change_visibility),
            (3, self.transact),
            (2, self.claim),
            (1, self.acknowledge),
            (1, self.fence),
            (1, self.purge),
            (2, self.pass_time),
            (1, self.restart),
        ]
        weights = [weight for weight, _ in actions]
        for _, action in self.chance.choices(actions, weights, k=steps):
            action()

    def _mark(self) -> None:
        self.promises.now_ms = self.driver.clock()
        self.log.mark(copy.deepcopy(self.promises))

    def _body(self) -> bytes:
        """Unique; sometimes longer than a page, so that writes can be torn."""
        self.count += 1
        return b"%d:" % self.count + b"x" * self.chance.choice([0, 10, 200, 200, 9_000])

    # Sends

    def send(self) -> None:
        queue = self.chance.choice([PLAIN, RETRIED, CLAIMED])
        batches = [
            [Entry(self._body()) for _ in range(self.chance.randint(1, 3))] for _ in range(self.chance.randint(1, 3))
        ]
        self._send([ops.Send(queue, batch) for batch in batches])

    def send_fifo(self) -> None:
        entries = [
            Entry(body, group=self.chance.choice("abc"), dedup_id=f"d{body.partition(b':')[0].decode()}")
            for body in (self._body() for _ in range(self.chance.randint(1, 3)))
        ]
        until = self.driver.clock() + DEDUP_MS
        sent = self._send([ops.Send(FIFO, entries)])
        for entry, one in zip(entries, sent, strict=True):
            assert entry.dedup_id is not None
            self.promises.dedup[entry.dedup_id] = (one.id, until)
        self._mark()

    def _send(self, operations: list[ops.Send]) -> list[Sent]:
        bodies = [entry.body for operation in operations for entry in operation.entries]
        self.promises.unsure |= set(bodies)
        self._mark()
        sent = [one for outcome in self.driver.outcomes(operations) for one in _must(outcome)]
        self.promises.unsure -= set(bodies)
        self.promises.stored.update(zip(bodies, sent, strict=True))
        self._mark()
        return sent

    # Leases

    def receive(self) -> None:
        queue = self.chance.choice([PLAIN, RETRIED, DEAD])
        self.held += [(queue, one) for one in self.driver.receive(queue, self.chance.randint(1, 5))]
        self._mark()

    def receive_fifo(self) -> None:
        for delivery in self.driver.receive(FIFO, self.chance.randint(1, 3)):
            self.held.append((FIFO, delivery))
            self._lease(delivery, self.driver.clock() + LEASE_MS)
        self._mark()

    def change_visibility(self) -> None:
        alive = [one for one in self.held if one[0] in (PLAIN, FIFO)]
        if not alive:
            return
        queue, delivery = self.chance.choice(alive)
        timeout_ms = self.chance.choice([0, 1_000, 3 * LEASE_MS])
        until = self.driver.clock() + timeout_ms
        _, _, kept = self.promises.leased.get(delivery.message.body, ("", 0, 0))
        if until < kept:
            self.promises.leased.pop(delivery.message.body, None)  # it may be visible from now on, or as before
        self._mark()
        if self.driver.change_visibility(queue, delivery.receipt, timeout_ms) is None and queue == FIFO:
            self._lease(delivery, until)
        self._mark()

    def _lease(self, delivery: Delivery, until: int) -> None:
        message = delivery.message
        assert message.group is not None
        self.promises.leased[message.body] = (message.group, message.seq, until)

    def delete(self) -> None:
        if not self.held:
            return
        self.chance.shuffle(self.held)
        chosen, self.held = self.held[:3], self.held[3:]
        for queue in {queue for queue, _ in chosen}:
            self._delete(queue, [one for where, one in chosen if where == queue])

    def _delete(self, queue: str, deliveries: list[Delivery]) -> None:
        bodies = {one.message.body for one in deliveries}
        self.promises.unsure |= bodies
        for body in bodies:
            self.promises.leased.pop(body, None)
        self._mark()
        outcomes = self.driver.delete(queue, *[one.receipt for one in deliveries])
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            gone = outcome is None and delivery.message.body not in self._shown()
            self.promises.unsure.discard(delivery.message.body)
            if gone:
                self.promises.deleted.add(delivery.message.body)
        self._mark()

    def _shown(self) -> set[bytes]:
        return {one.message.body for queue in QUEUES for one in self.driver.peek(queue)}

    # Transactions, claims, fences

    def transact(self) -> None:
        held = [one for one in self.held if one[0] in (PLAIN, FIFO)]
        if not held:
            return
        queue, delivery = self.chance.choice(held)
        entry, key, value = Entry(self._body()), b"key%d" % self.chance.randint(1, 3), b"%d" % self.count
        acknowledged = delivery.message.body
        self.promises.together = (acknowledged, entry.body, key, value)
        self.promises.unsure |= {acknowledged, entry.body}
        self.promises.leased.pop(acknowledged, None)
        self._mark()
        outcome = self.driver.outcome(
            ops.Transact([(queue, [delivery.receipt])], [(PLAIN, [entry])], [(key, value)], name="job")
        )
        if isinstance(outcome, StoreError):
            raise outcome  # unknown: whole or absent
        self.promises.together = None
        self.promises.unsure -= {acknowledged, entry.body}
        self.held.remove((queue, delivery))
        if isinstance(outcome, ops.TransactOutcome):
            self.promises.deleted.add(acknowledged)
            self.promises.stored[entry.body] = outcome.sent[0][0]
            self.promises.state[key] = value
        self._mark()

    def claim(self) -> None:
        number = self.driver.run(ops.GetClaims(CLAIMED, "r")).last + 1
        self._mark()
        claimed = self.driver.run(ops.Claim(CLAIMED, "r", number, self.chance.randint(1, 4)))
        if claimed:
            self.promises.claims[number] = [message.body for message in claimed]
        self._mark()

    def acknowledge(self) -> None:
        if not self.promises.claims:
            return
        number = min(self.promises.claims)
        bodies = set(self.promises.claims.pop(number))
        self.promises.unsure |= bodies
        self._mark()
        self.driver.run(ops.AcknowledgeClaims(CLAIMED, "r", number))
        self.promises.unsure -= bodies
        self.promises.deleted |= bodies
        self._mark()

    def fence(self) -> None:
        self._mark()
        self.promises.epoch = self.driver.run(ops.Fence("job"))
        self._mark()

    def purge(self) -> None:
        bodies = {one.message.body for one in self.driver.peek(RETRIED)}
        self.promises.unsure |= bodies
        self._mark()
        self.driver.run(ops.Purge(RETRIED))
        self.promises.unsure -= bodies
        self.promises.deleted |= bodies
        self._mark()

    # Life

    def pass_time(self) -> None:
        self.driver.pass_time(self.chance.choice([1, 500, 5_000]))
        self._mark()

    def restart(self) -> None:
        self._mark()
        self.driver.reopen()
        self._mark()


def _must(outcome: Any) -> Any:
    if isinstance(outcome, HeadraceError):
        raise outcome
    return outcome


def broken(promises: Promises, driver: StoreDriver) -> list[str]:
    """The promises that the recovered store of `driver` breaks, in words."""
    if not promises.ready:
        return []
    missing = [f"lost queue {queue}" for queue in QUEUES if driver.store.find(queue) is None]
    if missing:
        return missing
    found: list[str] = []
    shown = [one for queue in QUEUES for one in driver.peek(queue)]
    found += _broken_messages(promises, shown)
    found += _broken_together(promises, {one.message.body for one in shown}, driver)
    found += _broken_counts(driver)
    found += _broken_claims(promises, driver)
    found += _broken_dedup(promises, driver)
    found += _broken_leases(promises, driver)
    epoch = driver.run(ops.Fence("job"))
    if epoch <= promises.epoch:
        found.append(f"epoch {epoch} after {promises.epoch}")
    return found


def _broken_messages(promises: Promises, shown: list[Peeked]) -> list[str]:
    times = Counter(one.message.body for one in shown)
    ids = {one.message.body: one.message.id for one in shown}
    certain = promises.stored.keys() - promises.unsure - promises.deleted
    found = [f"lost {body[:20]!r}" for body in certain if body not in times]
    found += [f"back after its delete {body[:20]!r}" for body in promises.deleted - promises.unsure if body in times]
    found += [f"stored {count} times {body[:20]!r}" for body, count in times.items() if count > 1]
    found += [f"another id {body[:20]!r}" for body in certain & ids.keys() if ids[body] != promises.stored[body].id]
    known = promises.stored.keys() | promises.unsure
    return found + [f"never sent {body[:20]!r}" for body in times.keys() - known]


def _broken_together(promises: Promises, shown: set[bytes], driver: StoreDriver) -> list[str]:
    state = dict(driver.run(ops.GetState("job")))
    if promises.together is not None:
        acknowledged, sent, key, value = promises.together
        happened = {acknowledged not in shown, sent in shown, state.get(key) == value}
        if len(happened) > 1 and acknowledged not in promises.deleted:
            return [f"half a transaction: {acknowledged[:20]!r} {sent[:20]!r}"]
        state[key] = promises.state.get(key, value)
        state = state if key in promises.state else {k: v for k, v in state.items() if k != key}
    return [] if state == promises.state else [f"state {state} instead of {promises.state}"]


def _broken_counts(driver: StoreDriver) -> list[str]:
    found = []
    for queue in QUEUES:
        states = Counter(one.state for one in driver.peek(queue))
        counts = driver.counts(queue)
        told = (counts.visible, counts.in_flight, counts.delayed)
        if told != (states["visible"], states["in_flight"] + states["claimed"], states["delayed"]):
            found.append(f"{queue} counts {told} but shows {states}")
    return found


def _broken_claims(promises: Promises, driver: StoreDriver) -> list[str]:
    found = []
    for number, bodies in promises.claims.items():
        again = driver.outcome(ops.Claim(CLAIMED, "r", number))
        if isinstance(again, HeadraceError) or [message.body for message in again] != bodies:
            found.append(f"claim {number} has changed: {again!r}"[:300])
    return found


def _broken_dedup(promises: Promises, driver: StoreDriver) -> list[str]:
    found = []
    newest = max((one.seq for one in promises.stored.values()), default=0)
    for dedup_id, (message_id, until) in promises.dedup.items():
        if until > driver.clock():
            again = driver.send(FIFO, "again", group="again", dedup_id=dedup_id)
            if not again.duplicate or again.id != message_id:
                found.append(f"dedup id {dedup_id} stored twice")
    top = max(
        (promises.stored[b].seq for b in promises.stored if promises.stored[b].id in _fifo_ids(promises)), default=0
    )
    fresh = driver.send(FIFO, "fresh", group="fresh", dedup_id="fresh")
    if fresh.seq <= top:
        found.append(f"sequence number {fresh.seq} used again; {top} of {newest} was given")
    return found


def _fifo_ids(promises: Promises) -> set[bytes]:
    return {message_id for message_id, _ in promises.dedup.values()}


def _broken_leases(promises: Promises, driver: StoreDriver) -> list[str]:
    """A FIFO queue's message whose lease was answered, and those behind it in its group, come not before the lease ends."""
    found = []
    for group, seq, until in sorted(promises.leased.values(), key=lambda lease: lease[2]):
        for moment in (promises.now_ms, until - 1):
            if moment < driver.clock() and moment != promises.now_ms:
                continue
            driver.clock.now_ms = max(driver.clock(), moment)
            if driver.clock() >= until:
                continue
            driver.settle()
            received = driver.receive(FIFO, 100, visibility_ms=1)
            if any(one.message.group == group and one.message.seq >= seq for one in received):
                found.append(f"group {group} has two owners")
    return found
