"""Checks of what is asked that every store makes: sizes, ranges, ids. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from headrace.errors import BatchTooLong, InvalidMessage, InvalidParameter, MessageTooLong, MissingParameter
from headrace.formatting import seconds_text
from headrace.queue import attributes, limits
from headrace.queue.dedup import dedup_key
from headrace.queue.model import ID, Entry, QueueSettings

_SOURCE: Final = re.compile(r"arn:aws:sqs:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_.-]{1,80}")


def check_batch(entries: list[Entry]) -> None:
    """Raise unless this many messages, this many bytes, may come in one call of the native API."""
    if not 1 <= len(entries) <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("entries", str(len(entries)), f"1 to {limits.NATIVE_BATCH_MAX} messages a call")
    if len(entries) > 1:
        size = sum([len(entry.body) + len(entry.attributes) for entry in entries])
        if size > limits.NATIVE_BATCH_BYTES_MAX:
            raise BatchTooLong(size, limits.NATIVE_BATCH_BYTES_MAX)


def check_entry(settings: QueueSettings, entry: Entry) -> None:
    """Raise unless this queue takes this message."""
    size = len(entry.body)
    if not size:
        raise InvalidMessage("the body is empty; it must have at least 1 character")
    if entry.attributes:
        size += attributes.size_bytes(entry.attributes)
    if size > settings.max_message_bytes:
        raise MessageTooLong(size, settings.max_message_bytes)
    if entry.group is not None and not ID.fullmatch(entry.group):
        raise InvalidParameter("MessageGroupId", entry.group[:200], "1 to 128 alphanumeric and punctuation characters")
    if entry.delay_ms is not None and not 0 <= entry.delay_ms <= limits.DELAY_MAX_MS:
        _check_long_delay(settings, entry.delay_ms)
    if entry.source is not None and not _SOURCE.fullmatch(entry.source):
        raise InvalidParameter(
            "source", entry.source[:200], "it is the ARN of a queue: arn:aws:sqs:REGION:ACCOUNT:NAME"
        )
    if settings.fifo:
        if entry.delay_ms:
            raise InvalidParameter(
                "DelaySeconds",
                seconds_text(entry.delay_ms),
                "a FIFO queue's delay is set for the queue, not a message",
            )
    elif entry.dedup_id is not None:
        raise InvalidParameter("MessageDeduplicationId", entry.dedup_id[:200], "only a FIFO queue deduplicates")


def check_sends(entries: list[Entry]) -> None:
    """Raise unless so much may be sent in one transaction."""
    if len(entries) > limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("sends", str(len(entries)), f"at most {limits.NATIVE_BATCH_MAX} messages a transaction")
    size = sum([len(entry.body) + len(entry.attributes) for entry in entries])
    if size > limits.NATIVE_BATCH_BYTES_MAX:
        raise BatchTooLong(size, limits.NATIVE_BATCH_BYTES_MAX)


def check_state(values: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Raise unless each may stand under its key."""
    for key, value in values:
        if not 1 <= len(key) <= limits.STATE_KEY_BYTES_MAX:
            raise InvalidParameter("state key", str(len(key)), f"1 to {limits.STATE_KEY_BYTES_MAX} bytes")
        if value is not None and len(value) > limits.STATE_VALUE_BYTES_MAX:
            raise InvalidParameter("state value", str(len(value)), f"at most {limits.STATE_VALUE_BYTES_MAX} bytes")


def _check_long_delay(settings: QueueSettings, delay_ms: int) -> None:
    """Beyond SQS's 900 s a message may wait as long as the queue keeps it; it would never be seen otherwise."""
    bound_ms = max(limits.DELAY_MAX_MS, min(limits.MESSAGE_DELAY_MAX_MS, settings.retention_ms - 1))
    if not 0 <= delay_ms <= bound_ms:
        reason = f"it must be from 0 to {-(-bound_ms // 1_000)} seconds: less than the queue's retention"
        raise InvalidParameter("DelaySeconds", seconds_text(delay_ms), reason)


def dedup_key_of(settings: QueueSettings, entry: Entry) -> str:
    """The key that a FIFO queue so set deduplicates this message by; raises if it has no group or no dedup id."""
    if not entry.group:
        raise MissingParameter("MessageGroupId")
    if entry.dedup_id is not None and not ID.fullmatch(entry.dedup_id):
        raise InvalidParameter(
            "MessageDeduplicationId", entry.dedup_id[:200], "1 to 128 alphanumeric and punctuation characters"
        )
    key = dedup_key(settings, group=entry.group, dedup_id=entry.dedup_id, body=entry.body)
    if key is None:
        raise InvalidParameter(
            "MessageDeduplicationId",
            "",
            "the queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided",
        )
    return key


def check_limit(limit: int) -> None:
    if not 1 <= limit <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("limit", str(limit), f"it must be from 1 to {limits.NATIVE_BATCH_MAX}")


def check_receipts(receipts: list[bytes]) -> None:
    if not 1 <= len(receipts) <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("receipts", str(len(receipts)), f"1 to {limits.NATIVE_BATCH_MAX} receipts a call")


def check_visibility(timeout_ms: int) -> None:
    if not 0 <= timeout_ms <= limits.VISIBILITY_MAX_MS:
        raise InvalidParameter("VisibilityTimeout", seconds_text(timeout_ms), "it must be from 0 to 43200 seconds")


def seconds_left(since_ms: int, now: int) -> int:
    """Whole seconds, at least 1, until a cool-down that began at `since_ms` is over."""
    return max(1, -(-(since_ms + limits.COOLDOWN_MS - now) // 1_000))
