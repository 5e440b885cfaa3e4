"""The queue's consumers: worker processes that pull. (An application in this process: `local_dispatch`.)

Redelivery. A link that is lost takes its worker's requests with it. One whose answer has begun is cut, so that nobody
takes the part for the whole. Another goes to another worker if it may be repeated (by method, or with an
Idempotency-Key, and while its body can be read again), else it is answered 502. Perhaps one of them killed the worker;
all that were there are suspects, mostly innocent. Who was with two dying workers is given a third one *alone*: then a
third death is its own doing, and a bystander is never condemned for it. Where requests are given ahead one that must not
be repeated, and that is not the first unanswered of its link, has not begun (`prefetch_policy.is_repeatable`): it is no suspect,
and goes to another worker, too.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.http import problem
from headrace.http.exchange import DONE, WAITING
from headrace.web.adaptive_thread_limit import AdaptiveThreadLimit
from headrace.web.base_dispatcher import BaseDispatcher
from headrace.web.frames import PIECE_BYTES_MAX, Hello
from headrace.web.limits import ALONE_S, DELIVERIES_MAX, RETURNS_MAX
from headrace.web.prefetch_manager import PrefetchManager
from headrace.web.queued_request import QueuedRequest
from headrace.web.statistics import DispatchStatistics, WorkerStatistics
from headrace.web.workers import Worker, Workers

if TYPE_CHECKING:
    from headrace.web.link import Link

_log: Final = logging.getLogger("headrace.web")


class Dispatcher(BaseDispatcher):
    """Gives the requests of one application to its workers, over links.

    Invariants: a request is with at most one worker; no answer is begun twice, and none ends as if whole unless it is.
    """

    def __init__(self, **settings: Any) -> None:
        """Args: those of `BaseDispatcher`."""
        super().__init__(**settings)
        self.workers = Workers()
        self.control_links: dict[int, Link] = {}
        """By the pid of their process."""
        self.prefetch_manager = PrefetchManager(self)
        self.adaptive_thread_limit = AdaptiveThreadLimit(self)
        self.durable: list[tuple[str, list[str]]] = []
        """What the newest code has marked as durable."""
        self._generation = -1
        self._suspects: deque[QueuedRequest] = deque()
        self._alone: dict[QueuedRequest, Worker] = {}
        self._redelivered = self._failed = self._poison = 0
        self._deserted_s: float | None = self.now_s()
        """Since when there is no worker."""

    # Giving

    def _try_dispatch(self, queued: QueuedRequest) -> bool:
        place = self.workers.pick(empty=_goes_apart(queued))
        if place is None:
            return False
        self._give(*place, queued)  # type: ignore[arg-type]  # the slots are links
        return True

    def _has_room(self) -> bool:
        return self.workers.pick() is not None

    def _give(self, worker: Worker, link: Link, queued: QueuedRequest) -> None:
        self._begin(queued)
        worker.in_flight += 1
        worker.requests += 1
        if link.serial:
            self._note_given(worker, link, queued)
        link.give(queued)
        if link.listed is (link.busy >= link.limit) or worker.is_full:
            self.workers.settle(worker, link)

    def _note_given(self, worker: Worker, link: Link, queued: QueuedRequest) -> None:
        if not link.busy:
            link.moved_s = queued.given_s
        if worker.prefetch_link is None and not _goes_apart(queued) and self.prefetch_manager.may_prefetch(worker):
            self.workers.enable_prefetch(worker, link)
        if worker.prefetch_link is link:
            self.prefetch_manager.watch()
        else:
            self.adaptive_thread_limit.given(worker)

    def _pull(self, worker: Worker, link: Link) -> None:
        """The link has room again: what waits goes out at once."""
        if self._suspects and not worker.in_flight and self._give_suspect(worker, link):
            return
        if (
            self._admission.length
            and link.busy < link.limit
            and not worker.is_full
            and (worker.prefetch_link is link or worker.prefetch_link is None)
            and not (link.leaving or worker.quarantined or worker.alone)
            and (queued := self._admission.take(self.now_s())) is not None
        ):
            was_prefetching = worker.prefetch_link is link
            self._give(worker, link, queued)
            if worker.prefetch_link is link and not was_prefetching:
                self.fill()  # it has room for more than this one now
        else:
            self._settle(worker, link)

    def _settle(self, worker: Worker, link: Link) -> None:
        self.workers.settle(worker, link)
        if worker.quarantined and not worker.hung and not link.busy:
            link.close()  # it was busy when others were closed: a process that lives connects again

    # From the links

    def link_ready(self, link: Link, hello: Hello) -> None:
        """A worker has come."""
        if link.is_control:
            self.control_links[hello.pid] = link
            return
        if hello.generation >= self._generation:
            self._generation = hello.generation
            self._spools = hello.interface == "wsgi"
            self.durable = hello.durable
        link.worker = self.workers.join(link, pid=hello.pid, generation=hello.generation)
        if self._deserted_s is not None and not self.workers.deserted:
            now_s = self.now_s()
            self._admission.resumed(now_s, paused_s=now_s - self._deserted_s)
            self._deserted_s = None
        self._place_suspects()
        self.fill()

    def ended(self, link: Link, queued: QueuedRequest, *, counted: bool, long: bool) -> None:
        """A stream has ended: its place is free."""
        worker = link.worker
        if counted:
            self._note_end(worker, link, queued, long=long)
            worker.in_flight -= 1
        else:
            self._end(queued, counted=False)
        if self._alone and queued in self._alone:
            self._set_free(queued)
            self._place_suspects()
            self.fill()
        self._pull(worker, link)

    def _note_end(self, worker: Worker, link: Link, queued: QueuedRequest, *, long: bool) -> None:
        if not link.serial:
            self._end(queued)
            return
        if (moved_s := link.moved_s) > queued.given_s:
            queued.given_s = moved_s  # until then it had waited behind another one
        now_s = link.moved_s = self._end(queued)
        self.prefetch_manager.finished(worker, link, now_s, begun_s=queued.given_s, long=long)

    def returned(self, link: Link, queued: QueuedRequest) -> None:
        """It was not begun: it goes to another link, before all that wait."""
        worker = link.worker
        worker.in_flight -= 1
        self.running.discard(queued)
        self._set_free(queued)
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
        self._settle(worker, link)
        self._place_suspects()
        self.fill()

    def tunnelled(self, link: Link) -> None:
        """A stream has become a tunnel: it takes no place any more."""
        link.worker.in_flight -= 1
        self._pull(link.worker, link)

    @property
    def known(self) -> bool:
        """Whether a worker has ever come, and so told what the application has marked."""
        return self._generation >= 0

    def control_thread_was_late(self, link: Link, seconds: float) -> None:
        """It has said how late the interpreter of its process is."""
        self.adaptive_thread_limit.was_late(link, seconds)

    def resettled(self, link: Link) -> None:
        """A link has more or less room than before."""
        if not link.is_control:
            self.workers.settle(link.worker, link)
            self.fill()

    def link_lost(self, link: Link, *, certain: bool) -> None:
        """The link is gone, and with it what its worker had. `certain`: all of its answers were read."""
        if link.is_control:
            self._control_link_lost(link)
            return
        self.prefetch_manager.lost(link)
        worker = link.worker
        expected = link.leaving or worker.hung
        if not link.leaving:
            self.workers.part_with(worker)
        worker.in_flight -= link.busy
        self.workers.part(worker, link)
        streams, link.streams = link.streams, {}
        for place, queued in enumerate(streams.values()):
            begun = place == 0 or not (certain and link.serial) or queued.may_be_repeated()
            self._lose(queued, worker, expected=expected, begun=begun)
        self._look_whether_deserted()
        self._place_suspects()
        self.fill()

    def _control_link_lost(self, link: Link) -> None:
        pid = link.hello.pid if link.hello is not None else 0
        if self.control_links.get(pid) is link:  # else its successor is here already
            del self.control_links[pid]
            self.prefetch_manager.control_link_lost(pid)

    def _look_whether_deserted(self) -> None:
        if self._deserted_s is None and self.workers.deserted:
            self._deserted_s = self.now_s()

    # Losing

    def _lose(self, queued: QueuedRequest, worker: Worker, *, expected: bool, begun: bool) -> None:
        """Its worker is gone. `expected`: not of anything that it had to do. `begun`: the worker may have begun with it."""
        self._end(queued, counted=False)
        self._set_free(queued)
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
            self._fail(queued, worker, "its worker was lost, again and again")
        elif (begun and not queued.may_be_repeated()) or not queued.rewind():
            self._fail(queued, worker, "its worker was lost; it may have been processed, and is not repeated")
        else:
            self._redeliver(queued, worker)

    def _redeliver(self, queued: QueuedRequest, worker: Worker) -> None:
        self._redelivered += 1
        exchange = queued.exchange
        extra = {"action": "web.request.redelivered", "method": exchange.method, "path": exchange.path}
        _log.warning("worker %d was lost; its request goes to another", worker.pid, extra=extra | {"pid": worker.pid})
        self._put_back(queued)

    def _put_back(self, queued: QueuedRequest) -> None:
        """It goes before all that wait; a suspect to a worker that has nothing else."""
        now_s = self.now_s()
        if queued.kills < DELIVERIES_MAX - 1:
            self._admission.put_back(queued, now_s)
        else:
            queued.since_s = now_s
            self._suspects.append(queued)
        self._arm(now_s)

    def _fail(self, queued: QueuedRequest, worker: Worker, reason: str) -> None:
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
        _log.error("a request was with %d workers when they died; it is given up", queued.kills, extra=extra)
        self._forget(queued)
        problem.respond(exchange, 502, "this request ended every worker that it was given to", kind="poison")

    # Suspects

    def _place_suspects(self) -> None:
        while self._suspects:
            place = self.workers.pick_empty()
            if place is None or not self._give_suspect(*place):  # type: ignore[arg-type]  # the slots are links
                return

    def _give_suspect(self, worker: Worker, link: Link) -> bool:
        if link.leaving or worker.quarantined or link.busy >= link.limit:
            return False
        queued = self._suspects.popleft()
        worker.alone = True
        self._alone[queued] = worker
        self._give(worker, link, queued)
        self.workers.settle(worker, link)
        return True

    def _set_free(self, queued: QueuedRequest) -> None:
        """It has done its worker no harm, or all it could: the worker may be given more."""
        worker = self._alone.pop(queued, None)
        if worker is not None and worker.alone:
            worker.alone = False
            for link in worker.links:
                self.workers.settle(worker, link)

    def advance(self, now_s: float) -> float:
        due_s = super().advance(now_s)
        for queued in [queued for queued in self._alone if now_s >= queued.given_s + ALONE_S]:
            self._set_free(queued)
            self.fill()
        while self._suspects and now_s >= self._suspects[0].since_s + self._queue_timeout_s:
            self._shed_request(self._suspects.popleft(), "timeout")
        if self._alone or self._suspects:
            due_s = min(due_s, now_s + ALONE_S / 4)
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
        worker: Worker = queued.link.worker  # type: ignore[union-attr]  # it runs, so it has a link, which is a Link
        if not worker.hung:
            worker.hung = True
            self.workers.quarantine(worker)
            self._look_whether_deserted()
            self.on_hung(worker.pid)
        return worker.pid

    def _waits_behind(self, queued: QueuedRequest) -> bool:
        link: Link = queued.link  # type: ignore[assignment]  # it runs, so it has a link, which is a Link
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


def _goes_apart(queued: QueuedRequest) -> bool:
    """Whether it is given to a thread that has nothing else, if there is one: it may be long, or end its worker."""
    return bool(queued.kills) or queued.returns >= RETURNS_MAX or queued.exchange.length > PIECE_BYTES_MAX
