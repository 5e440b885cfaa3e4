"""Decides which worker processes of an app should exist, and which actions lead there.

Theory. A *generation* is the app's code as one fork server has imported it. Normally one generation is *current*, and each
worker index has a worker of it. A reload creates a *candidate*: all its workers must be READY before it becomes current; only
then do they take requests, and the workers of older generations leave as soon as the new ones serve. A candidate that fails is
dropped, and nothing else changes. A fork server that dies cannot fork any more, so it is replaced by a reload, too.

  STARTING ──ready──▶ READY ──serve──▶ SERVING ──▶ LEAVING       (a worker; it may end in each stage)

Pure: time is an argument, decisions are returned as actions, `advance` may be called at any time and as often as wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from headrace.children import CRASH_S, Restarts

REPORT_TIMEOUT_S: Final = 3.0
"""A worker on a loop reports each second; one that has not for so long has a loop that is stuck."""
HUNG_GRACE_S: Final = 2.0
"""What the other requests of a worker get to finish before it is killed because one of them hangs."""
RELOAD_WAIT_S: Final = 30.0
"""New code that is not ready by then is given up, if the next reload waits for it: an import may hang for ever."""
KILL_AFTER_S: Final = 11.0
"""Beyond its grace: the worker should have ended itself; 10 s are for its lifespan to shut down."""


class Stage(Enum):
    """The stage of a worker's life."""

    STARTING = auto()
    READY = auto()
    SERVING = auto()
    LEAVING = auto()


STARTING, READY, SERVING, LEAVING = Stage.STARTING, Stage.READY, Stage.SERVING, Stage.LEAVING
MOVES: Final[dict[Stage, frozenset[Stage]]] = {
    STARTING: frozenset({READY, LEAVING}),
    READY: frozenset({SERVING, LEAVING}),
    SERVING: frozenset({LEAVING}),
    LEAVING: frozenset(),
}


@dataclass(slots=True)
class ManagedWorker:
    """One worker process. `pid` is 0 until it has connected."""

    number: int
    index: int
    generation: int
    since_s: float
    stage: Stage = STARTING
    pid: int = 0
    serve_sent: bool = False
    """Serve was sent to it."""
    retiring: bool = False
    """Leaves as soon as another worker with its index serves."""
    kill_at_s: float | None = None
    concurrent: bool = False
    """Runs its requests concurrently on an event loop: one that hangs does not block the others."""
    last_report_s: float = 0.0
    """When its last report came."""
    requests: int = 0
    in_flight: int = 0
    rss_bytes: int = 0

    def move(self, stage: Stage, now_s: float) -> None:
        assert stage in MOVES[self.stage], f"{self.stage} cannot become {stage}"
        self.stage = stage
        self.since_s = now_s


class ForkServerState(Enum):
    """The state of a generation's fork server."""

    IMPORTING = auto()
    READY = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class StartForkServer:
    generation: int


@dataclass(frozen=True, slots=True)
class StopForkServer:
    generation: int


@dataclass(frozen=True, slots=True)
class KillForkServer:
    """It is still importing: it reads no messages, and has no workers."""

    generation: int


@dataclass(frozen=True, slots=True)
class ForkWorker:
    generation: int
    worker: int
    index: int


@dataclass(frozen=True, slots=True)
class ServeWorker:
    worker: int


@dataclass(frozen=True, slots=True)
class LeaveWorker:
    worker: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class KillWorker:
    worker: int


@dataclass(frozen=True, slots=True)
class ReloadDone:
    """The new generation serves."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    """The old generation goes on."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """There never was a generation that worked."""

    reason: str


Action: TypeAlias = (
    StartForkServer
    | StopForkServer
    | KillForkServer
    | ForkWorker
    | ServeWorker
    | LeaveWorker
    | KillWorker
    | ReloadDone
    | ReloadFailed
    | StartFailed
)


class WorkerReconciler:
    """The workers of one app. Does no I/O, and does not know of connections or files.

    Invariants: an index has at most one worker of a generation that is neither retiring nor leaving; at most one
    candidate; no worker of a candidate serves.
    """

    def __init__(self, wanted: int, *, drain_s: float) -> None:
        self.wanted = wanted
        self.drain_s = drain_s
        self.workers: dict[int, ManagedWorker] = {}
        self.generations: dict[int, ForkServerState] = {}
        self.current = 0
        self.candidate = 0
        """0: none."""
        self.restarts = 0
        """Workers that died without being stopped."""
        self.recycled = 0
        """Workers that asked to be replaced."""
        self.reloads = 0
        self.reloads_failed = 0
        self.draining = False
        self._has_served = False  # a worker has served: from now on nothing that fails ends the server
        self._finishing_reload = False  # promoted; the older generations still serve
        self._queued = False
        self._reload_wait_limited = False  # a reload waits for this one
        self._fork_server_started_s = 0.0  # when the newest fork server was started
        self._restart_backoff = Restarts()
        self._not_before_s = 0.0
        self._last_generation = 0
        self._last_worker = 0
        self._pending: list[Action] = []

    # Events

    def reload(self) -> None:
        """New code. While a reload is under way, another one follows it; more of them are the same one."""
        if self.candidate or self._finishing_reload or not self.current:
            self._queued = True
        else:
            self.candidate = self._new_generation()

    def limit_reload_wait(self) -> None:
        """The next reload waits until this one has come to its end."""
        self._reload_wait_limited = not self.draining and (self.reloading or not self._has_served)

    def resize(self, wanted: int) -> None:
        self.wanted = max(1, wanted)

    def drain(self) -> None:
        self.draining = True

    def resume(self) -> None:
        """Start again after a drain, as at the beginning."""
        self.draining = False
        self.current = self.candidate = 0
        self._finishing_reload = self._queued = self._has_served = False

    def fork_server_ready(self, generation: int) -> None:
        if self.generations.get(generation) is ForkServerState.IMPORTING:
            self.generations[generation] = ForkServerState.READY

    def fork_server_gone(self, generation: int, reason: str, now_s: float) -> None:
        """The import has failed, or the process has died."""
        self.generations[generation] = ForkServerState.GONE
        if generation == self.candidate:
            self._drop_candidate(reason, now_s)
        elif generation == self.current and not self._has_served:
            self._pending.append(StartFailed(reason))
        for worker in self._workers_of(generation):
            if not worker.pid:  # its end will not be reported
                del self.workers[worker.number]

    def worker_connected(self, number: int, pid: int) -> bool:
        """Whether the worker is known; an unknown one must leave."""
        worker = self.workers.get(number)
        if worker is None:
            return False
        worker.pid = pid
        return True

    def worker_ready(self, number: int, now_s: float) -> None:
        worker = self.workers.get(number)
        if worker is not None and worker.stage is STARTING:
            worker.move(READY, now_s)

    def worker_serving(self, number: int, now_s: float) -> None:
        worker = self.workers.get(number)
        if worker is not None and worker.stage is READY:
            worker.move(SERVING, now_s)
            self._has_served = True

    def worker_failed(self, number: int, reason: str, now_s: float) -> None:
        """The worker reports that it could not start; it will exit."""
        worker = self.workers.get(number)
        if worker is None or worker.stage is not STARTING:
            return
        if worker.generation == self.candidate:
            self._drop_candidate(reason, now_s)
        elif not self._has_served:
            self._pending.append(StartFailed(reason))

    def worker_gone(self, number: int, now_s: float, *, reason: str) -> None:
        worker = self.workers.pop(number, None)
        if worker is None or worker.stage is LEAVING or self.draining:
            return
        if worker.generation == self.candidate:
            self._drop_candidate(reason, now_s)
            return
        self.restarts += 1
        if worker.stage is not SERVING or now_s - worker.since_s < CRASH_S:
            self._not_before_s = now_s + self._restart_backoff.crashed(now_s)

    def retire(self, number: int) -> None:
        """The worker asked to be replaced; it serves until its replacement does."""
        worker = self.workers.get(number)
        if worker is not None:
            self.recycled += not worker.retiring
            worker.retiring = True

    def mark_hung(self, pid: int, now_s: float) -> None:
        """One of its requests does not end: another worker takes its place now, and it is killed soon; unless its other
        requests go on undisturbed: then they get the time of a drain."""
        worker = next((worker for worker in self.workers.values() if worker.pid == pid), None)
        if worker is None or worker.stage is not SERVING:
            return
        self.restarts += 1
        if worker.concurrent and now_s - worker.last_report_s < REPORT_TIMEOUT_S:
            self._leave(worker, now_s, self.drain_s)
        else:
            self._leave(worker, now_s, HUNG_GRACE_S, kill_after_s=0.0)

    # Actions

    def advance(self, now_s: float) -> list[Action]:
        """Return the actions that are due. Idempotent until an event occurs or `due_s` is reached."""
        pending, self._pending = self._pending, []
        if self.draining:
            return [
                *pending,
                *self._take_pending(),
                *self._drain(now_s),
                *self._kill(now_s),
                *self._stop_fork_servers(),
            ]
        self._give_up_stuck_reload(now_s)
        self._promote()
        serves = list(self._start_serving())
        self._retire_workers(now_s)
        self._finish_reload(now_s)
        # Last: a reload that has come to its end lets the next one begin, and no other event would trigger it.
        self._start_generation(now_s)
        starts = [*self._start_fork_servers(now_s), *self._fork_missing_workers(now_s)]
        return [*pending, *starts, *serves, *self._take_pending(), *self._kill(now_s), *self._stop_fork_servers()]

    def due_s(self, now_s: float) -> float | None:
        """When `advance` is due without another event; None: never."""
        times = [worker.kill_at_s for worker in self.workers.values() if worker.kill_at_s is not None]
        if self._not_before_s > now_s:
            times.append(self._not_before_s)
        if self._reload_wait_limited and not self.draining:
            times.append(self._fork_server_started_s + RELOAD_WAIT_S)
        return min(times, default=None)

    @property
    def reloading(self) -> bool:
        return bool(self.candidate) or self._finishing_reload or self._queued

    @property
    def serving(self) -> int:
        return sum(worker.stage is SERVING for worker in self.workers.values())

    @property
    def finished(self) -> bool:
        """Whether the drain has come to its end."""
        return self.draining and not self.workers

    # Inside

    def _new_generation(self) -> int:
        self._last_generation += 1
        return self._last_generation

    def _workers_of(self, generation: int) -> list[ManagedWorker]:
        return [worker for worker in self.workers.values() if worker.generation == generation]

    def _active_by_index(self, generation: int) -> dict[int, ManagedWorker]:
        """By index: the worker that has it and should keep it."""
        return {
            worker.index: worker
            for worker in self.workers.values()
            if worker.generation == generation and worker.stage is not LEAVING and not worker.retiring
        }

    def _start_generation(self, now_s: float) -> None:
        """The first generation; one that was asked for meanwhile; one in place of a dead fork server's."""
        if not self.current:
            self.current = self._new_generation()
            return
        if self.candidate:
            return
        dead = (
            self.generations.get(self.current) is ForkServerState.GONE
            and self._has_served
            and now_s >= self._not_before_s
        )
        if dead or (self._queued and not self._finishing_reload):
            self._queued = False
            self.candidate = self._new_generation()

    def _give_up_stuck_reload(self, now_s: float) -> None:
        if not self._reload_wait_limited or now_s < self._fork_server_started_s + RELOAD_WAIT_S:
            return
        self._reload_wait_limited = False
        reason = f"it was not ready within {RELOAD_WAIT_S:g} s, and another reload is waiting"
        if self.candidate:
            self._drop_candidate(reason, now_s)
        elif not self._has_served:
            self._pending.append(StartFailed(reason))

    def _start_fork_servers(self, now_s: float) -> Iterator[Action]:
        for generation in (self.current, self.candidate):
            if generation and generation not in self.generations:
                self.generations[generation] = ForkServerState.IMPORTING
                self._fork_server_started_s = now_s
                self._reload_wait_limited = False
                yield StartForkServer(generation)

    def _fork_missing_workers(self, now_s: float) -> Iterator[Action]:
        for generation in (self.current, self.candidate):
            if self.generations.get(generation) is not ForkServerState.READY:
                continue
            if generation == self.current and now_s < self._not_before_s:
                continue
            active = self._active_by_index(generation)
            for index in range(self.wanted):
                if index not in active:
                    self._last_worker += 1
                    self.workers[self._last_worker] = ManagedWorker(self._last_worker, index, generation, now_s)
                    yield ForkWorker(generation, self._last_worker, index)

    def _promote(self) -> None:
        active = self._active_by_index(self.candidate) if self.candidate else {}
        ready = sum(worker.stage is READY for worker in active.values())
        if self.candidate and ready >= self.wanted:
            self.current, self.candidate = self.candidate, 0
            self._finishing_reload = True

    def _start_serving(self) -> Iterator[Action]:
        for worker in self._workers_of(self.current):
            if worker.stage is READY and not worker.serve_sent:
                worker.serve_sent = True
                yield ServeWorker(worker.number)

    def _retire_workers(self, now_s: float) -> None:
        """Stop workers that are superseded: by a replacement, by a new generation, or since fewer are wanted."""
        serving = {index for index, worker in self._active_by_index(self.current).items() if worker.stage is SERVING}
        complete = len([index for index in serving if index < self.wanted]) >= self.wanted
        for worker in list(self.workers.values()):
            if worker.stage is LEAVING:
                continue
            if worker.generation in (self.current, self.candidate):
                gone = worker.index >= self.wanted or (worker.retiring and worker.index in serving)
            else:
                gone = complete or worker.stage is not SERVING
            if gone:
                self._leave(worker, now_s, self.drain_s)

    def _finish_reload(self, now_s: float) -> None:
        if self._finishing_reload and not any(
            worker.stage is not LEAVING for worker in self.workers.values() if worker.generation != self.current
        ):
            complete = (
                sum(worker.stage is SERVING for worker in self._active_by_index(self.current).values()) >= self.wanted
            )
            if complete:
                self._finishing_reload = False
                self.reloads += 1
                self._pending.append(ReloadDone(self.current))
                self._not_before_s = min(self._not_before_s, now_s)

    def _leave(
        self, worker: ManagedWorker, now_s: float, grace_s: float, *, kill_after_s: float = KILL_AFTER_S
    ) -> None:
        worker.move(LEAVING, now_s)
        worker.kill_at_s = now_s + grace_s + kill_after_s
        self._pending.append(LeaveWorker(worker.number, grace_s))

    def _drain(self, now_s: float) -> list[Action]:
        for worker in self.workers.values():
            if worker.stage is not LEAVING:
                self._leave(worker, now_s, self.drain_s)
        return self._take_pending()

    def _kill(self, now_s: float) -> Iterator[Action]:
        for worker in self.workers.values():
            if worker.kill_at_s is not None and now_s >= worker.kill_at_s:
                worker.kill_at_s = now_s + KILL_AFTER_S  # again, if it should still be there
                yield KillWorker(worker.number)

    def _stop_fork_servers(self) -> Iterator[Action]:
        for generation, fork_server in list(self.generations.items()):
            # In a drain at once: it holds the listening sockets of direct mode, and ends after its last worker anyway.
            wanted = generation in (self.current, self.candidate) or self._workers_of(generation)
            if wanted and not self.draining:
                continue
            del self.generations[generation]
            if fork_server is not ForkServerState.GONE:
                yield StopForkServer(generation) if fork_server is ForkServerState.READY else KillForkServer(generation)

    def _take_pending(self) -> list[Action]:
        pending, self._pending = self._pending, []
        return pending

    def _drop_candidate(self, reason: str, now_s: float) -> None:
        failed, self.candidate = self.candidate, 0
        for worker in self._workers_of(failed):
            if worker.stage is not LEAVING:
                self._leave(worker, now_s, 0.0)
        if self.generations.get(self.current) is ForkServerState.GONE:
            self._not_before_s = now_s + self._restart_backoff.crashed(now_s)  # it is tried again, but not in a hurry
        self.reloads_failed += 1
        self._pending.append(ReloadFailed(failed, reason))
