"""Dispatches requests to worker processes, over links. (`local_dispatcher` serves an application in this process.)

Redelivery. A link that is lost takes its worker's requests with it. One whose answer has begun is cut, so that no
client takes the part for the whole. Another goes to another worker if it may be repeated (by method, or with an
Idempotency-Key, and while its body can be read again), else it is answered 502. Perhaps one of them killed the worker;
all that were there are suspects, mostly innocent. A request that was with two dying workers gets a third one *alone*:
then a third death is its own fault, and no other request is blamed for it. Where requests are given ahead one that must
not be repeated, and that is not the first unanswered of its link, has not begun (`prefetch_policy.is_repeatable`): it
is no suspect, and goes to another worker, too.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.http import problem
from headrace.http.exchange import DONE, WAITING
from headrace.web.dispatch.base_dispatcher import BaseDispatcher
from headrace.web.dispatch.concurrency_limit import AdaptiveThreadLimit
from headrace.web.dispatch.limits import DELIVERIES_MAX, ISOLATION_S, RETURNS_MAX
from headrace.web.dispatch.prefetch_manager import PrefetchManager
from headrace.web.dispatch.queued_request import QueuedRequest
from headrace.web.dispatch.statistics import DispatchStatistics, WorkerStatistics
from headrace.web.dispatch.worker_pool import WorkerPool, WorkerProcess
from headrace.web.ipc.frames import PIECE_BYTES_MAX, Hello

if TYPE_CHECKING:
    from headrace.web.ipc.worker_link import WorkerLink

_log: Final = logging.getLogger("headrace.web")


class Dispatcher(BaseDispatcher):
    """Gives the requests of one application to its workers, over links.

    Invariants: a request is with at most one worker; no answer is begun twice, and none ends as if whole unless it is.
    """

    def __init__(self, **settings: Any) -> None:
        """Args: those of `BaseDispatcher`."""
        super().__init__(**settings)
        self.workers = WorkerPool()
        self.control_links: dict[int, WorkerLink] = {}
        """By the pid of their process."""
        self.prefetch_manager = PrefetchManager(self)
        self.adaptive_thread_limit = AdaptiveThreadLimit(self)
        self.durable: list[tuple[str, list[str]]] = []
        """What the newest code has marked as durable."""
        self._generation = -1
        self._suspects: deque[QueuedRequest] = deque()
        self._isolated: dict[QueuedRequest, WorkerProcess] = {}
        self._redelivered = self._failed = self._poison = 0
        self._exhausted_s: float | None = self.now_s()
        """Since when there is no worker."""

    # Giving

    def _try_dispatch(self, queued: QueuedRequest) -> bool:
        choice = self.workers.pick(empty=_needs_idle_thread(queued))
        if choice is None:
            return False
        self._give(*choice, queued)  # type: ignore[arg-type]  # the slots are links
        return True

    def _has_room(self) -> bool:
        return self.workers.pick() is not None

    def _give(self, worker: WorkerProcess, link: WorkerLink, queued: QueuedRequest) -> None:
        self._begin(queued)
        worker.in_flight += 1
        worker.requests += 1
        if link.serial:
            self._note_given(worker, link, queued)
        link.give(queued)
        if link.listed is (link.busy >= link.limit) or worker.is_full:
            self.workers.update_link(worker, link)

    def _note_given(self, worker: WorkerProcess, link: WorkerLink, queued: QueuedRequest) -> None:
        if not link.busy:
            link.moved_s = queued.given_s
        if (
            worker.prefetch_link is None
            and not _needs_idle_thread(queued)
            and self.prefetch_manager.may_prefetch(worker)
        ):
            self.workers.enable_prefetch(worker, link)
        if worker.prefetch_link is link:
            self.prefetch_manager.watch()
        else:
            self.adaptive_thread_limit.given(worker)

    def _pull(self, worker: WorkerProcess, link: WorkerLink) -> None:
        """The link has room again: give it a queued request at once."""
        if self._suspects and not worker.in_flight and self._dispatch_suspect(worker, link):
            return
        if (
            self._admission.length
            and link.busy < link.limit
            and not worker.is_full
            and (worker.prefetch_link is link or worker.prefetch_link is None)
            and not (link.leaving or worker.quarantined or worker.isolated)
            and (queued := self._admission.take(self.now_s())) is not None
        ):
            was_prefetching = worker.prefetch_link is link
            self._give(worker, link, queued)
            if worker.prefetch_link is link and not was_prefetching:
                self.fill()  # it has room for more than this one now
        else:
            self._update_link(worker, link)

    def _update_link(self, worker: WorkerProcess, link: WorkerLink) -> None:
        self.workers.update_link(worker, link)
        if worker.quarantined and not worker.hung and not link.busy:
            link.close()  # it was busy when others were closed: a process that lives connects again

    # From the links

    def link_ready(self, link: WorkerLink, hello: Hello) -> None:
        """A worker has connected."""
        if link.is_control:
            self.control_links[hello.pid] = link
            return
        if hello.generation >= self._generation:
            self._generation = hello.generation
            self._spools = hello.interface == "wsgi"
            self.durable = hello.durable
        link.worker = self.workers.add_link(link, pid=hello.pid, generation=hello.generation)
        if self._exhausted_s is not None and not self.workers.exhausted:
            now_s = self.now_s()
            self._admission.resumed(now_s, paused_s=now_s - self._exhausted_s)
            self._exhausted_s = None
        self._dispatch_suspects()
        self.fill()

    def ended(self, link: WorkerLink, queued: QueuedRequest, *, counted: bool, long: bool) -> None:
        """A stream has ended: its slot is free."""
        worker = link.worker
        if counted:
            self._note_end(worker, link, queued, long=long)
            worker.in_flight -= 1
        else:
            self._end(queued, counted=False)
        if self._isolated and queued in self._isolated:
            self._release_suspect(queued)
            self._dispatch_suspects()
            self.fill()
        self._pull(worker, link)

    def _note_end(self, worker: WorkerProcess, link: WorkerLink, queued: QueuedRequest, *, long: bool) -> None:
        if not link.serial:
            self._end(queued)
            return
        if (moved_s := link.moved_s) > queued.given_s:
            queued.given_s = moved_s  # until then it had waited behind another one
        now_s = link.moved_s = self._end(queued)
        self.prefetch_manager.finished(worker, link, now_s, begun_s=queued.given_s, long=long)

    def returned(self, link: WorkerLink, queued: QueuedRequest) -> None:
        """The request was not begun: it goes to another link, before all that wait."""
        worker = link.worker
        worker.in_flight -= 1
        self.running.discard(queued)
        self._release_suspect(queued)
        self.prefetch_manager.recalled += 1
        queued.returns += 1
        queued.link = None
        if queued.flow is not None:
            queued.flow.abandon()
        if queued.exchange.stage is DONE:
            self._forget(queued)
        elif not queued.rewind():
            self._fail(queued, worker, "its body cannot be read again")
        else:
            self._put_back(queued)
        self._update_link(worker, link)
        self._dispatch_suspects()
        self.fill()

    def tunnelled(self, link: WorkerLink) -> None:
        """A stream has become a tunnel: it no longer occupies a slot."""
        link.worker.in_flight -= 1
        self._pull(link.worker, link)

    @property
    def known(self) -> bool:
        """Whether a worker has ever connected, and so reported which routes the application has marked as durable."""
        return self._generation >= 0

    def control_thread_was_late(self, link: WorkerLink, seconds: float) -> None:
        """A control thread has answered: so late is the interpreter of its process."""
        self.adaptive_thread_limit.was_late(link, seconds)

    def resettled(self, link: WorkerLink) -> None:
        """A link has more or less room than before."""
        if not link.is_control:
            self.workers.update_link(link.worker, link)
            self.fill()

    def link_lost(self, link: WorkerLink, *, certain: bool) -> None:
        """The link is gone, and with it what its worker had. `certain`: all of its answers were read."""
        if link.is_control:
            self._control_link_lost(link)
            return
        self.prefetch_manager.lost(link)
        worker = link.worker
        expected = link.leaving or worker.hung
        if not link.leaving:
            self.workers.distrust(worker)
        worker.in_flight -= link.busy
        self.workers.remove_link(worker, link)
        streams, link.streams = link.streams, {}
        for choice, queued in enumerate(streams.values()):
            begun = choice == 0 or not (certain and link.serial) or queued.may_be_repeated()
            self._lose(queued, worker, expected=expected, begun=begun)
        self._check_exhausted()
        self._dispatch_suspects()
        self.fill()

    def _control_link_lost(self, link: WorkerLink) -> None:
        pid = link.hello.pid if link.hello is not None else 0
        if self.control_links.get(pid) is link:  # else its successor is here already
            del self.control_links[pid]
            self.prefetch_manager.control_link_lost(pid)

    def _check_exhausted(self) -> None:
        if self._exhausted_s is None and self.workers.exhausted:
            self._exhausted_s = self.now_s()

    # Losing

    def _lose(self, queued: QueuedRequest, worker: WorkerProcess, *, expected: bool, begun: bool) -> None:
        """Its worker is gone. `expected`: its end has no connection with its requests. `begun`: the worker may have begun with it."""
        self._end(queued, counted=False)
        self._release_suspect(queued)
        if queued.flow is not None:
            queued.flow.abandon()
            queued.flow = None
        exchange = queued.exchange
        queued.losses += begun
        queued.kills += begun and not expected
        queued.link = None
        if exchange.stage is DONE:
            exchange.notify = None
        elif exchange.stage is not WAITING:
            self._fail(queued, worker, "its worker was lost after the answer had begun")
        elif queued.kills >= DELIVERIES_MAX:
            self._reject_poison(queued)
        elif queued.losses >= DELIVERIES_MAX:
            self._fail(queued, worker, "its worker was lost repeatedly")
        elif (begun and not queued.may_be_repeated()) or not queued.rewind():
            self._fail(queued, worker, "its worker was lost; the request may have been processed, and is not repeated")
        else:
            self._redeliver(queued, worker)

    def _redeliver(self, queued: QueuedRequest, worker: WorkerProcess) -> None:
        self._redelivered += 1
        exchange = queued.exchange
        extra = {"action": "web.request.redelivered", "method": exchange.method, "path": exchange.path}
        _log.warning(
            "worker %d was lost; its request goes to another worker", worker.pid, extra=extra | {"pid": worker.pid}
        )
        self._put_back(queued)

    def _put_back(self, queued: QueuedRequest) -> None:
        """Queue the request again, before all others; a suspect goes to a worker that has no other request."""
        now_s = self.now_s()
        if queued.kills < DELIVERIES_MAX - 1:
            self._admission.put_back(queued, now_s)
        else:
            queued.since_s = now_s
            self._suspects.append(queued)
        self._arm(now_s)

    def _fail(self, queued: QueuedRequest, worker: WorkerProcess, reason: str) -> None:
        self._failed += 1
        exchange = queued.exchange
        extra = {"action": "web.request.lost", "method": exchange.method, "path": exchange.path, "pid": worker.pid}
        _log.error("a request failed: %s", reason, extra=extra)
        self._forget(queued)
        problem.respond(exchange, 502, reason, kind="worker-lost")

    def _reject_poison(self, queued: QueuedRequest) -> None:
        self._failed += 1
        self._poison += 1
        exchange = queued.exchange
        extra = {
            "action": "web.request.poison",
            "method": exchange.method,
            "path": exchange.path,
            "count": queued.kills,
        }
        _log.error("%d workers died while they had this request; it is not tried again", queued.kills, extra=extra)
        self._forget(queued)
        problem.respond(exchange, 502, "every worker that ran this request died", kind="poison")

    # Suspects

    def _dispatch_suspects(self) -> None:
        while self._suspects:
            choice = self.workers.pick_empty()
            if choice is None or not self._dispatch_suspect(*choice):  # type: ignore[arg-type]  # the slots are links
                return

    def _dispatch_suspect(self, worker: WorkerProcess, link: WorkerLink) -> bool:
        if link.leaving or worker.quarantined or link.busy >= link.limit:
            return False
        queued = self._suspects.popleft()
        worker.isolated = True
        self._isolated[queued] = worker
        self._give(worker, link, queued)
        self.workers.update_link(worker, link)
        return True

    def _release_suspect(self, queued: QueuedRequest) -> None:
        """The suspect is done, or has run long enough: its worker may get other requests."""
        worker = self._isolated.pop(queued, None)
        if worker is not None and worker.isolated:
            worker.isolated = False
            for link in worker.links:
                self.workers.update_link(worker, link)

    def advance(self, now_s: float) -> float:
        due_s = super().advance(now_s)
        for queued in [queued for queued in self._isolated if now_s >= queued.given_s + ISOLATION_S]:
            self._release_suspect(queued)
            self.fill()
        while self._suspects and now_s >= self._suspects[0].since_s + self._queue_timeout_s:
            self._shed_request(self._suspects.popleft(), "timeout")
        if self._isolated or self._suspects:
            due_s = min(due_s, now_s + ISOLATION_S / 4)
        return due_s

    # The other ends

    def _cancel(self, queued: QueuedRequest) -> None:
        if queued.flow is not None:
            queued.flow.abandon()
        if queued.link is not None:
            queued.link.cancel(queued.number)
        elif queued in self._suspects:
            self._suspects.remove(queued)
            self._forget(queued)

    def _mark_hung(self, queued: QueuedRequest) -> int:
        queued.reported = True
        worker: WorkerProcess = queued.link.worker  # type: ignore[union-attr]  # it runs, so it has a link, which is a Link
        if not worker.hung:
            worker.hung = True
            self.workers.quarantine(worker)
            self._check_exhausted()
            self.on_hung(worker.pid)
        return worker.pid

    def _waits_behind(self, queued: QueuedRequest) -> bool:
        link: WorkerLink = queued.link  # type: ignore[assignment]  # it runs, so it has a link, which is a Link
        return link.serial and next(iter(link.streams)) != queued.number

    def _is_idle(self) -> bool:
        return super()._is_idle() and not self._suspects

    def _workers(self) -> list[WorkerStatistics]:
        return self.workers.statistics()

    def statistics(self) -> DispatchStatistics:
        return msgspec.structs.replace(
            super().statistics(),
            redelivered=self._redelivered,
            recalled=self.prefetch_manager.recalled,
            failed=self._failed,
            poison=self._poison,
        )


def _needs_idle_thread(queued: QueuedRequest) -> bool:
    """Whether it should get an idle thread, if there is one: it may take long, or end its worker."""
    return bool(queued.kills) or queued.returns >= RETURNS_MAX or queued.exchange.length > PIECE_BYTES_MAX
