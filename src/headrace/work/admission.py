"""Whether a job is to be run: pure but for what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from headrace.work import keys, limits
from headrace.work.job import Job, with_attempts
from headrace.work.outcome import Cancelled, ErrorInfo, Expired, Failed, Outcome
from headrace.work.retries import is_left

Read: TypeAlias = "Callable[[bytes], bytes | None]"
"""The value under a key of the name `work`."""

LOST: Final = ErrorInfo("WorkerLost", "the worker that ran it died, or its lease ended")


def admit(job: Job, *, now_ms: int, read: Read, stateless: bool = False) -> tuple[Job, Outcome | None]:
    """The job with the attempts that were lost counted in; and None if it is to be run, else how it ends without.

    State is read only for a message that was received before, or is a retry: the first attempt costs nothing.

    Args:
        stateless: the broker keeps no state (SQS). What became of the receives of a message that is retried in its place
            is not known then, so each is taken for a failure.
    """
    again = job.delivery.receives > 1 or job.envelope.attempt > 0
    if again and job.in_place:
        job = with_attempts(job, read(keys.attempts(job.envelope.id)))
    lost = job.lost
    job = _with_losses(job, lost, now_ms, failed=stateless and job.in_place)
    return job, _refusal(job, lost, now_ms, wished=again and read(keys.cancel(job.envelope.id)) is not None)


def _refusal(job: Job, lost: int, now_ms: int, *, wished: bool) -> Outcome | None:
    expires_ms = job.envelope.expires_ms
    if wished:
        return Cancelled()
    if expires_ms is not None and now_ms >= expires_ms:
        return Expired()
    if job.problem is not None:
        return Failed(job.problem, final=job.problem.type != "TaskNotFound")  # a rollout brings the task, maybe
    envelope = job.envelope
    if lost and (envelope.losses > job.losses_max or not is_left(envelope.failures, job.retries_max)):
        return Failed(LOST, final=True, counted=True)
    return None


def _with_losses(job: Job, lost: int, now_ms: int, *, failed: bool) -> Job:
    envelope = job.envelope
    for _ in range(min(lost, limits.RETRIES_MAX)):
        envelope = envelope.with_failure(LOST, at_ms=now_ms, lost=not failed)
    return job.with_envelope(envelope, job.accounted + lost)
