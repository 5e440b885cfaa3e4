"""Consumers and readers of a FIFO queue in any interleaving: a group has one owner and keeps its order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.queue.fifo import FifoOrder
from headrace.queue.leases import Lease
from tests.queue.rules.messages import NOW, message
from tests.queue.rules.test_fifo import lease, take


class OrderMachine(RuleBasedStateMachine):
    """Consumers and readers in any interleaving: a group has one owner and is handed out in order, no message is lost.

    Readers are compared too: what a reader has claimed from, it may go on with, whatever others did in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order = FifoOrder()
        self.now = NOW
        self.groups: dict[int, str] = {}
        self.waiting: set[int] = set()
        self.held: dict[int, Lease] = {}
        self.reader: dict[int, str] = {}  # claimed seq -> who has it

    def in_flight(self, group: str) -> list[int]:
        away = [*self.order.leases.active, *self.held, *self.reader]
        return [seq for seq in away if self.groups[seq] == group]

    def available(self, reader: str | None) -> set[int]:
        """What may be taken now: all that waits in groups that are free, or this reader's."""
        out = set()
        for seq in self.waiting:
            away = self.in_flight(self.groups[seq])
            if not away or (reader is not None and all(self.reader.get(one) == reader for one in away)):
                out.add(seq)
        return out

    @rule(group=st.sampled_from("aab"))
    def send(self, group: str) -> None:
        seq = len(self.groups) + 1
        self.groups[seq] = group
        self.order.add(seq, group, self.now)
        self.waiting.add(seq)

    @rule(
        limit=st.integers(1, 4),
        reader=st.sampled_from([None, "r", "s"]),
        fate=st.sampled_from(["leased", "leased", "dropped", "drop failed"]),
    )
    def receive(self, limit: int, reader: str | None, fate: str) -> None:
        available = self.available(reader)
        taken = take(self.order, limit, now=self.now, reader=reader)
        assert len(taken) == len(set(taken)) == min(limit, len(available))
        assert set(taken) <= available
        for seq in taken:
            earlier = {one for one in self.waiting if one < seq and self.groups[one] == self.groups[seq]}
            assert not earlier, "order of the group"
            self.waiting.discard(seq)
        if fate != "leased":
            for seq in taken:
                self.order.dropped(seq)
            for seq in taken if fate == "drop failed" else ():
                self.order.recall(seq, self.groups[seq], self.now)
                self.waiting.add(seq)
        elif reader is None:
            for seq in taken:
                lease(self.order, [seq], self.groups[seq], now=self.now)
        else:
            for seq in taken:
                self.order.claim(message(seq, group=self.groups[seq]))
                self.reader[seq] = reader

    @rule(limit=st.integers(1, 4), reader=st.sampled_from([None, "r"]))
    def take_and_give_back(self, limit: int, reader: str | None) -> None:
        for seq in take(self.order, limit, now=self.now, reader=reader):
            self.order.untake(seq, self.groups[seq], NOW)

    @rule(which=st.integers(0, 30))
    @precondition(lambda self: self.order.leases.active)
    def release(self, which: int) -> None:
        seq = sorted(self.order.leases.active)[which % len(self.order.leases.active)]
        self.order.release(seq, self.now)
        self.waiting.add(seq)

    @rule()
    def time_passes(self) -> None:
        self.now += 600
        for seq in self.order.leases.expired(self.now):
            self.order.release(seq, self.now)
            self.waiting.add(seq)

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
            self.order.deleted(held, self.now, active=True)

    @rule(which=st.integers(0, 30), acknowledged=st.booleans())
    @precondition(lambda self: self.reader)
    def end_claim(self, which: int, acknowledged: bool) -> None:
        seq = sorted(self.reader)[which % len(self.reader)]
        del self.reader[seq]
        if acknowledged:
            self.order.claim_deleted(seq)
        else:
            self.order.unclaim(seq)
            self.waiting.add(seq)

    @rule()
    def purge(self) -> None:
        self.order.clear()
        self.waiting.clear()
        self.held.clear()
        self.reader.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.order) == len(self.waiting)
        for group, state in self.order.groups.items():
            assert state.in_flight == len(self.in_flight(group))
        self.order.leases._check_invariants()


TestAnyOperations = OrderMachine.TestCase
TestAnyOperations.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
