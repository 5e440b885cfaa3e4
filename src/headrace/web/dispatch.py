"""The queue's consumers: worker processes that pull. (An application in this process: `local_dispatch`.)

Redelivery. A link that is lost takes its worker's requests with it. One whose answer has begun is cut, so that nobody
takes the part for the whole. Another goes to another worker if it may be repeated (by method, or with an
Idempotency-Key, and while its body can be read again), else it is answered 502. Perhaps one of them killed the worker;
all that were there are suspects, mostly innocent. Who was with two dying workers is given a third one *alone*: then a
third death is its own doing, and a bystander is never condemned for it. Where requests are given ahead one that must not
be repeated, and that is not the first unanswered of its link, has not begun (`pipelining.is_repeatable`): it is no suspect,
and goes to another worker, too.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.http import problem
from headrace.http.exchange import DONE, WAITING
from headrace.web.crowds import Crowds
from headrace.web.frames import PIECE_BYTES_MAX, Hello
from headrace.web.limits import ALONE_S, DELIVERIES_MAX, RETURNS_MAX
from headrace.web.pipelines import Pipelines
from headrace.web.queueing import Queueing
from headrace.web.statistics import DispatchStatistics, WorkerStatistics
from headrace.web.tickets import Ticket
from headrace.web.workers import Worker, Workers

if TYPE_CHECKING:
    from headrace.web.link import Link

_log: Final = logging.getLogger("headrace.web")


class Dispatcher(Queueing):
    """Gives the requests of one application to its workers, over links.

    Invariants: a request is with at most one worker; no answer is begun twice, and none ends as if whole unless it is.
    """

    def __init__(self, **settings: Any) -> None:
        """Args: those of `Queueing`."""
        super().__init__(**settings)
        self.workers = Workers()
        self.keepers: dict[int, Link] = {}
        """By the pid of their process."""
        self.pipelines = Pipelines(self)
        self.crowds = Crowds(self)
        self.durable: list[tuple[str, list[str]]] = []
        """What the newest code has marked as durable."""
        self._generation = -1
        self._suspects: deque[Ticket] = deque()
        self._alone: dict[Ticket, Worker] = {}
        self._redelivered = self._failed = self._poison = 0
        self._deserted_s: float | None = self.now_s()
        """Since when there is no worker."""

    # Giving

    def _place(self, ticket: Ticket) -> bool:
        place = self.workers.pick(empty=_goes_apart(ticket))
        if place is None:
            return False
        self._give(*place, ticket)  # type: ignore[arg-type]  # the seats are links
        return True

    def _has_room(self) -> bool:
        return self.workers.pick() is not None

    def _give(self, worker: Worker, link: Link, ticket: Ticket) -> None:
        self._begin(ticket)
        worker.in_flight += 1
        worker.requests += 1
        if link.serial:
            self._note_given(worker, link, ticket)
        link.give(ticket)
        if link.listed is (link.busy >= link.limit) or worker.is_full:
            self.workers.settle(worker, link)

    def _note_given(self, worker: Worker, link: Link, ticket: Ticket) -> None:
        if not link.busy:
            link.moved_s = ticket.given_s
        if worker.hot is None and not _goes_apart(ticket) and self.pipelines.may_heat(worker):
            self.workers.heat(worker, link)
        if worker.hot is link:
            self.pipelines.watch()
        else:
            self.crowds.given(worker)

    def _pull(self, worker: Worker, link: Link) -> None:
        """The link has room again: what waits goes out at once."""
        if self._suspects and not worker.in_flight and self._give_suspect(worker, link):
            return
        if (
            self._admission.length
            and link.busy < link.limit
            and not worker.is_full
            and (worker.hot is link or worker.hot is None)
            and not (link.leaving or worker.shunned or worker.alone)
            and (ticket := self._admission.take(self.now_s())) is not None
        ):
            was_hot = worker.hot is link
            self._give(worker, link, ticket)
            if worker.hot is link and not was_hot:
                self.fill()  # it has room for more than this one now
        else:
            self._settle(worker, link)

    def _settle(self, worker: Worker, link: Link) -> None:
        self.workers.settle(worker, link)
        if worker.shunned and not worker.condemned and not link.busy:
            link.close()  # it was busy when others were closed: a process that lives connects again

    # From the links

    def link_ready(self, link: Link, hello: Hello) -> None:
        """A worker has come."""
        if link.keeper:
            self.keepers[hello.pid] = link
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

    def ended(self, link: Link, ticket: Ticket, *, counted: bool, long: bool) -> None:
        """A stream has ended: its place is free."""
        worker = link.worker
        if counted:
            self._note_end(worker, link, ticket, long=long)
            worker.in_flight -= 1
        else:
            self._end(ticket, counted=False)
        if self._alone and ticket in self._alone:
            self._set_free(ticket)
            self._place_suspects()
            self.fill()
        self._pull(worker, link)

    def _note_end(self, worker: Worker, link: Link, ticket: Ticket, *, long: bool) -> None:
        if not link.serial:
            self._end(ticket)
            return
        if (moved_s := link.moved_s) > ticket.given_s:
            ticket.given_s = moved_s  # until then it had waited behind another one
        now_s = link.moved_s = self._end(ticket)
        self.pipelines.finished(worker, link, now_s, begun_s=ticket.given_s, long=long)

    def returned(self, link: Link, ticket: Ticket) -> None:
        """It was not begun: it goes to another link, before all that wait."""
        worker = link.worker
        worker.in_flight -= 1
        self.running.discard(ticket)
        self._set_free(ticket)
        self.pipelines.taken_back += 1
        ticket.returns += 1
        ticket.link = None
        if ticket.flow is not None:
            ticket.flow.abandon()
        if ticket.exchange.stage is DONE:
            self._forget(ticket)
        elif not ticket.rewind():
            self._fail(ticket, worker, "its body cannot be read again")
        else:
            self._put_back(ticket)
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

    def keeper_was_late(self, link: Link, seconds: float) -> None:
        """It has said how late the interpreter of its process is."""
        self.crowds.was_late(link, seconds)

    def resettled(self, link: Link) -> None:
        """A link has more or less room than before."""
        if not link.keeper:
            self.workers.settle(link.worker, link)
            self.fill()

    def link_lost(self, link: Link, *, certain: bool) -> None:
        """The link is gone, and with it what its worker had. `certain`: all of its answers were read."""
        if link.keeper:
            self._keeper_lost(link)
            return
        self.pipelines.lost(link)
        worker = link.worker
        expected = link.leaving or worker.condemned
        if not link.leaving:
            self.workers.part_with(worker)
        worker.in_flight -= link.busy
        self.workers.part(worker, link)
        streams, link.streams = link.streams, {}
        for place, ticket in enumerate(streams.values()):
            begun = place == 0 or not (certain and link.serial) or ticket.may_be_repeated()
            self._lose(ticket, worker, expected=expected, begun=begun)
        self._look_whether_deserted()
        self._place_suspects()
        self.fill()

    def _keeper_lost(self, link: Link) -> None:
        pid = link.hello.pid if link.hello is not None else 0
        if self.keepers.get(pid) is link:  # else its successor is here already
            del self.keepers[pid]
            self.pipelines.keeper_lost(pid)

    def _look_whether_deserted(self) -> None:
        if self._deserted_s is None and self.workers.deserted:
            self._deserted_s = self.now_s()

    # Losing

    def _lose(self, ticket: Ticket, worker: Worker, *, expected: bool, begun: bool) -> None:
        """Its worker is gone. `expected`: not of anything that it had to do. `begun`: the worker may have begun with it."""
        self._end(ticket, counted=False)
        self._set_free(ticket)
        if ticket.flow is not None:
            ticket.flow.abandon()
            ticket.flow = None
        exchange = ticket.exchange
        ticket.losses += begun
        ticket.kills += begun and not expected
        ticket.link = None
        if exchange.stage is DONE:
            exchange.notify = None
        elif exchange.stage is not WAITING:
            self._fail(ticket, worker, "its worker was lost after the answer had begun")
        elif ticket.kills >= DELIVERIES_MAX:
            self._condemn_request(ticket)
        elif ticket.losses >= DELIVERIES_MAX:
            self._fail(ticket, worker, "its worker was lost, again and again")
        elif (begun and not ticket.may_be_repeated()) or not ticket.rewind():
            self._fail(ticket, worker, "its worker was lost; it may have been processed, and is not repeated")
        else:
            self._redeliver(ticket, worker)

    def _redeliver(self, ticket: Ticket, worker: Worker) -> None:
        self._redelivered += 1
        exchange = ticket.exchange
        extra = {"action": "web.request.redelivered", "method": exchange.method, "path": exchange.path}
        _log.warning("worker %d was lost; its request goes to another", worker.pid, extra=extra | {"pid": worker.pid})
        self._put_back(ticket)

    def _put_back(self, ticket: Ticket) -> None:
        """It goes before all that wait; a suspect to a worker that has nothing else."""
        now_s = self.now_s()
        if ticket.kills < DELIVERIES_MAX - 1:
            self._admission.put_back(ticket, now_s)
        else:
            ticket.since_s = now_s
            self._suspects.append(ticket)
        self._arm(now_s)

    def _fail(self, ticket: Ticket, worker: Worker, reason: str) -> None:
        self._failed += 1
        exchange = ticket.exchange
        extra = {"action": "web.request.lost", "method": exchange.method, "path": exchange.path, "pid": worker.pid}
        _log.error("a request failed: %s", reason, extra=extra)
        self._forget(ticket)
        problem.respond(exchange, 502, reason, kind="worker-lost")

    def _condemn_request(self, ticket: Ticket) -> None:
        self._failed += 1
        self._poison += 1
        exchange = ticket.exchange
        extra = {
            "action": "web.request.poison",
            "method": exchange.method,
            "path": exchange.path,
            "count": ticket.kills,
        }
        _log.error("a request was with %d workers when they died; it is given up", ticket.kills, extra=extra)
        self._forget(ticket)
        problem.respond(exchange, 502, "this request ended every worker that it was given to", kind="poison")

    # Suspects

    def _place_suspects(self) -> None:
        while self._suspects:
            place = self.workers.pick_empty()
            if place is None or not self._give_suspect(*place):  # type: ignore[arg-type]  # the seats are links
                return

    def _give_suspect(self, worker: Worker, link: Link) -> bool:
        if link.leaving or worker.shunned or link.busy >= link.limit:
            return False
        ticket = self._suspects.popleft()
        worker.alone = True
        self._alone[ticket] = worker
        self._give(worker, link, ticket)
        self.workers.settle(worker, link)
        return True

    def _set_free(self, ticket: Ticket) -> None:
        """It has done its worker no harm, or all it could: the worker may be given more."""
        worker = self._alone.pop(ticket, None)
        if worker is not None and worker.alone:
            worker.alone = False
            for link in worker.links:
                self.workers.settle(worker, link)

    def advance(self, now_s: float) -> float:
        due_s = super().advance(now_s)
        for ticket in [ticket for ticket in self._alone if now_s >= ticket.given_s + ALONE_S]:
            self._set_free(ticket)
            self.fill()
        while self._suspects and now_s >= self._suspects[0].since_s + self._queue_timeout_s:
            self._shed_ticket(self._suspects.popleft(), "timeout")
        if self._alone or self._suspects:
            due_s = min(due_s, now_s + ALONE_S / 4)
        return due_s

    # The other ends

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.flow is not None:
            ticket.flow.abandon()
        if ticket.link is not None:
            ticket.link.cancel(ticket.number)
        elif ticket in self._suspects:
            self._suspects.remove(ticket)
            self._forget(ticket)

    def _condemn(self, ticket: Ticket) -> int:
        ticket.reported = True
        worker: Worker = ticket.link.worker  # type: ignore[union-attr]  # it runs, so it has a link, which is a Link
        if not worker.condemned:
            worker.condemned = True
            self.workers.shun(worker)
            self._look_whether_deserted()
            self.on_hung(worker.pid)
        return worker.pid

    def _waits_behind(self, ticket: Ticket) -> bool:
        link: Link = ticket.link  # type: ignore[assignment]  # it runs, so it has a link, which is a Link
        return link.serial and next(iter(link.streams)) != ticket.number

    def _is_idle(self) -> bool:
        return super()._is_idle() and not self._suspects

    def _workers(self) -> list[WorkerStatistics]:
        return self.workers.statistics()

    def statistics(self) -> DispatchStatistics:
        return msgspec.structs.replace(
            super().statistics(),
            redelivered=self._redelivered,
            taken_back=self.pipelines.taken_back,
            failed=self._failed,
            poison=self._poison,
        )


def _goes_apart(ticket: Ticket) -> bool:
    """Whether it is given to a thread that has nothing else, if there is one: it may be long, or end its worker."""
    return bool(ticket.kills) or ticket.returns >= RETURNS_MAX or ticket.exchange.length > PIECE_BYTES_MAX
