from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.children import BACKOFF_MAX_S, CALM_S, CRASH_S
from headrace.web.server import reconciler
from headrace.web.server.reconciler import (
    HUNG_GRACE_S,
    KILL_AFTER_S,
    LEAVING,
    READY,
    RELOAD_WAIT_S,
    SERVING,
    STARTING,
    ForkWorker,
    KillForkServer,
    KillWorker,
    LeaveWorker,
    ReloadDone,
    ReloadFailed,
    ServeWorker,
    StartFailed,
    StartForkServer,
    StopForkServer,
    WorkerReconciler,
)


class Yard:
    """A reconciler, and processes that do at once what they are told, unless a test wants otherwise."""

    def __init__(self, wanted: int = 2) -> None:
        self.reconciler = WorkerReconciler(wanted, drain_s=25)
        self.now_s = 1_000.0
        self.pids: dict[int, int] = {}

    def reconcile(self) -> list[reconciler.Action]:
        return self.reconciler.advance(self.now_s)

    def connect(self, worker: int) -> None:
        assert self.reconciler.worker_connected(worker, 100 + worker)

    def run(self, *, without: tuple[type, ...] = ()) -> list[reconciler.Action]:
        """Obey until nothing is left to do; actions of the kinds `without` are not obeyed."""
        pending: list[reconciler.Action] = []
        while actions := self.reconcile():
            pending += actions
            for action in actions:
                if not isinstance(action, without):
                    self.obey(action)
        return pending

    def obey(self, action: reconciler.Action) -> None:
        match action:
            case StartForkServer(generation):
                self.reconciler.fork_server_ready(generation)
            case ForkWorker(_, worker, _) if worker in self.reconciler.workers:
                self.connect(worker)
                self.reconciler.worker_ready(worker, self.now_s)
            case ServeWorker(worker):
                self.reconciler.worker_serving(worker, self.now_s)
            case LeaveWorker(worker, _) | KillWorker(worker):
                self.reconciler.worker_gone(worker, self.now_s, reason="pending")
            case _:
                pass

    def stages(self, generation: int) -> list[reconciler.Stage]:
        return [worker.stage for worker in self.reconciler.workers.values() if worker.generation == generation]


def of(kind: type, actions: list[reconciler.Action]) -> list[reconciler.Action]:
    return [action for action in actions if isinstance(action, kind)]


@pytest.fixture
def yard() -> Yard:
    yard = Yard()
    yard.run()
    return yard


def test_start_imports_once_and_forks_a_worker_for_each_slot() -> None:
    yard = Yard(3)
    assert yard.reconcile() == [StartForkServer(1)]
    assert yard.reconcile() == []
    yard.reconciler.fork_server_ready(1)
    assert yard.reconcile() == [ForkWorker(1, 1, 0), ForkWorker(1, 2, 1), ForkWorker(1, 3, 2)]
    yard.connect(2)
    yard.reconciler.worker_ready(2, yard.now_s)
    assert yard.reconcile() == [ServeWorker(2)]
    assert yard.reconcile() == []


def test_first_import_that_fails_ends_the_start() -> None:
    yard = Yard()
    yard.reconcile()
    yard.reconciler.fork_server_gone(1, "no module shop", yard.now_s)
    assert yard.reconcile() == [StartFailed("no module shop")]


def test_first_startup_that_fails_ends_the_start() -> None:
    yard = Yard()
    yard.run(without=(ForkWorker,))
    yard.reconciler.worker_failed(1, "no database", yard.now_s)
    assert StartFailed("no database") in yard.reconcile()


def test_worker_killed_after_a_while_is_replaced_at_once(yard: Yard) -> None:
    yard.now_s += CRASH_S
    yard.reconciler.worker_gone(1, yard.now_s, reason="killed")
    assert of(ForkWorker, yard.reconcile()) == [ForkWorker(1, 3, 0)]
    assert yard.reconciler.restarts == 1


def test_crash_loop_backs_off_up_to_the_maximum_and_calms_down(yard: Yard) -> None:
    delays = []
    for _ in range(12):
        number = max(yard.reconciler.workers)
        yard.reconciler.worker_gone(number, yard.now_s, reason="crash")
        assert of(ForkWorker, yard.reconcile()) == []
        due_s = yard.reconciler.due_s(yard.now_s)
        assert due_s is not None
        delays.append(round(due_s - yard.now_s, 3))
        yard.now_s = due_s
        assert len(of(ForkWorker, yard.run())) == 1
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == BACKOFF_MAX_S
    yard.now_s += CALM_S
    yard.reconciler.worker_gone(1, yard.now_s, reason="killed")
    assert len(of(ForkWorker, yard.run())) == 1


def test_reload_serves_with_new_code_only_when_all_new_workers_are_ready(yard: Yard) -> None:
    yard.reconciler.reload()
    assert yard.reconcile() == [StartForkServer(2)]
    yard.reconciler.fork_server_ready(2)
    assert yard.reconcile() == [ForkWorker(2, 3, 0), ForkWorker(2, 4, 1)]
    for number in (3, 4):
        yard.connect(number)
    yard.reconciler.worker_ready(3, yard.now_s)
    assert yard.reconcile() == []
    assert yard.stages(1) == [SERVING, SERVING]
    yard.reconciler.worker_ready(4, yard.now_s)
    assert yard.reconcile() == [ServeWorker(3), ServeWorker(4)]
    yard.reconciler.worker_serving(3, yard.now_s)
    assert yard.reconcile() == []
    yard.reconciler.worker_serving(4, yard.now_s)
    pending = yard.reconcile()
    assert of(LeaveWorker, pending) == [LeaveWorker(1, 25), LeaveWorker(2, 25)]
    assert of(ReloadDone, pending) == [ReloadDone(2)]
    for number in (1, 2):
        yard.reconciler.worker_gone(number, yard.now_s, reason="left")
    assert yard.reconcile() == [StopForkServer(1)]
    assert yard.reconciler.restarts == 0


def test_reload_waits_as_long_as_the_import_takes(yard: Yard) -> None:
    yard.reconciler.reload()
    yard.reconcile()
    yard.now_s += 3_600
    assert yard.reconcile() == []
    assert yard.reconciler.reloading


@pytest.mark.parametrize("stage", ["import", "startup"])
def test_reload_that_hangs_is_given_up_when_the_next_one_waits_for_it(yard: Yard, stage: str) -> None:
    yard.reconciler.reload()
    yard.run(without=(StartForkServer,) if stage == "import" else (ForkWorker,))
    yard.reconciler.limit_reload_wait()
    due_s = yard.reconciler.due_s(yard.now_s)
    assert due_s == yard.now_s + RELOAD_WAIT_S
    assert yard.reconcile() == []
    yard.now_s = due_s
    pending = yard.run(without=(LeaveWorker,))
    assert len(of(ReloadFailed, pending)) == 1 and not yard.reconciler.reloading
    assert of(KillForkServer, pending) == ([KillForkServer(2)] if stage == "import" else [])
    assert yard.stages(1) == [SERVING, SERVING]
    yard.reconciler.limit_reload_wait()
    assert not yard.reconciler._reload_wait_limited, "nothing is under way"


def test_drain_kills_a_fork_server_that_imports_still(yard: Yard) -> None:
    yard.reconciler.reload()
    yard.reconcile()
    yard.reconciler.limit_reload_wait()
    yard.reconciler.drain()
    assert KillForkServer(2) in yard.reconcile()
    assert yard.reconciler.due_s(yard.now_s) == yard.now_s + 25 + KILL_AFTER_S


def test_reconciler_that_was_drained_can_begin_anew(yard: Yard) -> None:
    yard.reconciler.drain()
    yard.run()
    assert yard.reconciler.finished
    yard.reconciler.resume()
    pending = yard.run()
    assert of(StartForkServer, pending) == [StartForkServer(2)]
    assert yard.stages(2) == [SERVING, SERVING] and not yard.reconciler.finished


def test_app_that_hangs_at_its_first_start_is_given_up_when_a_reload_waits_for_it() -> None:
    yard = Yard()
    yard.reconcile()
    yard.reconciler.limit_reload_wait()
    yard.now_s += RELOAD_WAIT_S
    assert len(of(StartFailed, yard.reconcile())) == 1


@pytest.mark.parametrize("how", ["import", "startup", "killed"])
def test_reload_that_fails_leaves_the_old_generation_serving(yard: Yard, how: str) -> None:
    yard.reconciler.reload()
    if how == "import":
        yard.reconcile()
        yard.reconciler.fork_server_gone(2, "broken", yard.now_s)
    else:
        yard.run(without=(ForkWorker,))
        yard.connect(3)
        if how == "startup":
            yard.reconciler.worker_failed(3, "broken", yard.now_s)
        else:
            yard.reconciler.worker_gone(3, yard.now_s, reason="broken")
    pending = yard.run()
    assert of(ReloadFailed, pending) == [ReloadFailed(2, "broken")]
    assert yard.stages(1) == [SERVING, SERVING]
    assert yard.stages(2) == []
    assert not yard.reconciler.reloading
    assert (yard.reconciler.current, yard.reconciler.reloads, yard.reconciler.reloads_failed) == (1, 0, 1)


def test_reloads_during_a_reload_are_one_that_follows(yard: Yard) -> None:
    for _ in range(3):
        yard.reconciler.reload()
    pending = yard.run()
    assert of(StartForkServer, pending) == [StartForkServer(2), StartForkServer(3)]
    assert of(ReloadDone, pending) == [ReloadDone(2), ReloadDone(3)]
    assert yard.stages(3) == [SERVING, SERVING]


def test_a_worker_that_dies_while_old_code_is_still_needed_is_replaced_by_old_code(yard: Yard) -> None:
    yard.now_s += CRASH_S
    yard.reconciler.reload()
    yard.reconcile()
    yard.reconciler.worker_gone(2, yard.now_s, reason="killed")
    assert of(ForkWorker, yard.reconcile()) == [ForkWorker(1, 3, 1)]


def test_a_fork_server_that_dies_is_replaced_with_its_workers(yard: Yard) -> None:
    yard.reconciler.fork_server_gone(1, "killed", yard.now_s)
    pending = yard.run()
    assert of(StartForkServer, pending) == [StartForkServer(2)]
    assert of(StopForkServer, pending) == []
    assert of(ReloadDone, pending) == [ReloadDone(2)]
    assert yard.stages(2) == [SERVING, SERVING]


def test_a_fork_server_that_dies_within_its_reload_is_replaced_as_soon_as_that_has_come_to_its_end(yard: Yard) -> None:
    """All of the older generation die as well, so that their replacement waits; then nothing more happens."""
    yard.reconciler.reload()
    yard.run(without=(ServeWorker,))
    for number in (1, 2):
        yard.reconciler.worker_gone(number, yard.now_s, reason="killed")
    yard.reconciler.fork_server_gone(2, "killed", yard.now_s)
    assert of(StartForkServer, yard.reconcile()) == []
    yard.reconciler.worker_serving(3, yard.now_s)
    assert yard.reconcile() == []
    yard.reconciler.worker_serving(4, yard.now_s)
    assert {ReloadDone(2), StartForkServer(3)} <= set(yard.reconcile())


def test_a_dead_fork_server_whose_code_is_broken_now_is_tried_again_later(yard: Yard) -> None:
    yard.reconciler.fork_server_gone(1, "killed", yard.now_s)
    assert of(StartForkServer, yard.reconcile()) == [StartForkServer(2)]
    yard.reconciler.fork_server_gone(2, "broken", yard.now_s)
    assert of(StartForkServer, yard.reconcile()) == []
    assert yard.stages(1) == [SERVING, SERVING]
    due_s = yard.reconciler.due_s(yard.now_s)
    assert due_s is not None
    yard.now_s = due_s
    assert of(StartForkServer, yard.run()) == [StartForkServer(3)]
    assert yard.stages(3) == [SERVING, SERVING]


def test_a_worker_forked_by_a_fork_server_that_died_before_it_connected_is_forgotten(yard: Yard) -> None:
    yard.now_s += CRASH_S
    yard.reconciler.worker_gone(1, yard.now_s, reason="killed")
    assert of(ForkWorker, yard.reconcile()) == [ForkWorker(1, 3, 0)]
    yard.reconciler.fork_server_gone(1, "killed", yard.now_s)
    assert not yard.reconciler.worker_connected(3, 103)


def test_a_worker_that_retires_serves_until_its_replacement_does(yard: Yard) -> None:
    yard.reconciler.retire(1)
    assert yard.reconcile() == [ForkWorker(1, 3, 0)]
    assert yard.reconciler.workers[1].stage is SERVING
    yard.connect(3)
    yard.reconciler.worker_ready(3, yard.now_s)
    yard.reconcile()
    yard.reconciler.worker_serving(3, yard.now_s)
    assert yard.reconcile() == [LeaveWorker(1, 25)]
    yard.reconciler.worker_gone(1, yard.now_s, reason="left")
    assert yard.reconcile() == []
    assert (yard.reconciler.recycled, yard.reconciler.restarts) == (1, 0)


def test_a_hung_worker_is_replaced_at_once_and_killed_soon(yard: Yard) -> None:
    yard.reconciler.mark_hung(101, yard.now_s)
    pending = yard.run(without=(LeaveWorker, KillWorker))
    assert of(LeaveWorker, pending) == [LeaveWorker(1, HUNG_GRACE_S)]
    assert of(ForkWorker, pending) == [ForkWorker(1, 3, 0)]
    assert yard.reconciler.due_s(yard.now_s) == yard.now_s + HUNG_GRACE_S
    yard.now_s += HUNG_GRACE_S
    assert yard.reconcile() == [KillWorker(1)]
    assert yard.reconcile() == []


def test_a_worker_whose_loop_goes_on_may_finish_its_other_requests(yard: Yard) -> None:
    for number, last_report_s in ((1, 0.5), (2, reconciler.REPORT_TIMEOUT_S)):
        worker = yard.reconciler.workers[number]
        worker.concurrent, worker.last_report_s = True, yard.now_s - last_report_s
        yard.reconciler.mark_hung(worker.pid, yard.now_s)
    assert of(LeaveWorker, yard.reconcile()) == [LeaveWorker(1, 25), LeaveWorker(2, HUNG_GRACE_S)]


def test_fewer_workers_let_the_last_slots_go_and_more_fill_them(yard: Yard) -> None:
    yard.reconciler.resize(1)
    assert of(LeaveWorker, yard.run()) == [LeaveWorker(2, 25)]
    yard.reconciler.resize(0)
    assert yard.reconciler.wanted == 1
    yard.reconciler.resize(3)
    assert len(of(ForkWorker, yard.run())) == 2


def test_drain_lets_all_leave_kills_who_stays_and_stops_the_fork_server(yard: Yard) -> None:
    yard.reconciler.drain()
    pending = yard.run(without=(LeaveWorker, KillWorker))
    assert pending == [LeaveWorker(1, 25), LeaveWorker(2, 25), StopForkServer(1)]
    yard.reconciler.worker_gone(1, yard.now_s, reason="left")
    assert not yard.reconciler.finished
    yard.now_s += 25 + KILL_AFTER_S
    assert yard.reconcile() == [KillWorker(2)]
    yard.reconciler.worker_gone(2, yard.now_s, reason="killed")
    assert yard.reconciler.finished
    assert yard.reconcile() == []


def test_moves_name_every_stage() -> None:
    assert set(reconciler.MOVES) == set(reconciler.Stage)
    assert reconciler.MOVES[LEAVING] == frozenset()
    assert STARTING not in set().union(*reconciler.MOVES.values())


class FleetMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: the invariants hold, and when all goes well again, all slots are served."""

    def __init__(self) -> None:
        super().__init__()
        self.yard = Yard(2)
        self.yard.run()
        self.open: list[reconciler.Action] = []

    def _step(self) -> None:
        for action in self.yard.reconcile():
            assert not isinstance(action, StartFailed)
            if isinstance(action, StopForkServer):
                assert not self.yard.stages(action.generation)
            self.open.append(action)
        assert self.yard.reconcile() == [], "nobody would ask for what is left"

    def _pick(self, index: int) -> None:
        if self.open:
            self.yard.obey(self.open.pop(index % len(self.open)))

    @rule()
    def reload(self) -> None:
        self.yard.reconciler.reload()
        self._step()

    @rule(index=st.integers(0, 50))
    def obey(self, index: int) -> None:
        self._pick(index)
        self._step()

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 5.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.yard.now_s += seconds
        self._step()

    @precondition(lambda self: self.yard.reconciler.workers)
    @rule(index=st.integers(0, 50), what=st.sampled_from(["gone", "failed", "retire", "mark_hung"]))
    def trouble(self, index: int, what: str) -> None:
        found = self.yard.reconciler
        number = list(found.workers)[index % len(found.workers)]
        react: dict[str, Callable[[], None]] = {
            "gone": lambda: found.worker_gone(number, self.yard.now_s, reason="x"),
            "failed": lambda: found.worker_failed(number, "x", self.yard.now_s),
            "retire": lambda: found.retire(number),
            "mark_hung": lambda: found.mark_hung(found.workers[number].pid, self.yard.now_s),
        }
        if self.yard.reconciler.workers[number].pid or what == "retire":
            react[what]()
        self._step()

    @rule(newest=st.booleans())
    def kill_fork_server(self, newest: bool) -> None:
        found = self.yard.reconciler
        generation = found.candidate if newest and found.candidate else found.current
        self.open = [
            a for a in self.open if not (isinstance(a, StartForkServer | ForkWorker) and a.generation == generation)
        ]
        if generation in found.generations:
            found.fork_server_gone(generation, "killed", self.yard.now_s)
        self._step()

    @rule(wanted=st.integers(1, 4))
    def resize(self, wanted: int) -> None:
        self.yard.reconciler.resize(wanted)
        self._step()

    @invariant()
    def holds(self) -> None:
        found = self.yard.reconciler
        held = [(w.generation, w.index) for w in found.workers.values() if w.stage is not LEAVING and not w.retiring]
        assert len(held) == len(set(held))
        assert not [w for w in found.workers.values() if found.candidate == w.generation and w.stage is SERVING]
        assert found.candidate != found.current

    def teardown(self) -> None:
        found = self.yard.reconciler
        for _ in range(60):
            while self.open:
                self._pick(0)
                self._step()
            if (due_s := found.due_s(self.yard.now_s)) is None:
                break
            self.yard.now_s = max(self.yard.now_s, due_s)
            self._step()
        serving = {w.index for w in found.workers.values() if w.stage is SERVING and w.generation == found.current}
        assert serving == set(range(found.wanted))
        assert not found.reloading
        assert len(found.workers) == found.wanted
        assert set(found.generations) == {found.current}


FleetMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestFleetMachine = FleetMachine.TestCase


def test_ready_workers_of_a_dropped_generation_never_serve(yard: Yard) -> None:
    yard.reconciler.reload()
    yard.run(without=(ForkWorker,))
    for number in (3, 4):
        yard.connect(number)
    yard.reconciler.worker_ready(3, yard.now_s)
    yard.reconciler.worker_failed(4, "broken", yard.now_s)
    assert of(ServeWorker, yard.run()) == []
    assert READY not in yard.stages(2)
