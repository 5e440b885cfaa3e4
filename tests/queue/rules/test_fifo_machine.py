"""Consumers and readers of a FIFO queue in any interleaving, compared with a list model: what comes next, and in which order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.queue.fifo import FifoOrder
from headrace.queue.leases import Lease
from tests.queue.rules.messages import NOW, message
from tests.queue.rules.test_fifo import lease, take


class OrderMachine(RuleBasedStateMachine):
    """The model: for each group, which messages wait and which are away; and the line in which groups take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.order = FifoOrder()
        self.now = NOW
        self.groups: dict[int, str] = {}
        self.waiting: set[int] = set()
        self.held: dict[int, Lease] = {}
        self.reader: dict[int, str] = {}  # claimed seq -> who has it
        self.line: list[str] = []

    def in_flight(self, group: str) -> list[int]:
        away = [*self.order.leases.active, *self.held, *self.reader]
        return [seq for seq in away if self.groups[seq] == group]

    def next_of(self, group: str, reader: str | None) -> list[int]:
        """What may be taken of the group now, in order."""
        waiting = sorted(seq for seq in self.waiting if self.groups[seq] == group)
        away = self.in_flight(group)
        owners = {self.reader[seq] for seq in away if seq in self.reader}
        if owners:
            return waiting if owners == {reader} else []
        if reader is not None and away:
            return []
        return [seq for seq in waiting if all(seq < one for one in away)]

    def next(self, limit: int, reader: str | None) -> list[int]:
        return [seq for group in self.line for seq in self.next_of(group, reader)][:limit]

    def served(self, seqs: list[int]) -> None:
        for group in dict.fromkeys(self.groups[seq] for seq in seqs):
            self.line.remove(group)
            self.line.append(group)

    def wait(self, seq: int) -> None:
        """A message waits, anew or again."""
        self.waiting.add(seq)
        if self.groups[seq] not in self.line:
            self.line.append(self.groups[seq])

    def forget_empty(self) -> None:
        known = {self.groups[seq] for seq in self.waiting} | {group for group in self.line if self.in_flight(group)}
        self.line = [group for group in self.line if group in known]

    @rule(group=st.sampled_from("aabc"))
    def send(self, group: str) -> None:
        seq = len(self.groups) + 1
        self.groups[seq] = group
        self.order.add(seq, group, self.now)
        self.wait(seq)

    @rule(
        limit=st.integers(1, 4),
        reader=st.sampled_from([None, "r", "s"]),
        fate=st.sampled_from(["leased", "leased", "dropped", "drop failed"]),
    )
    def receive(self, limit: int, reader: str | None, fate: str) -> None:
        expected = self.next(limit, reader)
        taken = take(self.order, limit, now=self.now, reader=reader)
        assert taken == expected
        self.waiting -= set(taken)
        if fate != "leased":
            for seq in taken:
                self.order.dropped(seq)
            self.forget_empty()
            for seq in taken if fate == "drop failed" else ():
                self.order.recall(seq, self.groups[seq], self.now)
                self.wait(seq)
            return
        self.served(taken)
        if reader is None:
            messages = [message(seq, group=self.groups[seq]) for seq in taken]
            self.order.started(self.order.leases.grant(messages, now=self.now, expires_ms=self.now + 1_000))
        else:
            for seq in taken:
                self.order.claim(message(seq, group=self.groups[seq]))
                self.reader[seq] = reader

    @rule(which=st.integers(0, 30))
    @precondition(lambda self: self.waiting)
    def pick(self, which: int) -> None:
        seq = sorted(self.waiting)[which % len(self.waiting)]
        group = self.groups[seq]
        free = self.next_of(group, None)[:1] == [seq]
        assert self.order.pick(message(seq, group=group), self.now, delay_ms=0) == free
        if free:
            self.waiting.discard(seq)
            self.served([seq])
            lease(self.order, [seq], group, now=self.now)

    @rule(which=st.integers(0, 30))
    @precondition(lambda self: self.order.leases.active)
    def extend(self, which: int) -> None:
        seq = sorted(self.order.leases.active)[which % len(self.order.leases.active)]
        self.order.leases.move_expiry(seq, self.now + 2_000)

    @rule(limit=st.integers(1, 4), reader=st.sampled_from([None, "r"]))
    def take_and_give_back(self, limit: int, reader: str | None) -> None:
        for seq in take(self.order, limit, now=self.now, reader=reader):
            self.order.untake(seq, self.groups[seq], NOW)

    @rule(which=st.integers(0, 30))
    @precondition(lambda self: self.order.leases.active)
    def release(self, which: int) -> None:
        seq = sorted(self.order.leases.active)[which % len(self.order.leases.active)]
        self.order.release(seq, self.now)
        self.wait(seq)

    @rule()
    def time_passes(self) -> None:
        self.now += 600
        for seq in self.order.leases.expired(self.now):
            self.order.release(seq, self.now)
            self.wait(seq)

    @rule(which=st.integers(0, 30))
    @precondition(lambda self: self.order.leases.active)
    def hold(self, which: int) -> None:
        seq = sorted(self.order.leases.active)[which % len(self.order.leases.active)]
        held = self.order.hold(seq)
        assert held is not None and held[1]
        self.held[seq] = held[0]

    @rule(which=st.integers(0, 30), failed=st.booleans())
    @precondition(lambda self: self.held)
    def delete(self, which: int, failed: bool) -> None:
        seq = sorted(self.held)[which % len(self.held)]
        held = self.held.pop(seq)
        if failed:
            self.order.put_back(seq, held, active=True)
        else:
            self.order.deleted(seq, held, self.now, active=True)
            self.forget_empty()

    @rule(which=st.integers(0, 30), acknowledged=st.booleans())
    @precondition(lambda self: self.reader)
    def end_claim(self, which: int, acknowledged: bool) -> None:
        seq = sorted(self.reader)[which % len(self.reader)]
        del self.reader[seq]
        if acknowledged:
            self.order.claim_deleted(seq)
            self.forget_empty()
        else:
            self.order.unclaim(seq)
            self.wait(seq)

    @rule()
    def purge(self) -> None:
        self.order.clear()
        self.line.clear()
        self.waiting.clear()
        self.held.clear()
        self.reader.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.order) == len(self.waiting)
        assert self.order.groups.keys() == set(self.line)
        self.order._check_invariants()
        self.order.leases._check_invariants()


TestAnyOperations = OrderMachine.TestCase
TestAnyOperations.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
