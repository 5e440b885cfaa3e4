"""The local store: runs requests against memory, commits to the disk, shows what is durable.

One commit at a time. While it is on its way (in a thread, when the disk is slow) the next is being planned. Where the
commit runs is measured, not believed: hand-offs between threads cost more than a fast disk's sync, and on a slow disk
parsing goes on meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from headrace.clock import Clock
from headrace.errors import CallerError, HeadraceError, StoreError, StoreFailed, StoreFull, Unavailable
from headrace.queue import limits
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Claim, CreateQueue, CreateTopic, Operation
from headrace.queue.store.base import Done, Offload, Ready, Request, StoreStatistics
from headrace.queue.store.disk import Batch, Disk
from headrace.queue.store.local import expiry, log_work, moves, recovery
from headrace.queue.store.local.commit_times import CommitTimes
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.planners import LEASES, PLANNERS, READS, frees
from headrace.queue.store.local.state import LocalState, Plan

log = logging.getLogger("headrace.store")

SLOW_SYNC_S: Final = 0.001  # measured: a sync of 0.13–0.2 ms is faster on the loop, one of 4 ms in a thread
SWEEP_SLICE: Final = 2_000  # purged rows deleted in one go
RESERVE_RETRY_MS: Final = 1_000
LOG_REFUSED_EACH_MS: Final = limits.MINUTE_MS


def tell(done: Done, outcome: Any) -> None:
    """Answer one request. What goes wrong in the answering is that request's misfortune, not its neighbours'."""
    try:
        done(outcome)
    except Exception:
        log.exception("an answer could not be given", extra={"action": "store.answer"})


class LocalStore:
    """A store with its rules in memory and its rows on `disk`. See `store/base.py` for the contract.

    Invariants: one commit is on its way at most; what a commit sends is shown after it is durable; after the first
    failure of the disk that is not "full", nothing is written any more and every request is answered StoreFailed.
    """

    shared = False

    def __init__(self, disk: Disk, clock: Clock, *, cooldowns: bool = True) -> None:
        self.durable = disk.durable
        self._disk = disk
        self._clock = clock
        stored = disk.load()
        self.state = LocalState(disk, stored.secret, cooldowns=cooldowns)
        disk.on_damage = lambda key, reason: self.state.quarantine(key, reason, self._clock())
        self._offload: Offload | None = None
        self._failed: StoreFailed | None = None
        self._full = False
        self._tidying = False  # a checkpoint in the thread, with commits waiting
        self._aside = False  # a checkpoint in the thread, with commits going on
        self._refused_logged_ms = 0
        self._full_logged_ms = 0
        self._full_logged = False
        self._again_ms = 0  # when sweeps, snapshots and checkpoints that found no room on the disk are tried again
        self._reserve_ms = 0
        self._times = CommitTimes()
        recovery.restore(self.state, stored, clock())

    # --- the contract ---

    def attach(self, offload: Offload | None) -> None:
        self._offload = offload

    def execute(self, requests: Sequence[Request]) -> None:
        now = self._clock()
        answers: list[tuple[Done, Any]] = []
        state = self.state
        for request in requests:
            operation = request.operation
            outcome = self._plan(operation, now)
            plan = state.plan
            leased = (
                plan.batch.sync_leases and type(operation) in LEASES and isinstance(outcome, list) and outcome != []
            )
            if type(operation) in READS and not leased:
                answers.append((request.done, outcome))
            else:
                plan.waiting.append((request.done, outcome, operation))
        self._answer(answers)
        self._commit()

    def advance(self) -> int | None:
        if self._failed is not None:
            return None
        now = self._clock()
        state = self.state
        try:
            for queue in list(state.watched.values()):
                self._advance_queue(queue, now)
            if self._may_plan():
                moves.step(state, now)
                log_work.retain(state, now)
            if not self._tidying and not self._full:
                log_work.catch_up(state, now)
        except StoreError as error:
            self._refuse(error)
        self._answer([])
        self._commit()
        self._watch_reserve()
        self._house_keeping(now)
        return self._next_ms(now)

    def take_ready(self) -> set[Ready]:
        ready, self.state.ready = self.state.ready, set()
        return ready

    def find(self, queue: str) -> QueueInfo | None:
        found = self.state.queues.get(queue)
        return found.info if found is not None else None

    def busy(self) -> bool:
        return self.state.flying is not None or self._tidying or self._aside or bool(self.state.plan.waiting)

    def failed(self) -> StoreFailed | None:
        return self._failed

    def away(self) -> str | None:
        return None

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            **self._times.statistics(),
            size_bytes=self._disk.size_bytes(),
            damaged=self.state.damaged,
            failed=str(self._failed) if self._failed is not None else None,
            full=self._full,
        )

    def close(self) -> None:
        self._disk.close()

    # --- planning ---

    def _plan(self, operation: Operation, now: int) -> Any:
        if self._failed is not None:
            return self._failed
        if self._full and self._needs_space(operation):
            return StoreFull(str(self._disk))
        before = self.state.plan.weight()
        try:
            return PLANNERS[type(operation)](self.state, operation, now)
        except CallerError as error:
            return error
        except StoreError as error:
            return self._refuse(error)
        except Exception as error:  # noqa: BLE001 - a bug, whatever it is
            return self._survive(operation, error, unchanged=self.state.plan.weight() == before)

    def _needs_space(self, operation: Operation) -> bool:
        """Whether it is refused on a full disk. Consumers, too, create their queues at each start: those that exist do not
        need any."""
        match operation:
            case CreateQueue():
                return operation.queue not in self.state.queues
            case CreateTopic():
                return operation.topic not in self.state.topics
            case _:
                return type(operation) not in READS and not frees(operation)

    def _survive(self, operation: Operation, error: Exception, *, unchanged: bool) -> StoreError:
        """A bug. If the operation has planned nothing yet it is only refused; if half of it is planned, nothing may be
        committed any more."""
        name = type(operation).__name__
        log.error("planning %s failed", name, exc_info=error, extra={"action": "store.bug"})
        if unchanged and type(operation) not in LEASES | {Claim}:
            return Unavailable(f"an error of headrace itself in {name}, nothing was changed: {error!r}")
        return self._refuse(StoreFailed(f"a bug in planning {name}: {error!r}"))

    def _refuse(self, error: StoreError) -> StoreError:
        if isinstance(error, StoreFailed):
            self._fail(error)
        return error

    def _fail(self, error: StoreFailed) -> None:
        """The end: a failed sync may have lost what it was to keep, so nothing may be acknowledged any more."""
        if self._failed is None:
            self._failed = error
            log.critical("the store has failed: %s", error.reason, extra={"action": "store.failed"})

    def _answer(self, answers: list[tuple[Done, Any]]) -> None:
        """Write the leases noted, then give out what was leased."""
        try:
            self._disk.flush_leases()
        except StoreError as error:
            self._refuse(error)
            answers = [(done, error) for done, _ in answers]
            self._refuse_leases(error)
        for done, outcome in answers:
            tell(done, outcome)

    def _refuse_leases(self, error: StoreError) -> None:
        """FIFO leases wait for the commit: what could not be written must not be answered by it. (In memory they hold
        until their timeout; nobody has them.)"""
        waiting = self.state.plan.waiting
        waiting[:] = [
            (done, error if type(operation) in LEASES else outcome, operation) for done, outcome, operation in waiting
        ]

    # --- committing ---

    def _commit(self) -> None:
        """Send the plan on its way, if none is."""
        state = self.state
        if state.flying is not None or self._tidying:
            return
        plan = state.plan
        if plan.logs:
            plan.batch.logs = {number: topic.log() for number, topic in plan.logs.items()}
        if not plan.batch and not plan.waiting:
            return
        state.plan = Plan(Batch())
        if not plan.batch:
            self._settled(plan)
            return
        plan.batch.now_ms = self._clock()
        plan.batch.progress = {number: (queue.messages, queue.reserved) for number, queue in plan.touched.items()}
        state.flying = plan
        started = time.perf_counter()
        error = self._try(lambda: self._disk.prepare(plan.batch))
        if error is not None:
            self._written(plan, error, started)
        elif self._offload is not None and self._disk.sync_seconds > SLOW_SYNC_S:
            self._offload(lambda: self._try(self._disk.commit), lambda error: self._written(plan, error, started))
        else:
            self._written(plan, self._try(self._disk.commit), started)

    def _try(self, work: Callable[[], None]) -> StoreError | None:
        """What `work` on the disk raised, in whatever thread."""
        if self._failed is not None:
            return self._failed
        try:
            work()
        except StoreError as error:
            return error
        except Exception as error:  # in a thread nobody else would see it, and everybody would wait for ever
            log.exception("the disk failed in an unknown way", extra={"action": "store.bug"})
            return StoreFailed(f"a bug in the store: {error!r}")
        return None

    def _written(self, plan: Plan, error: StoreError | None, started: float) -> None:
        """The commit is done, or has failed."""
        self.state.flying = None
        if error is None:
            batch = plan.batch
            self._times.note(
                time.perf_counter() - started, len(batch.inserts) + len(batch.deletes) + len(batch.changes)
            )
            self._settled(plan)
        elif isinstance(error, StoreFailed):
            self._fail(error)
            for done, _, _ in plan.waiting:
                tell(done, error)
        else:
            self._refused(plan, error)
        self._watch_reserve()
        self._snapshot_leases()
        self._tidy()
        if self.state.plan.batch or self.state.plan.waiting:
            self._commit()

    def _settled(self, plan: Plan) -> None:
        """The commit is durable: show what it sent, free what it deleted, answer."""
        state = self.state
        now = self._clock()
        for settle in plan.settle:
            settle(now)
        for queue, sent, _new in plan.sent:
            if not queue.dropped and queue.settle(sent, state.cache):
                state.ready.add(queue.info.arn)
        if plan.puts:
            state.ready.update([place for place, value in plan.puts.items() if value is not None])
        for queue, seq, lease, active, _rows in plan.held:
            if lease.group is not None and not queue.dropped and seq >= queue.floor:
                queue.order.deleted(seq, lease, now, active=active)
                if queue.info.settings.fifo:
                    state.ready.add(queue.info.arn)
        for done, outcome, _ in plan.waiting:
            tell(done, outcome)

    def _refused(self, plan: Plan, error: StoreError) -> None:
        """The commit changed nothing: the disk is full, or another program holds the database. Take back this plan and
        the one after it; what frees room runs again in the room that is kept for it, the rest is refused."""
        self._log_refused(error)
        later, self.state.plan = self.state.plan, Plan(Batch())
        self._take_back(later)
        self._take_back(plan)
        again = isinstance(error, StoreFull) and bool(
            plan.batch.inserts
        )  # without them it did not fit even with the reserved room: no second try
        now = self._clock()
        for done, outcome, operation in plan.waiting + later.waiting:
            if again and frees(operation):
                self.state.plan.waiting.append((done, self._plan(operation, now), operation))
            elif isinstance(outcome, HeadraceError):
                tell(done, outcome)
            else:
                tell(done, error)

    def _take_back(self, plan: Plan) -> None:
        self.state.topics_due_ms = 0
        for undo in reversed(plan.undo):
            undo()
        for queue, seq, lease, active, rows in reversed(plan.held):
            if seq >= queue.floor:  # no purge was settled meanwhile
                queue.order.put_back(seq, lease, active=active)
            queue.messages += rows
            queue.deleted -= 1
        for queue, sent, new in plan.sent:
            queue.messages -= len(sent)
            queue.sent -= len(sent) if new else 0
        self.state.ready.update(queue.info.arn for queue in plan.touched.values())

    def _watch_reserve(self) -> None:
        """Once the kept room is used, sends are refused until it is kept again: they would only eat it."""
        if not self._full and not self._disk.reserved():
            self._full = True
            now = self._clock()
            self._reserve_ms = now + RESERVE_RETRY_MS
            if now - self._full_logged_ms >= LOG_REFUSED_EACH_MS or not self._full_logged_ms:
                self._full_logged, self._full_logged_ms = True, now
                log.error(
                    "the disk of %s is full: sends are refused until there is space again; receives and deletes go on",
                    self._disk, extra={"action": "store.full"},
                )  # fmt: skip

    def _look_for_room(self, now: int) -> None:
        """Accept sends again when there is room for more than the reserve."""
        if not self._full or now < self._reserve_ms:
            return
        self._reserve_ms = now + RESERVE_RETRY_MS
        self._full = not self._disk.reserve()
        if not self._full and self._full_logged:
            self._full_logged = False
            log.warning(
                "the disk of %s has space again: sends are accepted", self._disk, extra={"action": "store.not_full"}
            )

    def _log_refused(self, error: StoreError) -> None:
        """Another program holds the database. (A full disk is logged where it begins and ends.)"""
        now = self._clock()
        if not isinstance(error, StoreFull) and now - self._refused_logged_ms >= LOG_REFUSED_EACH_MS:
            self._refused_logged_ms = now
            log.error("%s", error, extra={"action": "store.busy"})

    # --- what time does ---

    def _may_plan(self) -> bool:
        """Whether the store may add commits of its own: one slice a commit, and none on a full disk."""
        return self.state.flying is None and not self._tidying and not self._full

    def _advance_queue(self, queue: LocalQueue, now: int) -> None:
        if not queue.messages:
            queue.expire_check_ms = None
        if queue.dropped or queue.idle():
            del self.state.watched[queue.number]
            return
        if queue.advance(now):
            self.state.ready.add(queue.info.arn)
        if queue.expire_check_ms is not None and queue.expire_check_ms <= now and self._may_plan():
            expiry.expire(self.state, queue, now)

    def _may_sweep(self, now: int) -> bool:
        return self.state.flying is None and not self._tidying and now >= self._again_ms

    def _house_keeping(self, now: int) -> None:
        state = self.state
        try:
            if state.garbage and self._may_sweep(now):
                state.garbage = self._disk.sweep(SWEEP_SLICE)
            if self._may_sweep(now):
                log_work.trim(state, now)
        except StoreError as error:
            self._later(error)
        self._look_for_room(now)
        if state.flying is None and not self._tidying:
            self._snapshot_leases()
            self._tidy()  # what was swept went through the WAL, too

    def _tidy(self) -> None:
        """A checkpoint, when one is due: after the answers, and where commits run."""
        if self._aside or not self._disk.tidy_due() or self._clock() < self._again_ms:
            return
        if self._offload is None:
            self._tidied(self._try(self._disk.tidy))
        elif self._disk.sync_seconds <= SLOW_SYNC_S:
            self._aside = True  # commits go on, on the loop, while the bulk is done in the thread
            self._offload(lambda: self._try(self._disk.tidy_aside), self._tidied_aside)
        else:
            self._tidying = True
            self._offload(lambda: self._try(self._disk.tidy), self._tidied)

    def _tidied_aside(self, error: StoreError | None) -> None:
        self._aside = False
        if error is None and self.state.flying is None:
            error = self._try(self._disk.tidy)
        if error is not None:
            self._later(error)

    def _tidied(self, error: StoreError | None) -> None:
        was_away, self._tidying = self._tidying, False
        if error is not None:
            self._later(error)
        if was_away:
            self._commit()

    def _snapshot_leases(self) -> None:
        try:
            if self._disk.leases_want_snapshot() and self._clock() >= self._again_ms:
                self._disk.snapshot_leases(recovery.lease_records(self.state))
        except StoreError as error:
            self._later(error)

    def _later(self, error: StoreError) -> None:
        """Work that nobody waits for has failed; if for lack of room, it is tried again in a while."""
        self._again_ms = self._clock() + RESERVE_RETRY_MS
        self._refuse(error)

    def _next_ms(self, now: int) -> int | None:
        state = self.state
        times = [queue.next_ms() for queue in state.watched.values()]
        if self._may_plan():
            times += [queue.expire_check_ms for queue in state.watched.values()]
            times.append(moves.next_ms(state, now))
            times.append(log_work.next_ms(state, now))
        if state.garbage:
            times.append(max(now, self._again_ms))
        if self._full:
            times.append(self._reserve_ms)
        return min((ms for ms in times if ms is not None), default=None)
