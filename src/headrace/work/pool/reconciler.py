"""Which children there should be, and what to do about those there are: the rules of the worker pool.

  STARTING ──ready──▶ WORKING ──▶ LEAVING       (a child; it may end in each stage)

Theory. A *slot* has one child that works. A reload makes a new *generation*: one child of it is tried in the first slot;
once that works it is the current one, and slot by slot a child of it must work before the old one leaves. If the trial
fails, the old generation stays and nothing else changes. A child that leaves (told to, or by itself: too much memory,
a task that does not end) is replaced at once: it fetches nothing any more.

Pure: time is an argument, decisions are returned as actions, `advance` may be called at any time and as often as wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from headrace.children import CRASH_S, Restarts
from headrace.work.pool.limits import END_MARGIN_S, READY_S


class Stage(Enum):
    """Of a child."""

    STARTING = auto()
    WORKING = auto()
    LEAVING = auto()


STARTING, WORKING, LEAVING = Stage.STARTING, Stage.WORKING, Stage.LEAVING
MOVES: Final[dict[Stage, frozenset[Stage]]] = {
    STARTING: frozenset({WORKING, LEAVING}),
    WORKING: frozenset({LEAVING}),
    LEAVING: frozenset(),
}


@dataclass(slots=True)
class Child:
    """One process."""

    number: int
    slot: int
    generation: int
    since_s: float
    stage: Stage = STARTING
    kill_at_s: float | None = None
    killed: bool = False

    def move(self, stage: Stage, now_s: float) -> None:
        assert stage in MOVES[self.stage], f"{self.stage} cannot become {stage}"
        self.stage = stage
        self.since_s = now_s


@dataclass(frozen=True, slots=True)
class Start:
    number: int
    slot: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell it to finish within the drain, and end."""

    number: int
    drain_s: float


@dataclass(frozen=True, slots=True)
class Kill:
    number: int


@dataclass(frozen=True, slots=True)
class ReloadDone:
    """Every slot has new code."""


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    """The old code goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """There never was a child that worked."""

    reason: str


Action: TypeAlias = Start | Leave | Kill | ReloadDone | ReloadFailed | StartFailed


class WorkerReconciler:
    """The children of one pool. Does no I/O.

    Invariants: a slot has at most one child of a generation that is not leaving; while a new generation is on trial,
    it has one child at most.
    """

    def __init__(self, wanted: int, *, drain_s: float) -> None:
        self.wanted = wanted
        self.drain_s = drain_s
        self.children: dict[int, Child] = {}
        self.current = 1
        self.restarts = 0
        """Children that ended unasked."""
        self.draining = False
        self._trial = 0  # the generation on trial; 0: none
        self._rolling = False  # slots with old code are still to be replaced
        self._proven = False  # a child has worked: from now on nothing that fails ends the pool
        self._deaths = Restarts()
        self._not_before_s = 0.0
        self._last_generation = 1
        self._last_number = 0
        self._told: list[Action] = []

    # What has happened

    def reload(self) -> None:
        """New code; not while another reload is under way."""
        assert not self.reloading, "one reload after another"
        self._last_generation += 1
        self._trial = self._last_generation

    def resize(self, wanted: int) -> None:
        self.wanted = max(1, wanted)

    def drain(self, drain_s: float | None = None) -> None:
        self.draining = True
        self.drain_s = self.drain_s if drain_s is None else drain_s

    def child_working(self, number: int, now_s: float) -> None:
        child = self.children.get(number)
        if child is None or child.stage is not STARTING:
            return
        child.move(WORKING, now_s)
        self._proven = True
        if child.generation == self._trial:
            self.current, self._trial, self._rolling = self._trial, 0, True

    def child_leaving(self, number: int, now_s: float) -> None:
        """It fetches nothing any more, of its own accord, and will end within the drain."""
        child = self.children.get(number)
        if child is not None and child.stage is not LEAVING:
            self._let_go(child, now_s)

    def child_stuck(self, number: int) -> None:
        """It makes no progress: there is nothing to wait for."""
        child = self.children.get(number)
        if child is not None and not child.killed:
            child.killed = True
            self._told.append(Kill(number))

    def child_failed(self, number: int, reason: str) -> None:
        """It could not start, says why, and will exit."""
        child = self.children.get(number)
        if child is None or child.stage is not STARTING:
            return
        if child.generation == self._trial:
            self._drop_trial(reason)
        elif not self._proven and not self.draining:
            self._told.append(StartFailed(reason))

    def child_gone(self, number: int, now_s: float, *, reason: str) -> None:
        child = self.children.pop(number, None)
        if child is None or child.stage is LEAVING or self.draining:
            return
        self.restarts += 1
        if child.generation == self._trial:
            self._drop_trial(reason)
        elif child.stage is STARTING or now_s - child.since_s < CRASH_S:
            self._not_before_s = now_s + self._deaths.crashed(now_s)

    # What to do about it

    @property
    def over(self) -> bool:
        return self.draining and not self.children

    @property
    def reloading(self) -> bool:
        return bool(self._trial) or self._rolling

    @property
    def working(self) -> int:
        return sum(child.stage is WORKING for child in self.children.values())

    def advance(self, now_s: float) -> list[Action]:
        """Everything that is due. Idempotent."""
        if self.draining:
            self._let_go_where(lambda _: True, now_s)
        else:
            self._roll(now_s)
            self._let_go_where(lambda child: child.slot >= self.wanted, now_s)
            self._told.extend(self._start(now_s))
        self._kill_overdue(now_s)
        told, self._told = self._told, []
        return told

    def due_s(self, now_s: float) -> float | None:
        """When `advance` is to be called again, if nothing else happens."""
        times = [
            child.kill_at_s for child in self.children.values() if child.kill_at_s is not None and not child.killed
        ]
        times += [child.since_s + READY_S for child in self.children.values() if child.generation == self._trial]
        if not self.draining and self._not_before_s > now_s:
            times.append(self._not_before_s)
        return min(times, default=None)

    def _start(self, now_s: float) -> Iterator[Action]:
        if self._trial and not any(child.generation == self._trial for child in self.children.values()):
            yield self._new_child(0, self._trial, now_s)
        if now_s < self._not_before_s:
            return
        for slot in range(self.wanted):
            if not any(child.slot == slot and self._counts(child) for child in self.children.values()):
                yield self._new_child(slot, self.current, now_s)

    def _counts(self, child: Child) -> bool:
        return child.stage is not LEAVING and child.generation != self._trial

    def _new_child(self, slot: int, generation: int, now_s: float) -> Start:
        self._last_number += 1
        self.children[self._last_number] = Child(self._last_number, slot, generation, now_s)
        return Start(self._last_number, slot)

    def _roll(self, now_s: float) -> None:
        """Old children leave where a new one works; one new one at a time starts beside an old one."""
        old = {c.slot: c for c in self.children.values() if c.generation < self.current and c.stage is not LEAVING}
        new = {c.slot: c for c in self.children.values() if c.generation == self.current and c.stage is not LEAVING}
        for slot, child in old.items():
            if slot in new and new[slot].stage is WORKING:
                self._let_go(child, now_s)
        waiting = sorted(slot for slot in old if slot not in new and slot < self.wanted)
        starting = any(child.stage is STARTING for child in new.values())
        if self._rolling and waiting and not starting and now_s >= self._not_before_s:
            self._told.append(self._new_child(waiting[0], self.current, now_s))
        if self._rolling and not any(c.generation < self.current for c in self.children.values()):
            self._rolling = False
            self._told.append(ReloadDone())

    def _drop_trial(self, reason: str) -> None:
        for child in self.children.values():
            if child.generation == self._trial:
                self._told.append(Kill(child.number))
                child.killed = True
                child.stage = LEAVING
        self._trial = 0
        self._told.append(ReloadFailed(reason))

    def _let_go_where(self, condition: Callable[[Child], bool], now_s: float) -> None:
        for child in self.children.values():
            if child.stage is not LEAVING and condition(child):
                self._let_go(child, now_s)

    def _let_go(self, child: Child, now_s: float) -> None:
        child.move(LEAVING, now_s)
        child.kill_at_s = now_s + self.drain_s + END_MARGIN_S
        self._told.append(Leave(child.number, self.drain_s))

    def _kill_overdue(self, now_s: float) -> None:
        for child in list(self.children.values()):
            if child.generation == self._trial and now_s - child.since_s >= READY_S:
                self._drop_trial(f"it was not ready after {READY_S:.0f} s")
            elif child.kill_at_s is not None and now_s >= child.kill_at_s and not child.killed:
                child.killed = True
                self._told.append(Kill(child.number))
