"""How many requests the threads of a WSGI worker run at once: as many as are not in each other's way.

Theory. Threads that wait for I/O do not hinder one another; threads that compute share one interpreter, and eight of them
are no faster than one, but each takes eight times as long: under overload all of them are late. The edge sees which it
is by asking the worker's control thread, a thread that does nothing else: it answers as late as the interpreter is busy. From
that the bound follows as for a loop (`concurrency_limit.py`). What a worker does not run waits in the edge's queue.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from headrace.web.concurrency_limit import ConcurrencyLimit
from headrace.web.limits import CONCURRENCY_MIN, PING_S
from headrace.web.worker_pool import WorkerPool, WorkerProcess

if TYPE_CHECKING:
    from headrace.web.worker_link import WorkerLink


class WorkerDispatcher(Protocol):
    """A dispatcher."""

    loop: asyncio.AbstractEventLoop
    workers: WorkerPool
    control_links: dict[int, WorkerLink]

    def fill(self) -> None: ...


class AdaptiveThreadLimit:
    """Of one application. Asks only while a worker runs several requests, and none is given ahead."""

    def __init__(self, owner: WorkerDispatcher) -> None:
        self._owner = owner
        self._timer: asyncio.TimerHandle | None = None

    def given(self, worker: WorkerProcess) -> None:
        """It runs one more."""
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
