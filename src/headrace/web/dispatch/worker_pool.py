"""Chooses the worker that gets the next request.

A worker process has links: one for each thread (WSGI), or one that many requests share (ASGI). Of the workers with room
the one with the fewest requests in flight is chosen, so that none is busy beside an idle one; new code before old. In a
process of threads one link may be the *prefetch link* (`prefetch_policy.py`): it gets what the process gets, up to
PREFETCH_MAX at once.

A worker that loses a link without having said LEAVE is not trusted with anything more: it is dead or dying, though the
kernel may not have reported all of its links yet. Its idle links are closed; a process that lives connects again. So does,
as it seems, a dead one whose last connections were not yet read: hence what connects after a loss proves first that it lives,
and then its process is trusted as before. It stays one worker all the time: what ends it then is one death.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from headrace.web.dispatch.concurrency_limit import ConcurrencyLimit
from headrace.web.dispatch.limits import CHOICES, LOSSES_MAX, PREFETCH_MAX
from headrace.web.dispatch.statistics import WorkerStatistics


class WorkerSlot(Protocol):
    """A link, as the pool sees it."""

    busy: int
    """Requests on it that count: not tunnels."""
    limit: int
    """Maximum of concurrent requests now."""
    leaving: bool
    """Takes no further requests."""
    listed: bool
    """Written by the pool: whether it is in its worker's `free`."""
    serial: bool
    """It runs one request after another."""

    def close(self) -> None: ...


class WorkerProcess:
    """One process. Invariant: `free` are its links with room, `in_flight` is the sum of `busy` over its links."""

    __slots__ = (
        "free",
        "generation",
        "hung",
        "in_flight",
        "isolated",
        "links",
        "load",
        "pid",
        "prefetch_link",
        "quarantined",
        "requests",
        "thread_limit",
    )

    def __init__(self, *, pid: int, generation: int) -> None:
        self.pid = pid
        self.generation = generation
        self.links: set[WorkerSlot] = set()
        self.free: list[WorkerSlot] = []
        self.prefetch_link: WorkerSlot | None = None
        """The link that prefetches: it gets all requests of this worker."""
        self.in_flight = 0
        self.thread_limit: ConcurrencyLimit | None = None
        """How many requests its threads may run at once, once they have been seen to be in each other's way."""
        self.load = 0
        """What its long requests weigh: they are in the others' way, since one thread at a time runs Python."""
        self.requests = 0
        self.isolated = False
        """Runs a suspect, and gets no other request meanwhile."""
        self.hung = False
        """Hangs, and was reported: its death will be no request's fault."""
        self.quarantined = False
        """Gets nothing more; if it is not hung, until it has shown that it lives."""

    @property
    def has_room(self) -> bool:
        prefetch_link = self.prefetch_link
        if prefetch_link is not None:
            return prefetch_link.busy < prefetch_link.limit
        return bool(self.free) and not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether more would only be in each other's way."""
        return (
            self.thread_limit is not None and self.in_flight >= self.thread_limit.count and self.prefetch_link is None
        )


class WorkerPool:
    """The workers of one application. Invariant: `_free` has the workers that may get a request now."""

    def __init__(self) -> None:
        self._workers: dict[int, WorkerProcess] = {}
        self._free: dict[WorkerProcess, None] = {}  # in the order in which they got room
        self._losses: dict[int, int] = {}  # by pid; the latest last

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def exhausted(self) -> bool:
        """Whether no worker takes requests any more."""
        return all(worker.quarantined for worker in self)

    def add_link(self, slot: WorkerSlot, *, pid: int, generation: int) -> WorkerProcess:
        """A link has identified itself; if its process has lost other links, it has also shown that it lives."""
        worker = self._workers.get(pid)
        if worker is None or worker.generation != generation:
            worker = self._workers[pid] = WorkerProcess(pid=pid, generation=generation)
        elif worker.quarantined and not worker.hung:
            self._trust(worker)
        worker.links.add(slot)
        self.update_link(worker, slot)
        return worker

    def remove_link(self, worker: WorkerProcess, slot: WorkerSlot) -> None:
        """A link is closed."""
        slot.leaving = True
        self.update_link(worker, slot)
        worker.links.discard(slot)
        if not worker.links and self._workers.get(worker.pid) is worker:
            del self._workers[worker.pid]

    def quarantine(self, worker: WorkerProcess) -> None:
        """Give it no further requests. Idempotent."""
        worker.quarantined = True
        self._free.pop(worker, None)

    def _trust(self, worker: WorkerProcess) -> None:
        worker.quarantined = False
        for slot in worker.links:
            self.update_link(worker, slot)

    def losses_of(self, pid: int) -> int:
        """How many links this process has lost. If there are any, it may be dead, whatever it has sent before."""
        return self._losses.get(pid, 0)

    def distrust(self, worker: WorkerProcess) -> None:
        """The worker has lost a link: close its idle links, too. Called for each lost link."""
        self.quarantine(worker)
        self._losses[worker.pid] = self._losses.pop(worker.pid, 0) + 1
        if len(self._losses) > LOSSES_MAX:
            del self._losses[next(iter(self._losses))]
        for slot in tuple(worker.links):
            if not slot.busy:
                slot.close()

    def enable_prefetch(self, worker: WorkerProcess, slot: WorkerSlot) -> None:
        """Give all requests of the worker to this link from now on."""
        worker.prefetch_link = slot
        slot.limit = PREFETCH_MAX

    def disable_prefetch(self, worker: WorkerProcess) -> None:
        """Give each of its links one request again; the prefetch link when it has none."""
        slot, worker.prefetch_link = worker.prefetch_link, None
        if slot is not None:
            slot.limit = 1
            self.update_link(worker, slot)

    def pick(self, *, empty: bool = False) -> tuple[WorkerProcess, WorkerSlot] | None:
        """The worker and link for the next request, if there is one. `empty`: prefer a link without requests."""
        best: WorkerProcess | None = None
        least = 0
        for worker in islice(self._free, CHOICES):
            if (
                best is None
                or worker.generation > best.generation
                or (worker.generation == best.generation and worker.in_flight + worker.load < least)
            ):
                best, least = worker, worker.in_flight + worker.load
        if best is None:
            return None
        if best.prefetch_link is None or (empty and best.free):
            return best, min(best.free, key=_busy) if empty else best.free[-1]
        return best, best.prefetch_link

    def pick_empty(self) -> tuple[WorkerProcess, WorkerSlot] | None:
        """A worker without any request, if there is one."""
        for worker in self._free:
            if not worker.in_flight:
                return worker, worker.free[-1]
        return None

    def update_worker(self, worker: WorkerProcess) -> None:
        """Call when its thread limit has changed."""
        if worker.has_room and not worker.isolated and not worker.quarantined:
            self._free[worker] = None
        else:
            self._free.pop(worker, None)

    def update_link(self, worker: WorkerProcess, slot: WorkerSlot) -> None:
        """Call when `busy`, `limit`, `leaving` of a link or `isolated` of its worker have changed. Idempotent."""
        if slot.leaving and worker.prefetch_link is slot:
            self.disable_prefetch(worker)
        has_room = slot.busy < slot.limit and not slot.leaving and not worker.quarantined
        if has_room is not slot.listed:
            slot.listed = has_room
            if has_room:
                worker.free.append(slot)
            else:
                worker.free.remove(slot)
        self.update_worker(worker)

    def statistics(self) -> list[WorkerStatistics]:
        return [
            WorkerStatistics(
                pid=worker.pid,
                generation=worker.generation,
                in_flight=worker.in_flight,
                capacity=sum(slot.limit for slot in worker.links if not slot.leaving),
                requests=worker.requests,
            )
            for worker in self
        ]


def _busy(slot: WorkerSlot) -> int:
    return slot.busy
