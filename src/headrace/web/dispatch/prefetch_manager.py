"""Carries out the prefetch policy at the edge: selects the prefetch link of each process, and recalls requests from it.

Only processes with a control thread prefetch, since requests behind a long one must be recalled while it runs. A timer
checks the prefetch links every WATCH_S while requests wait on them. It compares one check with the next, not with the
clock: an edge that was itself late has not yet read what its workers have answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from headrace.web.dispatch.limits import ASK_AGAIN_S, LONG_LOAD, WATCH_S
from headrace.web.dispatch.prefetch_policy import PrefetchPolicy
from headrace.web.dispatch.worker_pool import WorkerPool, WorkerProcess
from headrace.web.ipc.frames import COUNT, Kind

if TYPE_CHECKING:
    from headrace.web.ipc.worker_link import WorkerLink

_RECALL: Final = int(Kind.RECALL)


class WorkerDispatcher(Protocol):
    """A dispatcher."""

    loop: asyncio.AbstractEventLoop
    workers: WorkerPool
    control_links: dict[int, WorkerLink]

    def fill(self) -> None: ...


class PrefetchManager:
    """Manages prefetching for one application. Invariant: a link with several requests prefetches, or was asked to return them."""

    def __init__(self, owner: WorkerDispatcher) -> None:
        self._owner = owner
        self.policy = PrefetchPolicy()
        self.recalled = 0
        """Requests that were returned before they began."""
        self._asked: dict[WorkerLink, float] = {}
        """Links that were asked to return waiting requests, and when."""
        self._timer: asyncio.TimerHandle | None = None

    def lost(self, link: WorkerLink) -> None:
        """A link is gone; not a control thread."""
        self._asked.pop(link, None)
        if link.load:
            self._unload(link.worker, link)

    def control_link_lost(self, pid: int) -> None:
        """That process has none any more."""
        for worker in tuple(self._owner.workers):
            if worker.pid == pid and worker.prefetch_link is not None:
                self._disable_prefetch(worker)
        self._owner.fill()

    def may_prefetch(self, worker: WorkerProcess) -> bool:
        """Whether it may get requests ahead. Not while it has a long one: if that computes, whoever would have to give
        back the waiting requests would have to wait for the interpreter, too."""
        return self.policy.fast and not worker.isolated and not worker.load and worker.pid in self._owner.control_links

    def finished(self, worker: WorkerProcess, link: WorkerLink, now_s: float, *, begun_s: float, long: bool) -> None:
        """A request has ended."""
        if link.load:
            self._unload(worker, link)
        was_fast = self.policy.fast
        self.policy.finished(now_s, begun_s=begun_s, long=long)
        if was_fast and not self.policy.fast:
            self._disable_all()
            self._owner.fill()  # the other threads have room now

    def _unload(self, worker: WorkerProcess, link: WorkerLink) -> None:
        worker.load -= link.load
        link.load = 0

    def _disable_all(self) -> None:
        for worker in tuple(self._owner.workers):
            if worker.prefetch_link is not None:
                self._disable_prefetch(worker)

    def _disable_prefetch(self, worker: WorkerProcess) -> None:
        link: WorkerLink = worker.prefetch_link  # type: ignore[assignment]  # the slots are links
        self._owner.workers.disable_prefetch(worker)
        if link.busy and not link.leaving:
            link.load = LONG_LOAD
            worker.load += LONG_LOAD
        if link.busy > 1:
            self._asked[link] = self._owner.loop.time()
            self._ask(link)

    def _ask(self, link: WorkerLink) -> None:
        """Ask the process of the link to return the requests that wait on it."""
        if link.hello is not None and (control_link := self._owner.control_links.get(link.hello.pid)) is not None:
            control_link.send(_RECALL, 0, COUNT.pack(link.hello.number))

    # Time

    def watch(self) -> None:
        """Something waits: look after the prefetch links. Idempotent."""
        if self._timer is None:
            self._timer = self._owner.loop.call_later(WATCH_S, self._look)

    def _look(self) -> None:
        self._timer = None
        prefetch_link = self._check_prefetch_links()
        self._ask_again()
        if prefetch_link or self._asked:
            self.watch()

    def _check_prefetch_links(self) -> bool:
        """Whether there is still something to look after."""
        busy, stuck = False, []
        for worker in self._owner.workers:
            link: WorkerLink | None = worker.prefetch_link  # type: ignore[assignment]  # the slots are links
            if link is None or not link.busy:
                continue
            busy = True
            if link.moved_s == link.seen_s:
                stuck.append(worker)
            link.seen_s = link.moved_s
        for worker in stuck:
            self._disable_prefetch(worker)
        if stuck:
            self._owner.fill()  # other links of these workers have room now
        return busy

    def _ask_again(self) -> None:
        now_s = self._owner.loop.time()
        for link, asked_s in tuple(self._asked.items()):
            if link.busy <= 1:
                del self._asked[link]
            elif now_s >= asked_s + ASK_AGAIN_S:
                self._asked[link] = now_s
                self._ask(link)
