"""Redrive: when a received message goes to the dead-letter queue instead, and who may be one.

Pure. Source: SQS, "Using dead-letter queues", SetQueueAttributes (RedrivePolicy, RedriveAllowPolicy).
"""

from __future__ import annotations

from enum import Enum

from headrace.errors import RedriveRefused
from headrace.queue.model import Message, QueueInfo, QueueSettings, RedriveAllow


class Verdict(Enum):
    """What becomes of a message that is about to be received."""

    DELIVER = "deliver"
    EXPIRE = "expire"
    DEAD_LETTER = "dead letter"


def judge(message: Message, receives: int, settings: QueueSettings, now: int) -> Verdict:
    """`receives`: how often it has been received from this queue, this time not counted."""
    return verdict_of(settings, sent_ms=message.sent_ms, receives=receives, now=now)


def verdict_of(settings: QueueSettings, *, sent_ms: int, receives: int, now: int) -> Verdict:
    """As `judge`, of a message that is not at hand."""
    if sent_ms + settings.retention_ms <= now:
        return Verdict.EXPIRE
    if settings.redrive is not None and receives >= settings.redrive.receives_max:
        return Verdict.DEAD_LETTER
    return Verdict.DELIVER


def check_target(source: str, *, fifo: bool, target_arn: str, target: QueueInfo | None) -> None:
    """Raise RedriveRefused unless `target` may take the dead letters of queue `source`."""
    reason = _refusal(source, fifo=fifo, target_arn=target_arn, target=target)
    if reason is not None:
        raise RedriveRefused(source, target_arn, reason)


def same_account(source: str, target: str) -> bool:
    """Whether two queues (ARNs) are of one account and one region: messages may not leave it by redrive."""
    return source.rpartition(":")[0] == target.rpartition(":")[0]


def _refusal(source: str, *, fifo: bool, target_arn: str, target: QueueInfo | None) -> str | None:
    if not same_account(source, target_arn):
        return "a dead-letter queue must be of the same account and region as its source"
    if target is None:
        return "it does not exist"
    if target.settings.fifo != fifo:
        return "a FIFO queue's dead-letter queue must be FIFO, a standard queue's standard"
    if not allows(target.settings.redrive_allow, source):
        return "its RedriveAllowPolicy does not allow this source"
    return None


def allows(policy: RedriveAllow, source: str) -> bool:
    if policy.permission == "byQueue":
        return source in policy.sources
    return policy.permission == "allowAll"
