"""The broker: the shell around a store. It gathers requests into commits and lets polls wait.

It only sequences. Rules are in `queue/`, SQL in the store, parsing in the systems.

Group commit: requests that arrive within one turn of the event loop, or while a commit is on its way, form the next
one. No timer; the batch adapts to the load, from 1 to thousands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.clock import Clock
from headrace.errors import HeadraceError, InvalidParameter, OutcomeUnknown, StoreFailed, Unavailable
from headrace.formatting import seconds_text
from headrace.queue import limits
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Hold, ListHolders, Operation, Polling
from headrace.queue.polls import Poll, Polls
from headrace.queue.presence import FOLLOWED, Presence, Stay
from headrace.queue.store.base import Done, Request, Store

log = logging.getLogger("headrace.broker")

TICK_MIN_S: Final = 0.005  # deadlines are met within this
TICK_AFTER_WORK_S: Final = 0.05  # new work may have new deadlines: look again so soon, and not at each commit
TICK_MAX_S: Final = 30.0
DRAIN_MAX_S: Final = 10.0
HUNG: Final = "the broker was stopped while the disk hung"


Job: TypeAlias = tuple[Callable[[], Any], Callable[[Any], None]]
"""What to do in a thread, and what to do with its result."""


class _Lane(NamedTuple):
    jobs: SimpleQueue[Job | None]
    thread: Thread


class Broker:
    """One owner of one store, on one event loop. Not thread-safe.

    `on_failure` is called once when the store has failed for good; whoever runs the broker should end the process.

    Invariants: a request submitted is answered exactly once, unless its poll is cancelled; a poll waits only while the
    store has nothing for it.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.on_failure: Callable[[StoreFailed], None] | None = None
        self._requests: list[Request] = []
        self._scheduled = False
        self._polls = Polls(self.submit)
        self._presence = Presence(
            self.submit, store.find, clock, self._wake_in, self._polls.dismiss, shared=store.shared
        )
        self._tick: asyncio.TimerHandle | None = None
        self._tick_at = 0.0  # when, by the loop's time: uvloop's handle of a time that is past does not know
        self._stopping = False
        self._stopped = False
        self._lanes: dict[str, _Lane] = {}
        self._calls: set[asyncio.Future[Any]] = set()  # that wait for their outcome
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
            for future in self._calls:
                if not future.done():
                    future.set_result(OutcomeUnknown(HUNG))
            return  # the disk hangs: to close the store would hang too; the process ends, as if killed
        for lane in self._lanes.values():
            lane.jobs.put(None)
        for lane in self._lanes.values():
            lane.thread.join()
        self.store.close()

    def drain(self) -> None:
        """Take nothing new: polls are answered empty, new requests refused; what is under way goes on."""
        self._presence.leave()
        self._stopping = True
        self._polls.close()
        self._presence.close()

    def submit(self, operation: Operation, done: Done) -> None:
        """Ask for `operation`; `done` gets the outcome (a value or a HeadraceError), on the loop, maybe at once."""
        if self._stopping:
            done(Unavailable("the broker is stopping"))
            return
        if type(operation) in FOLLOWED:
            done = self._presence.follow(operation, done)
        self._requests.append(Request(operation, done))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def ask(
        self, operation: Operation, done: Done, *, wait_ms: int = 0, connected: Callable[[], bool] = lambda: True
    ) -> Poll | Stay | None:
        """Ask for any operation of `queue/operations.py`; `wait_ms` (0 to 20,000) is for those that may wait.

        Returns what to cancel when the client leaves, or None when it will be answered without waiting.
        """
        if isinstance(operation, Polling):
            return self.receive(operation, done, wait_ms=wait_ms, connected=connected)
        if isinstance(operation, Hold):
            return self._presence.hold(operation, done, wait_ms=wait_ms) if _may_wait(wait_ms, done) else None
        if isinstance(operation, ListHolders):
            self._presence.list_holders(operation, done)
        else:
            self.submit(operation, done)
        return None

    async def call(self, operation: Operation, *, wait_ms: int = 0) -> Any:
        """The outcome of `operation`; a HeadraceError is raised. Cancelled, it takes nothing."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(outcome: Any) -> None:
            if not future.done():
                future.set_result(outcome)

        waits = self.ask(operation, done, wait_ms=wait_ms, connected=lambda: not future.done())
        self._calls.add(future)
        try:
            outcome = await future
        except asyncio.CancelledError:
            if waits is not None:
                waits.cancel()
            raise
        finally:
            self._calls.discard(future)
        if isinstance(outcome, HeadraceError):
            raise outcome
        return outcome

    def receive(
        self, operation: Polling, done: Done, *, wait_ms: int, connected: Callable[[], bool] = lambda: True
    ) -> Poll | None:
        """Receive, claim or read, waiting up to `wait_ms` (0 to 20,000) for the first message; polls of a queue are served
        in turn.

        `connected` is asked right before messages are leased or bound: a client that left is not handed any. Returns the poll
        to cancel when the client leaves, or None when it will be answered without waiting.
        """
        if not _may_wait(wait_ms, done):
            return None
        if self._stopping or not wait_ms:
            self.submit(operation, done)
            return None
        poll = Poll(self._polls, operation, done, connected)
        poll.timer = self._loop.call_later(wait_ms / 1_000, poll.give_up)
        self._polls.begin(poll)
        return poll

    def find(self, queue: str) -> QueueInfo | None:
        """The queue's info, at once, without I/O."""
        return self.store.find(queue)

    def waiting(self) -> int:
        """How many polls wait."""
        return self._polls.waiting

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
        if ready:
            self._polls.serve(ready)
        failed = self.store.failed()
        if failed is not None and self.on_failure is not None:
            notify, self.on_failure = self.on_failure, None
            notify(failed)
        if self._idle is not None and not self.store.busy() and not self._requests and not self._idle.done():
            self._idle.set_result(None)

    def _offload(self, work: Callable[[], Any], then: Callable[[Any], None], name: str = "commit", /) -> None:
        """Run `work` in a lane's thread, then `then(result)` here. A plain thread with a queue: an executor's futures
        cost as much as a fast disk's sync."""
        lane = self._lanes.get(name)
        if lane is None:
            jobs: SimpleQueue[Job | None] = SimpleQueue()
            thread = Thread(target=self._work, args=(jobs,), name=f"headrace-{name}", daemon=True)
            lane = self._lanes[name] = _Lane(jobs, thread)
            thread.start()
        lane.jobs.put((work, then))

    def _work(self, jobs: SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
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

    # --- time ---

    def _advance(self) -> None:
        self._tick = None
        gone_ms = self._presence.advance()
        next_ms = self.store.advance()
        self._look_around()
        next_ms = min((ms for ms in (gone_ms, next_ms) if ms is not None), default=None)
        wait_s = TICK_MAX_S if next_ms is None else (next_ms - self.clock()) / 1_000
        self._wake_in(min(TICK_MAX_S, max(TICK_MIN_S, wait_s)))

    def _wake_in(self, seconds: float) -> None:
        """Look at what time has made due, at the latest in so many seconds."""
        if self._stopping:
            return
        at = self._loop.time() + seconds
        if self._tick is not None:
            if self._tick_at <= at:
                return
            self._tick.cancel()
        self._tick, self._tick_at = self._loop.call_at(at, self._advance), at


def _may_wait(wait_ms: int, done: Done) -> bool:
    """Whether an operation may wait so long; tells if not."""
    if 0 <= wait_ms <= limits.WAIT_MAX_MS:
        return True
    done(InvalidParameter("WaitTimeSeconds", seconds_text(wait_ms), "it must be from 0 to 20"))
    return False
