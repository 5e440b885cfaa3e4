"""The store: sorts requests into lanes, lets them run, answers. See `store/base.py` for the contract.

It decides nothing. Attached to a broker, each lane works in a thread of its own and takes all that has gathered for it
meanwhile; alone (tests, tools), everything runs in order, on one connection, before `execute` returns.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from headrace.errors import StoreFailed
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation
from headrace.queue.store.base import Done, LaneStatistics, Offload, Ready, Request, StoreStatistics
from headrace.queue.store.local.commit_times import CommitTimes
from headrace.queue.store.postgres import maintenance, totals
from headrace.queue.store.postgres.families import LaneName, lane_of, run_in_order, run_together
from headrace.queue.store.postgres.glance import Glance
from headrace.queue.store.postgres.lane import Batch, Lane
from headrace.queue.store.postgres.missed import Missed
from headrace.queue.store.postgres.news import Listener, News, Teller
from headrace.queue.store.postgres.pulse import LATE_S, Pulse
from headrace.queue.store.postgres.shared import Shared
from headrace.queue.store.postgres.transaction import Transaction
from headrace.queue.store.postgres.upkeep import MEASURE_EACH_MS, Turn
from headrace.queue.store.postgres.watch import LOOK_EACH_MS, Watch

log = logging.getLogger("headrace.store")

KEEP_EACH_MS: Final = 1_000  # between two slices of maintenance when there is nothing to do
KEEP_AGAIN_MS: Final = 20  # and when there is: others are served between two
BATCH_MAX: Final = 1_000  # requests that one transaction takes: what fails or waits, fails or waits together


class Running:
    """A lane with the requests that wait for it."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.waiting: deque[Request] = deque()
        self.busy = False
        self.missed = Missed()
        self._batches = self._operations = 0
        self._seconds = 0.0

    def note(self, operations: int, seconds: float) -> None:
        """A batch has run."""
        self._batches += 1
        self._operations += operations
        self._seconds += seconds

    def statistics(self) -> LaneStatistics:
        return LaneStatistics(self.lane.name, self._batches, self._operations, self._seconds, len(self.waiting))


class PostgresStore:
    """One node's store."""

    durable = True
    shared = True

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._alone = Lane("alone", shared, run_in_order)
        self._lanes = {name: Running(Lane(name.value, shared, run_together)) for name in LaneName}
        self._offload: Offload | None = None
        self._ready: set[Ready] = set()
        self._watch = Watch()
        self._upkeep = Lane("upkeep", shared, run_together)
        self._pulse_lane = Lane("pulse", shared, run_together, answer_s=LATE_S)  # its own: whatever the others wait for
        self.pulse = Pulse(self._pulse_lane, others=[self._upkeep, *[running.lane for running in self._lanes.values()]])
        self._beating = False
        self._keeping = False  # the upkeep lane is at work
        self._keep_ms = 0  # when the next slice of maintenance is due
        self._glance = Glance(shared)
        self._listener = Listener(shared, self._glance)
        self._teller = Teller(shared)
        self._telling = False
        self._batch_s = 0.0  # how long the last transaction took
        self._untold: set[int | tuple[str, bytes]] = set()
        self._told_version = shared.catalog.version
        self._memory = maintenance.Memory()
        self._measure_ms = self._size_bytes = 0
        self._idle: tuple[int, int] | None = None  # when there was nothing to do, by which version of the catalogue
        self._times = CommitTimes()

    # --- the contract ---

    def attach(self, offload: Offload | None) -> None:
        self._offload = offload
        if offload is not None:
            self._listen()

    def execute(self, requests: Sequence[Request]) -> None:
        if self._offload is None:
            self._answer(requests, *self._timed(self._alone, requests))
            return
        for request in requests:
            self._lanes[lane_of(request.operation)].waiting.append(request)
        for running in self._lanes.values():
            self._start(running)

    def advance(self) -> int | None:
        if self._offload is None:
            times = (self._advance_alone(), self._watch.next_ms())
            return min((ms for ms in times if ms is not None), default=None)
        now = self._shared.clock()
        due = self._watch.next_ms()
        if not self._beating and self.pulse.due():
            self._beat()
        looks = (due is not None and due <= now) or self._shared.known.marks.due(now)
        if not self._keeping and (now >= self._keep_ms or looks):
            self._keep(now)
        if self._keeping:
            return now + KEEP_EACH_MS  # or when it is done, whichever is first
        return min(self._keep_ms, due if due is not None and due > now else self._keep_ms)

    def take_ready(self) -> set[Ready]:
        ready, self._ready = self._ready, set()
        return ready

    def find(self, queue: str) -> QueueInfo | None:
        found = self._shared.catalog.queues.get(queue)
        if found is None and self._offload is not None:
            self._glance.look()
            found = self._shared.catalog.queues.get(queue)
        return found.info if found is not None else None

    def busy(self) -> bool:
        return (
            self._keeping
            or self._beating
            or self._telling
            or any(running.busy or running.waiting for running in self._lanes.values())
        )

    def failed(self) -> StoreFailed | None:
        return None

    def away(self) -> str | None:
        return self.pulse.trouble()

    def statistics(self) -> StoreStatistics:
        lanes = tuple(running.statistics() for running in self._lanes.values())
        return StoreStatistics(
            **self._times.statistics(), size_bytes=self._size_bytes, damaged=0, failed=None, full=False, lanes=lanes
        )

    def close(self) -> None:
        self._leave()
        for lane in (self._alone, self._upkeep, self._pulse_lane, *[running.lane for running in self._lanes.values()]):
            lane.close()
        self._listener.close()
        self._glance.close()
        self._teller.close()

    # --- lanes ---

    def _start(self, running: Running) -> None:
        """Let a lane take what waits for it, unless it is at work."""
        if running.busy or not running.waiting:
            return
        assert self._offload is not None
        running.busy = True
        requests = [running.waiting.popleft() for _ in range(min(BATCH_MAX, len(running.waiting)))]

        def then(result: tuple[list[Batch], float]) -> None:
            running.busy = False
            running.note(len(requests), result[1])
            outcomes = self._answer(requests, *result)
            self._ready |= running.missed.take([request.operation for request in requests], outcomes)
            if self._offload is not None:
                self._start(running)

        self._offload(lambda: self._timed(running.lane, requests), then, running.lane.name)

    def _timed(self, lane: Lane, requests: Sequence[Request]) -> tuple[list[Batch], float]:
        started = time.perf_counter()
        return lane.run([request.operation for request in requests]), time.perf_counter() - started

    def _answer(self, requests: Sequence[Request], batches: Sequence[Batch], seconds: float) -> list[Any]:
        outcomes: list[Any] = []
        self._batch_s = seconds
        for batch in batches:
            outcomes += batch.outcomes
            if batch.transaction is not None:
                self._settle(batch.transaction)
        if any(batch.transaction is not None and batch.transaction.writes for batch in batches):
            self._times.note(seconds, len(requests))
        for request, outcome in zip(requests, outcomes, strict=True):
            _tell(request.done, outcome)
        return outcomes

    def _settle(self, tx: Transaction) -> None:
        """What a commit has brought about."""
        self._shared.known.note(tx.totals)
        self._shared.known.spent(tx.ended, tx.now)
        self._shared.known.landed(tx.landed, tx.now)
        self._became_ready(tx.places())
        self._watch.note(tx.now, empty=tx.empty, due=tx.due)
        if tx.writes:
            self._idle = None
        if self._offload is not None and tx.writes:
            self._untold |= tx.ready
            self._tell()

    def _became_ready(self, places: set[Ready]) -> None:
        self._ready |= places
        for running in self._lanes.values():
            if running.busy:
                running.missed.note(places)

    # --- other nodes ---

    def _listen(self) -> None:
        """Wait for news, again and again, while attached."""
        if self._offload is not None:
            self._offload(self._listener.hear, self._heard, "listen")

    def _heard(self, news: list[News]) -> None:
        known = self._shared.catalog.by_number
        for one in news:
            self._became_ready({known[number].arn for number in one.queues if number in known})
            self._became_ready(set(one.state))
        self._listen()

    def _tell(self) -> None:
        """Tell what others do not know yet, unless something is being told just now."""
        moved = self._shared.catalog.version > self._told_version
        if self._telling or self._offload is None or not (self._untold or moved):
            return
        untold, self._untold, self._telling = self._untold, set(), True
        self._told_version = self._shared.catalog.version
        queues = [one for one in untold if isinstance(one, int)]
        state = [one for one in untold if not isinstance(one, int)]
        tell = partial(self._teller.tell, queues, state, catalog=moved, batch_s=self._batch_s)
        self._offload(tell, self._has_told, "tell")

    def _has_told(self, _: None) -> None:
        self._telling = False
        self._tell()

    # --- what time does ---

    def _turn(self, now: int, *, maintains: bool) -> Turn:
        """What the upkeep has to do now."""
        measures = now >= self._measure_ms
        if measures:
            self._measure_ms = now + MEASURE_EACH_MS
            catalog = self._shared.catalog
            self._shared.known.keep_only({*catalog.by_number, *[topic.number for topic in catalog.topics.values()]})
        memory = self._memory if maintains else None
        return Turn(self._watch.to_look_into(now), memory, self._shared.known.to_tell(now), measures)

    def _advance_alone(self) -> int | None:
        """A turn, unless the last one was the end of a round that found nothing, at this very time, and since then this node has
        written nothing, and heard of no other catalogue."""
        now = self._shared.clock()
        due_ms = self._watch.next_ms()
        if self._idle == (now, self._shared.catalog.version) and (due_ms is None or due_ms > now):
            return None
        turn = self._turn(now, maintains=True)
        batches = self._alone.run([], turn.run)
        idle = batches[0].transaction is not None and turn.next_ms is None and self._memory.at_start()
        self._idle = (now, self._shared.catalog.version) if idle else None
        self._turned(turn, batches, now)  # which may have written
        return turn.next_ms

    def _keep(self, now: int) -> None:
        """Do a turn in a lane of its own, with a slice of maintenance if that is due."""
        assert self._offload is not None
        maintains = now >= self._keep_ms
        turn = self._turn(now, maintains=maintains)

        def then(batches: list[Batch]) -> None:
            self._keeping = False
            self._turned(turn, batches, now)
            if maintains:
                next_ms = now + KEEP_EACH_MS if turn.next_ms is None else turn.next_ms
                self._keep_ms = min(now + KEEP_EACH_MS, max(now + KEEP_AGAIN_MS, next_ms))

        self._keeping = True
        self._offload(lambda: self._upkeep.run([], turn.run), then, self._upkeep.name)

    def _beat(self) -> None:
        assert self._offload is not None

        def work() -> None:
            self.pulse.beat()
            self._pulse_lane.correct_clock()

        def then(_: None) -> None:
            self._beating = False

        self._beating = True
        self._offload(work, then, self._pulse_lane.name)

    def _turned(self, turn: Turn, batches: Sequence[Batch], now: int) -> None:
        """What a turn has found, unless it has failed."""
        committed = batches[0].transaction
        if turn.sums is not None:
            self._shared.known.told(turn.sums, committed=committed is not None)
        if committed is None:  # the database is away: look again
            turn.seen, turn.next_ms = dict.fromkeys(turn.due, now + LOOK_EACH_MS), None
        else:
            self._settle(committed)
            self._size_bytes = turn.size_bytes or self._size_bytes
        for queue, next_ms in turn.seen.items():
            self._watch.seen(queue, next_ms, now)

    def _leave(self) -> None:
        """Write down what others would miss."""
        sums = self._shared.known.to_tell(self._shared.clock(), last=True) or []
        lane = self._alone if self._offload is None else self._upkeep

        def leave(tx: Transaction, _: Sequence[Operation]) -> list[Any]:
            totals.leave(tx, sums)
            return []

        lane.last(leave)


def _tell(done: Done, outcome: Any) -> None:
    """Answer one request. What goes wrong in the answering is that request's misfortune, not its neighbours'."""
    try:
        done(outcome)
    except Exception:
        log.exception("an answer could not be given", extra={"action": "store.answer"})
