"""Before a task is run: is it wanted still, may it start, and with what? Here state is read that the task itself needs not.

What a worker has received comes here as one batch. Tasks that must wait are sent again, with a delay until their time, in
the commit that acknowledges them and reserves it. For the rest, slots and rates are taken in one commit.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from headrace.errors import StateChanged
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Transact
from headrace.work import admission, keys, limiting, limits, unique, workflows
from headrace.work.backend import Backend, committed
from headrace.work.cancelling import CancelRequests
from headrace.work.dispatch import Dispatch, entry_of
from headrace.work.job import Job
from headrace.work.limiting import Admitted, Limit, Waits
from headrace.work.outcome import Cancelled, Deferred, Outcome

log = logging.getLogger("headrace.work")

TRIES_MAX: Final = 100
"""Of a commit that others were faster than: each time, another got on. More is a bug, not contention."""


@dataclass(frozen=True, slots=True)
class HeldSlot:
    """A slot of a concurrency limit: its row, and whose it is."""

    row: bytes
    task: str


@dataclass(frozen=True, slots=True)
class Ready:
    """To be run now. `slot` is to be extended while it runs, and given back by the commit that settles it."""

    job: Job
    slot: HeldSlot | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """Nothing is left to do: it waits in the broker, and its message is acknowledged."""


Begun: TypeAlias = Ready | Sent | tuple[Job, Outcome]
"""What a job comes to. (job, outcome): to be settled without being run."""


def begin(jobs: Sequence[Job], backend: Backend, cancel_requests: CancelRequests, *, now_ms: int) -> list[Begun]:
    """What each job comes to, in their order.

    Raises:
        ReceiptExpired: a lease has ended; nothing that was to be sent again was, begin the others one by one.
        HeadraceError: the broker cannot be asked; nothing was begun.
    """
    begun = [_wanted(job, backend, cancel_requests, now_ms) for job in jobs]
    limited = [place for place, one in enumerate(begun) if isinstance(one, Ready) and one.job.options.limited]
    if limited:
        for place, one in zip(
            limited, _limited([job_of(begun[place]) for place in limited], backend, now_ms), strict=True
        ):
            begun[place] = one
    return begun


def job_of(begun: Begun) -> Job:
    assert isinstance(begun, Ready)
    return begun.job


def renew(slots: Iterable[HeldSlot], backend: Backend, *, now_ms: int) -> None:
    """Extend the leases of slots, each alone: one that was lost must not end the others'."""
    for slot in slots:
        value = backend.read(slot.row)
        after = limiting.renewed(value, task=slot.task, now_ms=now_ms) if value is not None else None
        if after is None:
            log.warning(
                "the slot of task %s was given to another: its lease had ended", slot.task,
                extra={"action": "work.slot.lost", "task_id": slot.task},
            )  # fmt: skip
            continue
        committed(backend, Transact(state=[(slot.row, after)], name=keys.NAME, expect=[(slot.row, value)]))


def release(slot: HeldSlot, read: workflows.Read, *, now_ms: int) -> tuple[workflows.Puts, workflows.Puts]:
    """(puts, expects) that give the slot back, for the commit that settles its task; nothing if it holds it no more."""
    value = read(slot.row)
    after = limiting.released(value, task=slot.task, now_ms=now_ms)
    return ([(slot.row, after)], [(slot.row, value)]) if after is not None else ([], [])


def _wanted(job: Job, backend: Backend, cancel_requests: CancelRequests, now_ms: int) -> Begun:
    if cancel_requests.wanted(job.envelope.id):
        return job, Cancelled()
    job, outcome = admission.admit(job, now_ms=now_ms, read=backend.read, stateless=not backend.capabilities.state)
    if outcome is not None:
        return job, outcome
    if unique.is_redriven(job.envelope) and not _locked(job, backend, now_ms):
        return job, Deferred(now_ms + limits.WAIT_FOR_LOCK_MS)
    return Ready(_gathered(job, backend))


def _locked(job: Job, backend: Backend, now_ms: int) -> bool:
    """Whether a redriven task has its unique lock again; while another has it, it waits."""
    dispatch = Dispatch(job.queue, job.envelope, ttl_ms=job.options.unique_ttl_ms)
    for _ in range(TRIES_MAX):
        change = unique.claim(dispatch, now_ms=now_ms, read=backend.read)
        if isinstance(change, str):
            return False
        puts, expects = list(change.puts.items()), list(change.expects.items())
        if committed(backend, Transact(state=puts, name=keys.NAME, expect=expects)):
            return True
    raise StateChanged(keys.NAME, "unique")


def _gathered(job: Job, backend: Backend) -> Job:
    """A join with its members' results."""
    joins = job.envelope.joins
    if joins is None or not joins.takes:
        return job
    rows = backend.state(keys.members(joins.id), limit=joins.count)
    return job.with_envelope(workflows.gathered(job.envelope, rows))


@dataclass(slots=True)
class _Commit:
    """The reservations of a batch, as one transaction."""

    puts: dict[bytes, bytes | None] = field(default_factory=dict)
    expects: dict[bytes, bytes | None] = field(default_factory=dict)
    sends: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    receipts: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def operation(self) -> Transact:
        return Transact(
            acknowledge=[(arn_of(queue), receipts) for queue, receipts in self.receipts.items()],
            sends=[(arn_of(queue), entries) for queue, entries in self.sends.items()],
            state=list(self.puts.items()),
            name=keys.NAME,
            expect=list(self.expects.items()),
        )

    def note(self, prefix: bytes, rows: dict[bytes, bytes], decided: Admitted | Waits) -> None:
        """Take a decision in. What is read of a key first is what is expected; later ones of the batch see what was put."""
        for suffix, value in decided.expects:
            self.expects.setdefault(prefix + suffix, value)
        for suffix, value in decided.puts:
            self.puts[prefix + suffix] = value
            if value is not None:
                rows[suffix] = value


def _limited(jobs: Sequence[Job], backend: Backend, now_ms: int) -> list[Begun]:
    for _ in range(TRIES_MAX):
        commit, begun = _decide(jobs, backend, now_ms)
        operation = commit.operation()
        if not (operation.state or operation.acknowledge) or committed(backend, operation):
            return begun
    raise StateChanged(keys.NAME, "limits")


def _decide(jobs: Sequence[Job], backend: Backend, now_ms: int) -> tuple[_Commit, list[Begun]]:
    commit = _Commit()
    seen: dict[bytes, dict[bytes, bytes]] = {}
    begun: list[Begun] = []
    for job in jobs:
        prefix = limit_prefix(job)
        if prefix not in seen:
            seen[prefix] = _rows(backend, prefix)
            _indexed(commit, prefix, seen[prefix], now_ms)
        begun.append(_decide_one(commit, job, prefix, seen[prefix], now_ms))
    return commit, begun


def _decide_one(commit: _Commit, job: Job, prefix: bytes, rows: dict[bytes, bytes], now_ms: int) -> Begun:
    envelope = job.envelope
    decided = limiting.admit(limit_of(job), rows, task=envelope.id, now_ms=now_ms, reserved_ms=envelope.reserved_ms)
    if isinstance(decided, Waits) and job.in_place:
        # It stays where it is, so it cannot carry a reservation: it asks again at the time that it would have had.
        return job, Deferred(decided.until_ms)
    commit.note(prefix, rows, decided)
    if isinstance(decided, Waits):
        reserved_ms = decided.until_ms if decided.reserved else None
        later = msgspec.structs.replace(envelope, reserved_ms=reserved_ms)
        commit.sends[job.queue].append(entry_of(job.queue, later, decided.until_ms - now_ms))
        commit.receipts[job.queue].append(job.delivery.receipt)
        return Sent()
    begun = job.with_envelope(msgspec.structs.replace(envelope, reserved_ms=None))
    return Ready(begun, HeldSlot(prefix + decided.slot, envelope.id) if decided.slot is not None else None)


def limit_of(job: Job) -> Limit:
    options = job.options
    return Limit(limiting.parse_rate(options.rate) if options.rate is not None else None, options.concurrency)


def limit_prefix(job: Job) -> bytes:
    """Where the rows of the job's limit are: its task's name, and the key that its sender made of the arguments."""
    return keys.limit(job.envelope.task, job.envelope.limit_key or "")


def _rows(backend: Backend, prefix: bytes) -> dict[bytes, bytes]:
    return {key[len(prefix) :]: value for key, value in backend.state(prefix)}


def _indexed(commit: _Commit, prefix: bytes, rows: dict[bytes, bytes], now_ms: int) -> None:
    """The first use of a key is when its rows' end is put into the index; the sweeper moves it on while it is used."""
    if not rows:
        commit.puts[keys.expiry(now_ms + limiting.IDLE_MS, prefix)] = b""
