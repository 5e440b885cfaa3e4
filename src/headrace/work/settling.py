"""What a run's outcome changes: one commit with the acknowledgement. Pure but for the state that it reads.

A retry, a dead letter, a result, the next of a chain, a unique lock's release and an outbox are parts of that commit: a
worker that dies before it has done nothing, one that dies after it has done everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import msgspec

from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Transact
from headrace.work import cancel_request, dead_letters, keys, limits, results, retries, unique, workflows
from headrace.work.admission import Read
from headrace.work.dispatch import Sendable, entry_of
from headrace.work.envelope import Signature
from headrace.work.job import Job, encode_attempts
from headrace.work.outcome import Cancelled, Deferred, ErrorInfo, Expired, Failed, Outcome, Succeeded

Disposition: TypeAlias = Literal["succeeded", "retried", "dead", "cancelled", "expired", "deferred"]
"""What became of the task."""

VISIBILITY_MAX_MS: Final = 43_200_000  # SQS: 12 hours from the receive
_MARGIN_MS: Final = 60_000  # of the lease's life, for the time since the receive


@dataclass(slots=True)
class Settlement:
    """Changes of one job.

    Attributes:
        queue: the plain name of the job's queue.
        receipt: of its delivery.
        disposition: what became of the task.
        acknowledge: the message is deleted; else it is shown again after `release_ms`, once the rest is committed.
        release_ms: see `acknowledge`.
        sends: (queue, message).
        puts: key → value, None removes.
        expects: key → value that must be there before, None: nothing.
        error: why it was retried or is dead.
        delay_ms: until the next attempt.
    """

    queue: str
    receipt: bytes
    disposition: Disposition
    acknowledge: bool = True
    release_ms: int = 0
    sends: list[tuple[str, Entry]] = field(default_factory=list)
    puts: dict[bytes, bytes | None] = field(default_factory=dict)
    expects: dict[bytes, bytes | None] = field(default_factory=dict)
    error: ErrorInfo | None = None
    delay_ms: int = 0

    def add(self, change: unique.Change) -> None:
        self.puts |= change.puts
        self.expects |= change.expects


def settle(job: Job, outcome: Outcome, *, now_ms: int, read: Read, worker: str = "") -> Settlement:
    """What to commit.

    Args:
        job: as `admit` gave it.
        outcome: how it ended.
        now_ms: wall clock.
        read: state under `work`; what was read is expected again at the commit.
        worker: who ran it, for the history.
    """
    match outcome:
        case Succeeded():
            return _succeeded(job, outcome, now_ms, read)
        case Failed():
            return _failed(job, outcome, now_ms, read, worker)
        case Cancelled():
            return _ended(job, "cancelled", now_ms, read)
        case Expired():
            return _ended(job, "expired", now_ms, read)
        case Deferred():
            return _deferred(job, outcome, now_ms)


def _succeeded(job: Job, outcome: Succeeded, now_ms: int, read: Read) -> Settlement:
    settlement = _ended(job, "succeeded", now_ms, read, value=outcome.result)
    for signature in job.envelope.then:
        settlement.sends.append((signature.queue, _next(job, signature, outcome.result)))
    for dispatch in outcome.outbox:
        _send(settlement, dispatch, now_ms, read)
    return settlement


def _failed(job: Job, outcome: Failed, now_ms: int, read: Read, worker: str) -> Settlement:
    if not outcome.counted:
        job = job.with_envelope(job.envelope.with_failure(outcome.error, at_ms=now_ms, worker=worker))
    if outcome.final or not retries.is_left(job.envelope.failures, job.retries_max):
        settlement = _ended(job, "dead", now_ms, read, error=outcome.error)
        settlement.sends.append(dead_letters.dead_letter(job, outcome.error))
        return settlement
    return _again(job, "retried", _wait_ms(job, outcome), outcome.error)


def _wait_ms(job: Job, outcome: Failed) -> int:
    if outcome.delay_ms is not None:
        return outcome.delay_ms
    failures = job.envelope.failures
    return job.options.backoff.wait_ms(failures, retries.roll(job.envelope.id, failures))


def _deferred(job: Job, outcome: Deferred, now_ms: int) -> Settlement:
    return _again(job, "deferred", max(0, outcome.until_ms - now_ms), None)


def _again(job: Job, disposition: Disposition, delay_ms: int, error: ErrorInfo | None) -> Settlement:
    """The task is to be run later: a new message in one commit with the old one's end; or the same one, shown later."""
    settlement = Settlement(job.queue, job.delivery.receipt, disposition, error=error, delay_ms=delay_ms)
    if job.in_place:
        settlement.acknowledge = False
        settlement.release_ms = min(delay_ms, VISIBILITY_MAX_MS - _MARGIN_MS)
        settlement.puts[keys.attempts(job.envelope.id)] = encode_attempts(job, job.envelope)
        settlement.puts[_attempts_end(job)] = b""
    else:
        settlement.sends.append((job.queue, entry_of(job.queue, job.envelope, delay_ms)))
        if (
            job.envelope.result_ttl_s is not None and disposition == "retried"
        ):  # whoever has a handle may look meanwhile
            settlement.puts[keys.attempts(job.envelope.id)] = encode_attempts(job, job.envelope)
            settlement.puts[_attempts_end(job)] = b""
    return settlement


def _ended(
    job: Job,
    disposition: Literal["succeeded", "dead", "cancelled", "expired"],
    now_ms: int,
    read: Read,
    *,
    value: msgspec.Raw | None = None,
    error: ErrorInfo | None = None,
) -> Settlement:
    """The task is over: its result is kept, its lock and its attempts are removed."""
    settlement = Settlement(job.queue, job.delivery.receipt, disposition, error=error)
    settlement.puts |= results.rows(job.envelope, disposition, now_ms=now_ms, keep_s=None, value=value, error=error)
    settlement.add(unique.release(job.envelope, read=read))
    if disposition == "cancelled":
        settlement.puts |= cancel_request.fulfilled(job.envelope.id, read)
    if disposition == "succeeded":
        _flow(settlement, job, workflows.finished(job.envelope, value, read), now_ms)
    else:
        reason = error or ErrorInfo(disposition.capitalize(), f"task {job.envelope.id} was {disposition}")
        _flow(settlement, job, workflows.failed(job.envelope, reason, read), now_ms)
    kept = job.in_place and job.delivery.receives > 1
    if kept or (job.envelope.result_ttl_s is not None and job.envelope.attempt > 0):
        settlement.puts[keys.attempts(job.envelope.id)] = None
        settlement.puts[_attempts_end(job)] = None
    return settlement


def _attempts_end(job: Job) -> bytes:
    """The index row of what is kept beside a message: it goes when the message itself would expire; or, of one that is sent
    anew again and again, in any case."""
    since_ms, life = (job.delivery.message.sent_ms, 1) if job.in_place else (job.envelope.sent_ms, 2)
    return keys.expiry(since_ms + life * limits.RETENTION_MS, keys.attempts(job.envelope.id))


def _flow(settlement: Settlement, job: Job, part: workflows.Part, now_ms: int) -> None:
    """What the task's end means for the group that it is in, and for tasks that will never run."""
    settlement.puts |= dict(part.puts)
    settlement.expects |= dict(part.expects)
    settlement.sends += [(signature.queue, _next(job, signature, None)) for signature in part.sends]
    if part.gathered is not None:
        settlement.puts |= results.rows(part.gathered, "succeeded", now_ms=now_ms, keep_s=None)
    for envelope, error in part.failed:
        settlement.puts |= results.rows(envelope, "dead", now_ms=now_ms, keep_s=None, error=error)


def _next(job: Job, signature: Signature, result: msgspec.Raw | None) -> Entry:
    before = job.envelope
    next_one = filled(signature, result, parent=before.id, trace=before.trace)
    return entry_of(signature.queue, next_one.envelope, signature.delay_ms)


def filled(signature: Signature, result: msgspec.Raw | None, *, parent: str, trace: str | None = None) -> Signature:
    """The signature with the result before it as the argument that it takes, in the trace of the task before it."""
    trace = signature.envelope.trace or trace
    envelope = msgspec.structs.replace(signature.envelope, parent=parent, trace=trace)
    if signature.takes:
        envelope = workflows.with_argument(envelope, signature.takes, result or workflows.NONE)
    return msgspec.structs.replace(signature, envelope=envelope)


def _send(settlement: Settlement, dispatch: Sendable, now_ms: int, read: Read) -> None:
    """One of an outbox: its lock, if it has one, is taken in the same commit; held by another, it is not sent."""

    def overlaid(key: bytes) -> bytes | None:
        return settlement.puts[key] if key in settlement.puts else read(key)

    change = unique.claim(dispatch, now_ms=now_ms, read=overlaid)
    if isinstance(change, str):
        return
    change.expects = {key: value for key, value in change.expects.items() if key not in settlement.puts}
    settlement.add(change)
    settlement.puts |= dict(dispatch.puts)
    settlement.sends.append((dispatch.queue, dispatch.entry()))


def begun(job: Job, *, read: Read) -> Transact | None:
    """What to commit before it runs: the release of a lock that lasts until it is started. Mostly nothing."""
    if job.envelope.unique is None or job.envelope.unique.until != "started":
        return None
    change = unique.release(job.envelope, read=read)
    if not change.puts:
        return None
    return Transact(state=list(change.puts.items()), name=keys.NAME, expect=list(change.expects.items()))


class Batch:
    """Settlements of many jobs as one Transact: each sees what those before it write.

    Read through `read` when settling; then `add`. A batch that is refused is thrown away and its jobs settled anew.
    """

    def __init__(self, fetch: Read) -> None:
        self._fetch = fetch
        self._known: dict[bytes, bytes | None] = {}
        self._puts: dict[bytes, bytes | None] = {}
        self._expects: dict[bytes, bytes | None] = {}
        self._receipts: dict[str, list[bytes]] = {}
        self._sends: dict[str, list[Entry]] = {}
        self.releases: dict[str, list[tuple[bytes, int]]] = {}
        """After the commit: queue → (receipt, ms) of messages that are kept and shown again."""

    def read(self, key: bytes) -> bytes | None:
        if key in self._puts:
            return self._puts[key]
        if key not in self._known:
            self._known[key] = self._fetch(key)
        return self._known[key]

    def add(self, settlement: Settlement) -> None:
        for key, value in settlement.expects.items():
            if key not in self._puts:
                self._expects[key] = value
        self._puts |= settlement.puts
        if settlement.acknowledge:
            self._receipts.setdefault(settlement.queue, []).append(settlement.receipt)
        else:
            self.releases.setdefault(settlement.queue, []).append((settlement.receipt, settlement.release_ms))
        for queue, entry in settlement.sends:
            self._sends.setdefault(queue, []).append(entry)

    def operation(self) -> Transact:
        return Transact(
            [(arn_of(queue), receipts) for queue, receipts in self._receipts.items()],
            [(arn_of(queue), entries) for queue, entries in self._sends.items()],
            list(self._puts.items()),
            name=keys.NAME,
            expect=list(self._expects.items()),
            holds=[(arn_of(queue), [receipt for receipt, _ in kept]) for queue, kept in self.releases.items()],
        )
