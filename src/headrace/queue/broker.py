"""The broker: the shell around a store. It gathers requests into commits and lets polls wait.

It only sequences. Rules are in `queue/`, SQL in the store, parsing in the systems.

Group commit: requests that arrive within one turn of the event loop, or while a commit is on its way, form the next
one. No timer; the batch adapts to the load, from 1 to thousands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeAlias

from headrace.clock import Clock
from headrace.errors import HeadraceError, InFlightLimit, InvalidParameter, StoreFailed, Unavailable
from headrace.queue import limits
from headrace.queue.model import QueueInfo
from headrace.queue.operations import ChangeVisibility, Operation, Receive, Waiting
from headrace.queue.store.base import Done, Request, Store

log = logging.getLogger("headrace.broker")

TICK_MIN_S: Final = 0.005  # deadlines are met within this
TICK_AFTER_WORK_S: Final = 0.05  # new work may have new deadlines: look again so soon, and not at each commit
TICK_MAX_S: Final = 30.0
DRAIN_MAX_S: Final = 10.0
SERVED_AT_ONCE: Final = 32  # polls of a queue tried in one commit


def nothing(outcome: Any) -> bool:
    """Whether a poll should go on waiting: no message is ready, or (SQS: long polls are then silent) none may be."""
    return outcome == [] or isinstance(outcome, InFlightLimit)


class Poll:
    """A receive or claim that waits for messages. `cancel()` once its client has gone: it takes nothing and answers
    nothing."""

    __slots__ = ("connected", "done", "line", "operation", "over", "timer")

    def __init__(self, operation: Waiting, done: Done, connected: Callable[[], bool]) -> None:
        self.operation = operation
        self.done: Done | None = done
        self.connected = connected
        self.timer: asyncio.TimerHandle | None = None
        self.line: Line | None = None  # where it waits; None while its operation is under way
        self.over = False  # its time is up: it does not wait again

    def cancel(self) -> None:
        self.done = None
        if self.timer is not None:
            self.timer.cancel()
        if self.line is not None:
            self.line.pop(self, None)
            self.line = None

    def answer(self, outcome: Any) -> None:
        done = self.done
        if done is not None:
            self.cancel()
            done(outcome)


Line: TypeAlias = OrderedDict[Poll, None]
"""The polls that wait for a queue, in order of arrival."""


class Broker:
    """One owner of one store, on one event loop. Not thread-safe.

    `on_failure` is called once when the store has failed for good; whoever runs the broker should end the process.

    Invariants: a request submitted is answered exactly once, unless its poll is cancelled; a poll waits in the queue's
    line only while the store has nothing for it.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.on_failure: Callable[[StoreFailed], None] | None = None
        self._requests: list[Request] = []
        self._scheduled = False
        self._polls: dict[str, Line] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._stopping = False
        self._stopped = False
        self._thread: Thread | None = None
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._idle: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Begin to serve: run what is due, and go on doing so."""
        self._loop = asyncio.get_running_loop()
        self.store.attach(self._offload)
        self._advance()

    async def stop(self) -> None:
        """Answer waiting polls with nothing, refuse new requests with Unavailable, finish commits, close the store."""
        if self._stopped:
            return
        self._stopped = True
        self.drain()
        self._flush()
        idle = await self._until_idle()
        if self._tick is not None:
            self._tick.cancel()
        if not idle:
            return  # the disk hangs: to close the store would hang too; the process ends, as if killed
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self.store.close()

    def drain(self) -> None:
        """Take nothing new: polls are answered empty, new requests refused; what is under way goes on."""
        self._stopping = True
        polls, self._polls = self._polls, {}
        for line in polls.values():
            for poll in list(line):
                poll.answer([])

    def submit(self, operation: Operation, done: Done) -> None:
        """Ask for `operation`; `done` gets the outcome (a value or a HeadraceError), on the loop, maybe at once."""
        if self._stopping:
            done(Unavailable("the broker is stopping"))
            return
        self._requests.append(Request(operation, done))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    async def call(self, operation: Operation) -> Any:
        """The outcome of `operation`; a HeadraceError is raised."""
        return await self._result(lambda done: self.submit(operation, done))

    def receive(
        self, operation: Waiting, done: Done, *, wait_ms: int, connected: Callable[[], bool] = lambda: True
    ) -> Poll | None:
        """Receive or claim, waiting up to `wait_ms` (0 to 20,000) for the first message; polls of a queue are served in turn.

        `connected` is asked right before messages are leased or bound: a client that left is not handed any. Returns the poll
        to cancel when the client leaves, or None when it will be answered without waiting.
        """
        if not 0 <= wait_ms <= limits.WAIT_MAX_MS:
            done(InvalidParameter("WaitTimeSeconds", f"{wait_ms / 1_000:g}", "it must be from 0 to 20"))
            return None
        if self._stopping or not wait_ms:
            self.submit(operation, done)
            return None
        poll = Poll(operation, done, connected)
        poll.timer = self._loop.call_later(wait_ms / 1_000, self._give_up, poll)
        if self._polls.get(operation.queue):
            self._stand(poll)  # others wait already: there is nothing, and they come first
        else:
            self._try(poll)
        return poll

    async def wait_receive(self, operation: Waiting, *, wait_ms: int) -> Any:
        """`receive` as a coroutine; cancelling it takes nothing."""
        poll: Poll | None = None

        def ask(done: Done) -> None:
            nonlocal poll
            poll = self.receive(operation, done, wait_ms=wait_ms)

        try:
            return await self._result(ask)
        except asyncio.CancelledError:
            if poll is not None:
                poll.cancel()
            raise

    def find(self, queue: str) -> QueueInfo | None:
        """The queue's info, at once, without I/O."""
        return self.store.find(queue)

    def waiting(self) -> int:
        """How many polls wait."""
        return sum(len(line) for line in self._polls.values())

    async def _result(self, ask: Callable[[Done], None]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(outcome: Any) -> None:
            if not future.done():
                future.set_result(outcome)

        ask(done)
        outcome = await future
        if isinstance(outcome, HeadraceError):
            raise outcome
        return outcome

    # --- commits ---

    def _flush(self) -> None:
        self._scheduled = False
        requests, self._requests = self._requests, []
        self.store.execute(requests)
        self._after_work()

    def _after_work(self) -> None:
        """Something was executed or committed."""
        self._look_around()
        self._wake_in(TICK_AFTER_WORK_S)

    def _look_around(self) -> None:
        """Serve the polls of queues that have something now; see whether the store has failed, or is idle."""
        ready = self.store.take_ready()
        if ready and self._polls:
            self._serve(ready)
        failed = self.store.failed()
        if failed is not None and self.on_failure is not None:
            notify, self.on_failure = self.on_failure, None
            notify(failed)
        if self._idle is not None and not self.store.busy() and not self._requests and not self._idle.done():
            self._idle.set_result(None)

    def _offload(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `work` in the commit thread, then `then(result)` here. A plain thread with a queue: an executor's futures
        cost as much as a fast disk's sync."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="headrace-commit", daemon=True)
            self._thread.start()
        self._jobs.put((work, then))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, then = job
            self._loop.call_soon_threadsafe(self._finish, then, work())

    def _finish(self, then: Callable[[Any], None], result: Any) -> None:
        then(result)
        self._after_work()

    async def _until_idle(self) -> bool:
        """Wait for the commit that is on its way; False if it does not come back in time."""
        if self.store.busy() or self._requests:
            self._idle = self._loop.create_future()
            try:
                await asyncio.wait_for(self._idle, DRAIN_MAX_S)
            except TimeoutError:
                log.error("a commit is still on its way after %s s", DRAIN_MAX_S, extra={"action": "broker.stuck"})
                return False
        return True

    # --- polls ---

    def _try(self, poll: Poll) -> None:
        """Receive for a poll; if there is nothing, it waits in line."""
        if not poll.connected():
            poll.cancel()
            return
        self.submit(poll.operation, lambda outcome: self._tried(poll, outcome))

    def _tried(self, poll: Poll, outcome: Any) -> None:
        if poll.done is None:
            self._return(poll, outcome)
        elif self._goes_on(poll, outcome):
            self._stand(poll)
        else:
            poll.answer([] if nothing(outcome) else outcome)

    def _goes_on(self, poll: Poll, outcome: Any) -> bool:
        """Whether the poll should wait (again): nothing is ready, and its time is not up."""
        return nothing(outcome) and not poll.over and not self._stopping

    def _stand(self, poll: Poll, *, first: bool = False) -> None:
        """Into its queue's line: at the end, or back at its front."""
        poll.line = self._polls.setdefault(poll.operation.queue, OrderedDict())
        poll.line[poll] = None
        if first:
            poll.line.move_to_end(poll, last=False)

    def _return(self, poll: Poll, outcome: Any) -> None:
        """The client left, or gave up, while its receive was on its way: what it was leased is visible again. What was
        bound to a claim stays so: the reader reads it by the same number."""
        leased = isinstance(poll.operation, Receive) and isinstance(outcome, list)
        if leased and outcome and not self._stopping:
            changes = [(delivery.receipt, 0) for delivery in outcome]
            self.submit(ChangeVisibility(poll.operation.queue, changes), lambda _outcome: None)

    def _serve(self, ready: set[str]) -> None:
        for queue in ready:
            line = self._polls.get(queue)
            if line:
                self._serve_line(queue, line)

    def _serve_line(self, queue: str, line: Line) -> None:
        """Let the first in line try, some at once; those that get nothing keep their places."""
        group: list[Poll] = []
        while line and len(group) < SERVED_AT_ONCE:
            poll, _ = line.popitem(last=False)
            poll.line = None
            if poll.connected():
                group.append(poll)
            else:
                poll.cancel()
        if not line:
            self._polls.pop(queue, None)
        still_empty: list[Poll] = []
        left = len(group)

        def served(poll: Poll, outcome: Any) -> None:
            nonlocal left
            left -= 1
            if poll.done is not None and self._goes_on(poll, outcome):
                still_empty.append(poll)
            else:
                self._tried(poll, outcome)
            if not left:
                self._line_served(queue, still_empty)

        for poll in group:
            self.submit(poll.operation, partial(served, poll))

    def _line_served(self, queue: str, still_empty: list[Poll]) -> None:
        for poll in reversed(still_empty):
            if poll.done is None:
                continue  # its client left while others of its group were tried
            if poll.over or self._stopping:
                poll.answer([])
            else:
                self._stand(poll, first=True)
        if not still_empty and (line := self._polls.get(queue)):
            self._serve_line(queue, line)

    def _give_up(self, poll: Poll) -> None:
        """The poll's time is up. If a receive is under way for it, that one's outcome is its answer."""
        poll.over = True
        line = poll.line
        if line is None:
            return
        poll.answer([])
        if not line:
            self._polls.pop(poll.operation.queue, None)

    # --- time ---

    def _advance(self) -> None:
        self._tick = None
        next_ms = self.store.advance()
        self._look_around()
        wait_s = TICK_MAX_S if next_ms is None else (next_ms - self.clock()) / 1_000
        self._wake_in(min(TICK_MAX_S, max(TICK_MIN_S, wait_s)))

    def _wake_in(self, seconds: float) -> None:
        """Look at what time has made due, at the latest in so many seconds."""
        if self._stopping:
            return
        at = self._loop.time() + seconds
        if self._tick is not None:
            if self._tick.when() <= at:
                return
            self._tick.cancel()
        self._tick = self._loop.call_at(at, self._advance)
