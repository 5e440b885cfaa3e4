"""Plans of sending: which entries a queue takes, which are duplicates, and the numbers of the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final, Protocol

from headrace.errors import (
    BatchTooLong,
    CallerError,
    InvalidMessage,
    InvalidParameter,
    MessageTooLong,
    MissingParameter,
)
from headrace.queue import attributes, limits
from headrace.queue.dedup import DedupWindow, dedup_key
from headrace.queue.model import ID, Entry, Message, QueueSettings, Sent
from headrace.queue.store.disk import Dedup
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState

_SOURCE: Final = re.compile(r"arn:aws:sqs:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_.-]{1,80}")


class Door(Protocol):
    """Where messages come in: a queue or a topic, and the dedup ids that it has seen."""

    number: int
    dedup: DedupWindow
    duplicates: int


def store(state: LocalState, queue: LocalQueue, entries: list[Entry], now: int) -> list[Sent | CallerError]:
    """Store entries in the queue: an outcome an entry."""
    settings = queue.info.settings
    if queue.expire_check_ms is None:
        queue.expire_check_ms = now + settings.retention_ms
    outcomes, messages = number_entries(state, queue, settings, queue.allot, entries, now)
    if messages:
        state.insert(queue, messages)
    return outcomes


def check_batch(entries: list[Entry]) -> None:
    """Raise unless this many messages, this many bytes, may come in one call of the native API."""
    if not 1 <= len(entries) <= limits.NATIVE_BATCH_MAX:
        raise InvalidParameter("entries", str(len(entries)), f"1 to {limits.NATIVE_BATCH_MAX} messages a call")
    if len(entries) > 1:
        size = sum([len(entry.body) + len(entry.attributes) for entry in entries])
        if size > limits.NATIVE_BATCH_BYTES_MAX:
            raise BatchTooLong(size, limits.NATIVE_BATCH_BYTES_MAX)


def number_entries(
    state: LocalState, door: Door, settings: QueueSettings, allot: Callable[[], int], entries: list[Entry], now: int
) -> tuple[list[Sent | CallerError], list[Message]]:
    """Number the valid entries: (an outcome an entry, the messages to store). What comes in by `door` is checked by
    `settings` and gets the next number of `allot`."""
    ids = os.urandom(16 * len(entries))
    outcomes: list[Sent | CallerError] = []
    messages: list[Message] = []
    for index, entry in enumerate(entries):
        try:
            outcome = _duplicate(door, settings, entry, now) if settings.fifo else None
            check_entry(settings, entry)
            if outcome is None:
                message = _message(allot(), settings, entry, ids[16 * index : 16 * index + 16], now)
                messages.append(message)
                outcome = Sent(message.id, message.seq)
                if settings.fifo:
                    _remember(state, door, settings, message, outcome, now)
        except CallerError as error:
            outcomes.append(error)
        else:
            outcomes.append(outcome)
    return outcomes, messages


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
                f"{entry.delay_ms / 1_000:g}",
                "a FIFO queue's delay is set for the queue, not a message",
            )
    elif entry.dedup_id is not None:
        raise InvalidParameter("MessageDeduplicationId", entry.dedup_id[:200], "only a FIFO queue deduplicates")


def _check_long_delay(settings: QueueSettings, delay_ms: int) -> None:
    """Beyond SQS's 900 s a message may wait as long as the queue keeps it; it would never be seen otherwise."""
    bound_ms = max(limits.DELAY_MAX_MS, min(limits.MESSAGE_DELAY_MAX_MS, settings.retention_ms - 1))
    if not 0 <= delay_ms <= bound_ms:
        reason = f"it must be from 0 to {bound_ms / 1_000:g} seconds: less than the queue's retention"
        raise InvalidParameter("DelaySeconds", f"{delay_ms / 1_000:g}", reason)


def _message(seq: int, settings: QueueSettings, entry: Entry, id_bytes: bytes, now: int) -> Message:
    visible_ms = None
    if not settings.fifo:
        delay_ms = settings.delay_ms if entry.delay_ms is None else entry.delay_ms
        if delay_ms:
            visible_ms = now + delay_ms
    return Message(
        seq, id_bytes, entry.body, entry.attributes, now, visible_ms, entry.group, entry.dedup_id,
        entry.trace, entry.sender, 0, None, entry.source,
    )  # fmt: skip


def _duplicate(door: Door, settings: QueueSettings, entry: Entry, now: int) -> Sent | None:
    """The first message's answer, if this one is a duplicate."""
    key = dedup_key_of(settings, entry)
    first = door.dedup.find(key, now)
    if first is None:
        return None
    door.duplicates += 1
    return Sent(first.id, first.seq, duplicate=True)


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


def _remember(state: LocalState, door: Door, settings: QueueSettings, message: Message, sent: Sent, now: int) -> None:
    assert message.group is not None
    key = dedup_key(settings, group=message.group, dedup_id=message.dedup_id, body=message.body)
    assert key is not None
    expires_ms = now + limits.DEDUP_MS
    door.dedup.add(key, sent, expires_ms)
    state.plan.batch.dedups.append(Dedup(door.number, key, sent, expires_ms))
    state.plan.undo.append(lambda: door.dedup.remove(key))
