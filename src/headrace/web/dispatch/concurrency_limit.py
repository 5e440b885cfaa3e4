"""Limits the concurrent requests of a worker to what it can keep up with.

Theory. An event loop serves all requests of an ASGI worker, so what counts is not their number but how late the loop
is. An application that waits for I/O may have hundreds and its loop still answers at once; one that computes is late
with four. So the edge asks (PING), and steers as TCP does: more while the limit is reached and the loop is quick, a
third fewer when it is late. What the worker does not hold waits in the edge's queue: where it can be ordered, shed, and
given to another.

A loop is also late because others have the processor. Then fewer requests make it no quicker, and those that only wait, for
events or for their client's body, must not use up the few that are left: they do not count (`quiet`).

WSGI threads share an interpreter as requests share a loop. Threads that wait for I/O do not hinder one another; of threads
that compute, eight are no faster than one, but each takes eight times as long. So `AdaptiveThreadLimit` asks the worker's
control thread, which does nothing else and answers as late as the interpreter is busy, and adjusts the limit likewise. In
direct mode the loop of the same process is asked (`local_dispatcher.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from headrace.web.dispatch.limits import CONCURRENCY_MIN, CONCURRENCY_START, LAG_HIGH_S, LAG_LOW_S, LAG_QUIET_S, PING_S

if TYPE_CHECKING:
    from headrace.web.dispatch.worker_pool import WorkerPool, WorkerProcess
    from headrace.web.ipc.worker_link import WorkerLink


class ConcurrencyLimit:
    """Invariant: count <= most; least <= count, unless most is less."""

    __slots__ = ("_eager", "_least", "count", "most")

    def __init__(self, most: int, *, start: int = CONCURRENCY_START, least: int = 1) -> None:
        """Args: most: that the worker allows; start, least: if that many are allowed."""
        self.most = most
        """May be raised."""
        self._least = least
        self._eager = True
        self.count = min(start, most)

    def lag(self, seconds: float, *, used_up: bool) -> None:
        """Adjust to a measured lag. `used_up`: whether a request might have been given since the last time, had the
        limit been higher. Doubles until the loop is late for the first time, then grows by a quarter."""
        if seconds > LAG_HIGH_S:
            self._eager = False
            self.count = min(self.most, max(self._least, int(self.count * 0.7)))
        elif seconds < LAG_LOW_S and used_up:
            step = self.count if self._eager else self.count // 4
            self.count = min(self.most, self.count + max(1, step))

    def room(self, quiet: Iterable[bool], *, lag_s: float) -> int:
        """How many requests the worker may hold in total. `quiet`: for each one that it holds, whether it needs nothing of the loop."""
        return self.count if lag_s > LAG_QUIET_S else min(self.most, self.count + sum(quiet))


class WorkerDispatcher(Protocol):
    """A dispatcher."""

    loop: asyncio.AbstractEventLoop
    workers: WorkerPool
    control_links: dict[int, WorkerLink]

    def fill(self) -> None: ...


class AdaptiveThreadLimit:
    """Adjusts the thread limits of one application. Measures only while a worker runs several requests and prefetches none."""

    def __init__(self, owner: WorkerDispatcher) -> None:
        self._owner = owner
        self._timer: asyncio.TimerHandle | None = None

    def given(self, worker: WorkerProcess) -> None:
        """A worker has got another request."""
        if self._timer is None and worker.in_flight > CONCURRENCY_MIN and worker.prefetch_link is None:
            self._timer = self._owner.loop.call_later(PING_S, self._ask)

    def was_late(self, link: WorkerLink, seconds: float) -> None:
        """A control thread has answered."""
        for worker in self._owner.workers:
            if link.hello is not None and worker.pid == link.hello.pid and worker.links:
                self._adjust(worker, seconds)

    def _adjust(self, worker: WorkerProcess, late_s: float) -> None:
        thread_limit = worker.thread_limit
        if thread_limit is None:
            thread_limit = worker.thread_limit = ConcurrencyLimit(
                len(worker.links), start=len(worker.links), least=CONCURRENCY_MIN
            )
        thread_limit.most = max(
            thread_limit.most, len(worker.links)
        )  # threads may still be, or again be, on their way here
        thread_limit.lag(late_s, used_up=worker.in_flight >= thread_limit.count)
        self._owner.workers.update_worker(worker)
        self._owner.fill()

    def _ask(self) -> None:
        self._timer = None
        for worker in self._owner.workers:
            control_link = self._owner.control_links.get(worker.pid)
            if control_link is not None and worker.in_flight >= CONCURRENCY_MIN and worker.prefetch_link is None:
                control_link.ask_how_late()
                if self._timer is None:
                    self._timer = self._owner.loop.call_later(PING_S, self._ask)
