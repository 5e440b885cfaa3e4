"""Threads that run plain functions, and the loop that runs async ones. What they run ends in the committer."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import uvloop

from headrace.work import execution
from headrace.work.context import Context
from headrace.work.errors import TimeLimitExceeded
from headrace.work.execution import describe
from headrace.work.outcome import Cancelled, ErrorInfo, Failed, Outcome
from headrace.work.pool.in_flight import RUNNING, InFlightTask
from headrace.work.pool.inbox import Inbox
from headrace.work.pool.prefetch import PrefetchPolicy
from headrace.work.pool.shared_status import SharedStatus
from headrace.work.task import Consumer

if TYPE_CHECKING:
    from headrace.work.app import App

_log: Final = logging.getLogger("headrace.work")
OnEnd = Callable[[InFlightTask, Outcome], None]


class Threads:
    """The runner threads. They are daemons: a function that never ends must not keep the process."""

    def __init__(
        self,
        app: App,
        number: int,
        inbox: Inbox,
        pace: PrefetchPolicy,
        board: SharedStatus,
        *,
        worker: str,
        on_end: OnEnd,
    ) -> None:
        self._app = app
        self._inbox = inbox
        self._pace = pace
        self._status = board
        self._worker = worker
        self._on_end = on_end
        self._process = os.getpid()
        self._gate = threading.Lock()
        """InFlightTask to raise something in a thread, and to end a run: so that it is raised in this run or not at all."""
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), name=f"headrace runner {slot}", daemon=True)
            for slot in range(number)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def interrupt(self, held: InFlightTask, error: type[BaseException]) -> None:
        """Raise it in the function that runs, once. Seen when it runs Python code next: not within a C function."""
        with self._gate:
            if held.stage is RUNNING and held.stopped is None and held.thread:
                held.stopped = error
                _raise_in(held.thread, error)

    def _run(self, slot: int) -> None:
        sleeper = threading.Lock()
        sleeper.acquire()
        while (held := self._inbox.take(sleeper)) is not None:
            self._run_one(held, slot)
            self._inbox.ended()

    def _run_one(self, held: InFlightTask, slot: int) -> None:
        began_s = time.monotonic()
        runs = held.run
        for each in runs:
            each.context, each.began_s = Context(each.job, worker=self._worker), began_s
        timeout_s = held.job.timeout_s
        held.deadline_s = None if timeout_s is None else began_s + timeout_s
        held.thread = threading.get_ident()
        self._status.begin(slot, held.label.encode(), began_s)
        for each in runs:
            each.stage = RUNNING
        outcomes = self._outcomes(held, runs)
        if os.getpid() != self._process:
            os._exit(1)  # a task has forked, and let its fork come back here: it must not end the task a second time
        ended_s = time.monotonic()
        self._status.end(slot)
        self._pace.note(ended_s - began_s)
        for each, outcome in zip(runs, outcomes, strict=True):
            each.ended_s = ended_s
            self._on_end(each, explained(held, outcome))

    def _outcomes(self, held: InFlightTask, runs: Sequence[InFlightTask]) -> Sequence[Outcome]:
        target: Any = held.job.target
        try:
            try:
                if takes_lists(target):
                    return execution.run_batch(self._app, target, contexts_of(runs))
                return [execution.run(self._app, target, contexts_of(runs)[0])]
            finally:
                self._leave(held)
        except BaseException as error:  # noqa: BLE001 - SystemExit in a task, or raised from outside at its very end
            return [Failed(describe(error))] * len(runs)

    def _leave(self, held: InFlightTask) -> None:
        """From here on nothing is raised in this thread for this run any more."""
        with self._gate:
            held.thread = 0
            if held.stopped is not None:
                _raise_in(threading.get_ident(), None)


class Loop:
    """An event loop in a thread, for async tasks."""

    def __init__(
        self,
        app: App,
        board: SharedStatus,
        *,
        first_slot: int,
        room: int,
        worker: str,
        on_end: OnEnd,
        on_room: Callable[[], None],
    ) -> None:
        self._app = app
        self._status = board
        self._worker = worker
        self._on_end = on_end
        self._on_room = on_room
        self._loop = uvloop.new_event_loop()
        self._slots = list(range(first_slot + room - 1, first_slot - 1, -1))
        self._size = room
        self._open = 0
        self._count = threading.Lock()
        self._running: dict[InFlightTask, asyncio.Task[None]] = {}
        self._thread = threading.Thread(target=self._main, name="headrace tasks", daemon=True)

    @property
    def room(self) -> int:
        return self._size - self._open

    @property
    def open(self) -> int:
        return self._open

    def start(self) -> None:
        self._thread.start()

    def put(self, jobs: Sequence[InFlightTask]) -> None:
        with self._count:
            self._open += len(jobs)
        self._loop.call_soon_threadsafe(self._begin, jobs)

    def cancel(self, held: InFlightTask) -> None:
        """The task was cancelled by somebody (`context.cancel` before), or this process ends."""
        self._loop.call_soon_threadsafe(self._cancel, held)

    def _main(self) -> None:
        """Tasks must not end the loop of all others: by sys.exit() in an asyncio task of their own, or by stopping it."""
        asyncio.set_event_loop(self._loop)
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                _log.warning("a task tried to end its process: %r", error, extra={"action": "work.exit.refused"})

    def _begin(self, jobs: Sequence[InFlightTask]) -> None:
        for held in jobs:
            self._running[held] = self._loop.create_task(self._run(held), name=held.label)

    def _cancel(self, held: InFlightTask) -> None:
        task = self._running.get(held)
        if task is not None:
            task.cancel()

    async def _run(self, held: InFlightTask) -> None:
        began_s = time.monotonic()
        runs = held.run
        for each in runs:
            each.context, each.began_s = Context(each.job, worker=self._worker), began_s
        timeout_s = held.job.timeout_s
        held.deadline_s = None if timeout_s is None else began_s + timeout_s
        slot = self._slots.pop()
        self._status.begin(slot, held.label.encode(), began_s)
        for each in runs:
            each.stage = RUNNING
        try:
            outcomes = await self._outcomes(held, runs)
        finally:
            self._status.end(slot)
            self._slots.append(slot)
            del self._running[held]
            with self._count:
                self._open -= 1
        ended_s = time.monotonic()
        for each, outcome in zip(runs, outcomes, strict=True):
            each.ended_s = ended_s
            self._on_end(each, outcome)
        self._on_room()

    async def _outcomes(self, held: InFlightTask, runs: Sequence[InFlightTask]) -> Sequence[Outcome]:
        target: Any = held.job.target
        try:
            if takes_lists(target):
                return await execution.run_batch_async(self._app, target, contexts_of(runs))
            return [await execution.run_async(self._app, target, contexts_of(runs)[0])]
        except asyncio.CancelledError:  # by itself, not by us: a task that cancels its own asyncio task has failed
            return [Failed(ErrorInfo("CancelledError", "it was cancelled from within"))] * len(runs)
        except BaseException as error:  # noqa: BLE001 - SystemExit in a task
            return [Failed(describe(error))] * len(runs)


def takes_lists(target: object) -> bool:
    return isinstance(target, Consumer) and target.batch is not None


def contexts_of(runs: Sequence[InFlightTask]) -> list[Context]:
    return [each.context for each in runs if each.context is not None]


def explained(held: InFlightTask, outcome: Outcome) -> Outcome:
    """What was raised from outside has no text of its own."""
    if not isinstance(outcome, Failed) or held.stopped is None or outcome.error.message:
        return outcome
    if held.stopped is not TimeLimitExceeded:
        return Cancelled()
    text = f"it ran longer than {held.job.timeout_s:g} s"
    name = f"{TimeLimitExceeded.__module__}.{TimeLimitExceeded.__qualname__}"
    return Failed(ErrorInfo(name, text, outcome.error.traceback), outcome.final, outcome.delay_ms)


_set_async_exc: Final = ctypes.pythonapi.PyThreadState_SetAsyncExc


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let the interpreter raise it in that thread; None takes back what was not raised yet."""
    _set_async_exc(ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None)
