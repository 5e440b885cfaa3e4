"""Whatever is done with a standard queue's messages, in whatever order: each is in one place."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.queue import limits
from headrace.queue.leases import Lease
from headrace.queue.standard import StandardOrder
from tests.queue.rules.messages import NOW, message
from tests.queue.rules.test_standard import lease


@pytest.fixture(autouse=True)
def low_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few messages make a tenant noisy, and a few that stand back are very many."""
    monkeypatch.setattr(limits, "NOISY_IN_FLIGHT_MIN", 2)
    monkeypatch.setattr(limits, "FAIR_LOOK_AHEAD_MAX", 3)


class OrderMachine(RuleBasedStateMachine):
    """Any operations in any order, by few tenants and with low bounds: each message is in one place, always."""

    SEQS = st.integers(0, 30)

    def __init__(self) -> None:
        super().__init__()
        self.order = StandardOrder()
        self.now = NOW
        self.groups: dict[int, str | None] = {}
        self.ready: set[int] = set()
        self.received: dict[int, int] = {}
        self.held: dict[int, tuple[Lease, bool]] = {}

    @rule(group=st.sampled_from([None, "a", "a", "a", "b"]))
    def send(self, group: str | None) -> None:
        seq = len(self.groups) + 1
        self.groups[seq] = group
        self.order.add_all([message(seq, group=group)])
        self.ready.add(seq)

    @rule(limit=st.integers(1, 6), all_known=st.booleans(), fate=st.sampled_from(["lease", "drop", "untake", "claim"]))
    def receive(self, limit: int, all_known: bool, fate: str) -> None:
        reader = "reader" if fate == "claim" else None
        taken = self.order.take(limit, self.now, all_known=all_known, reader=reader)
        assert len(set(taken)) == len(taken)
        assert set(taken) <= self.ready
        if all_known or reader:
            assert len(taken) == min(limit, len(self.ready))
        for seq in taken:
            self.ready.discard(seq)
            getattr(self, f"_{fate}")(seq)

    def _lease(self, seq: int) -> None:
        lease(self.order, [seq], self.groups[seq], now=self.now)
        self.received[seq] = self.received.get(seq, 0) + 1
        assert self.order.leases.active[seq].receives == self.received[seq]

    def _drop(self, seq: int) -> None:
        self.order.dropped(seq)
        self.received.pop(seq, None)

    def _untake(self, seq: int) -> None:
        self.order.untake(seq, self.groups[seq], NOW)
        self.ready.add(seq)

    def _claim(self, seq: int) -> None:
        self.order.claim(message(seq, group=self.groups[seq]))

    @rule(which=SEQS)
    @precondition(lambda self: self.order.leases.active)
    def release(self, which: int) -> None:
        seq = self._pick(self.order.leases.active, which)
        self.order.release(seq, self.now)
        self.ready.add(seq)

    @rule(passed_ms=st.sampled_from([1, 999, 1_000, 200_000]))
    def time_passes(self, passed_ms: int) -> None:
        self.now += passed_ms
        for seq in self.order.leases.expired(self.now):
            self.order.release(seq, self.now)
            self.ready.add(seq)

    @rule(which=SEQS)
    @precondition(lambda self: self.received)
    def hold(self, which: int) -> None:
        seq = self._pick(self.received, which)
        held = self.order.hold(seq)
        if held is None:
            assert seq in self.order.leases.claimed or seq in self.held
        else:
            self.held[seq] = held
            self.ready.discard(seq)

    @rule(which=SEQS, failed=st.booleans())
    @precondition(lambda self: self.held)
    def delete(self, which: int, failed: bool) -> None:
        seq = self._pick(self.held, which)
        granted, active = self.held.pop(seq)
        if failed:
            self.order.put_back(seq, granted, active=active)
            self.ready |= set() if active else {seq}
        else:
            self.order.deleted(seq, granted, self.now, active=active)
            del self.received[seq]

    @rule(which=SEQS, acknowledged=st.booleans())
    @precondition(lambda self: self.order.leases.claimed)
    def end_claim(self, which: int, acknowledged: bool) -> None:
        seq = self._pick(self.order.leases.claimed, which)
        if acknowledged:
            self.order.claim_deleted(seq)
            self.received.pop(seq, None)
        else:
            self.order.unclaim(seq)
            self.ready.add(seq)

    @rule()
    def purge(self) -> None:
        self.order.clear()
        self.ready.clear()
        self.received.clear()
        self.held.clear()

    @invariant()
    def tenants_count_the_leases_and_claims_of_their_messages(self) -> None:
        leases = [*self.order.leases.active.values(), *self.order.leases.claimed.values()]
        leases += [held for held, active in self.held.values() if active]
        counts: dict[str, int] = {}
        for one in leases:
            if one.group is not None:
                counts[one.group] = counts.get(one.group, 0) + 1
        assert self.order.tenants.in_flight == counts
        self.order.leases._check_invariants()

    def teardown(self) -> None:
        assert sorted(self.order.take(1_000, self.now, all_known=True)) == sorted(self.ready)

    @staticmethod
    def _pick(seqs: Mapping[int, object], which: int) -> int:
        return sorted(seqs)[which % len(seqs)]


TestAnyOperations = OrderMachine.TestCase
TestAnyOperations.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
