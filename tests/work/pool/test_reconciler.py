"""The rules of the pool: which children there should be, walked through deaths, reloads and drains by hand."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.children import BACKOFF_FIRST_S, CALM_S, CRASH_S
from headrace.work.pool.limits import END_MARGIN_S, READY_S
from headrace.work.pool.reconciler import (
    LEAVING,
    STARTING,
    WORKING,
    Action,
    Kill,
    Leave,
    ReloadDone,
    ReloadFailed,
    Start,
    StartFailed,
    WorkerReconciler,
)


class Yard:
    """A fleet whose children do what they are told, at a time moved by hand."""

    def __init__(self, wanted: int, drain_s: float = 5.0) -> None:
        self.fleet = WorkerReconciler(wanted, drain_s=drain_s)
        self.now_s = 1_000.0
        self.told: list[Action] = []

    def step(self) -> list[Action]:
        told = self.fleet.advance(self.now_s)
        self.told += told
        return told

    def work(self) -> None:
        """Every child that starts gets to work, until nothing changes any more."""
        while self.step() or any(child.stage is STARTING for child in self.fleet.children.values()):
            for child in list(self.fleet.children.values()):
                if child.stage is STARTING:
                    self.fleet.child_working(child.number, self.now_s)
                elif child.stage is LEAVING:
                    self.gone(child.number)

    def gone(self, number: int, reason: str = "exit code 0") -> None:
        self.fleet.child_gone(number, self.now_s, reason=reason)

    def working(self) -> list[int]:
        return [child.number for child in self.fleet.children.values() if child.stage is WORKING]


def test_as_many_as_wanted_are_started() -> None:
    yard = Yard(3)
    assert yard.step() == [Start(1, 0), Start(2, 1), Start(3, 2)]
    assert yard.step() == []


def test_child_that_dies_is_replaced_at_once_and_one_that_dies_early_after_a_while() -> None:
    yard = Yard(1)
    yard.work()
    yard.now_s += CRASH_S
    yard.gone(1, "killed by SIGKILL")
    assert yard.step() == [Start(2, 0)]
    yard.fleet.child_working(2, yard.now_s)
    yard.gone(2, "killed by SIGKILL")
    assert yard.step() == []
    due_s = yard.fleet.due_s(yard.now_s)
    assert due_s is not None and due_s > yard.now_s
    yard.now_s = due_s
    assert yard.step() == [Start(3, 0)]
    assert yard.fleet.restarts == 2


def test_early_deaths_that_are_far_apart_do_not_add_up() -> None:
    yard = Yard(1)
    for _ in range(5):
        yard.work()
        (number,) = yard.working()
        yard.gone(number, "killed by SIGKILL")
        assert yard.fleet.due_s(yard.now_s) == yard.now_s + BACKOFF_FIRST_S
        yard.now_s += CALM_S


def test_child_that_leaves_by_itself_is_replaced_before_it_has_ended() -> None:
    yard = Yard(1)
    yard.work()
    yard.fleet.child_leaving(1, yard.now_s)
    assert yard.step() == [Leave(1, 5.0), Start(2, 0)]
    yard.gone(1)
    assert yard.fleet.restarts == 0


def test_child_that_does_not_leave_in_time_is_killed_once() -> None:
    yard = Yard(1)
    yard.work()
    yard.fleet.child_leaving(1, yard.now_s)
    yard.step()
    yard.fleet.child_working(2, yard.now_s)
    yard.now_s += 5.0 + END_MARGIN_S
    assert yard.step() == [Kill(1)]
    assert yard.step() == []


def test_drain_lets_all_go_and_starts_none() -> None:
    yard = Yard(2)
    yard.work()
    yard.fleet.drain()
    assert yard.step() == [Leave(1, 5.0), Leave(2, 5.0)]
    yard.gone(1)
    assert not yard.fleet.over
    yard.gone(2)
    assert yard.step() == []
    assert yard.fleet.over


def test_reload_tries_one_child_and_then_replaces_slot_by_slot() -> None:
    yard = Yard(2)
    yard.work()
    yard.fleet.reload()
    assert yard.step() == [Start(3, 0)]
    yard.fleet.child_working(3, yard.now_s)
    assert yard.step() == [Leave(1, 5.0), Start(4, 1)]
    yard.fleet.child_working(4, yard.now_s)
    assert yard.step() == [Leave(2, 5.0)]
    yard.gone(1)
    yard.gone(2)
    assert yard.step() == [ReloadDone()]
    assert yard.working() == [3, 4]


def test_reload_that_cannot_start_changes_nothing() -> None:
    yard = Yard(2)
    yard.work()
    yard.fleet.reload()
    yard.step()
    yard.fleet.child_failed(3, "no module")
    assert yard.step() == [Kill(3), ReloadFailed("no module")]
    yard.gone(3, "exit code 1")
    assert yard.step() == []
    assert yard.working() == [1, 2]


def test_reload_that_hangs_is_given_up() -> None:
    yard = Yard(1)
    yard.work()
    yard.fleet.reload()
    yard.step()
    assert yard.fleet.due_s(yard.now_s) == yard.now_s + READY_S
    yard.now_s += READY_S
    assert [type(action) for action in yard.step()] == [Kill, ReloadFailed]


def test_pool_that_never_worked_says_why() -> None:
    yard = Yard(1)
    yard.step()
    yard.fleet.child_failed(1, "no module")
    assert yard.step() == [StartFailed("no module")]


def test_slots_that_are_too_many_are_let_go() -> None:
    yard = Yard(2)
    yard.work()
    yard.fleet.resize(1)
    assert yard.step() == [Leave(2, 5.0)]
    yard.fleet.resize(0)
    assert yard.step() == []


def test_hung_child_is_killed_and_replaced() -> None:
    yard = Yard(1)
    yard.work()
    yard.now_s += 100
    yard.fleet.child_stuck(1)
    yard.fleet.child_stuck(1)
    assert yard.step() == [Kill(1)]
    yard.gone(1, "killed by SIGKILL")
    assert yard.step() == [Start(2, 0)]


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: a slot has one child that works on, and a calm pool is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.yard = Yard(2)
        self.yard.step()

    def _some(self, place: int) -> int:
        numbers = sorted(self.yard.fleet.children)
        return numbers[place % len(numbers)] if numbers else 0

    @rule(place=st.integers(0, 9))
    def child_works(self, place: int) -> None:
        self.yard.fleet.child_working(self._some(place), self.yard.now_s)
        self.yard.step()

    @rule(place=st.integers(0, 9))
    def child_dies(self, place: int) -> None:
        self.yard.gone(self._some(place), "killed by SIGKILL")
        self.yard.step()

    @rule(place=st.integers(0, 9))
    def child_leaves(self, place: int) -> None:
        self.yard.fleet.child_leaving(self._some(place), self.yard.now_s)
        self.yard.step()

    @rule(place=st.integers(0, 9))
    def child_fails(self, place: int) -> None:
        self.yard.fleet.child_failed(self._some(place), "it cannot")
        self.yard.step()

    @precondition(lambda self: not self.yard.fleet.reloading)
    @rule()
    def code_changes(self) -> None:
        self.yard.fleet.reload()
        self.yard.step()

    @rule(wanted=st.integers(1, 4))
    def pool_is_resized(self, wanted: int) -> None:
        self.yard.fleet.resize(wanted)
        self.yard.step()

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.yard.now_s += seconds
        self.yard.step()

    @invariant()
    def one_child_of_a_generation_in_a_slot(self) -> None:
        living = [child for child in self.yard.fleet.children.values() if child.stage is not LEAVING]
        places = [(child.slot, child.generation) for child in living]
        assert len(places) == len(set(places))

    def teardown(self) -> None:
        for _ in range(5):
            self.yard.now_s += 1_000
            self.yard.work()
        slots = sorted(self.yard.fleet.children[number].slot for number in self.yard.working())
        assert slots == list(range(self.yard.fleet.wanted))


TestAnyOrder = AnyOrder.TestCase
