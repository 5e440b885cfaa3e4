"""Plans of sending: which entries a queue takes, which are duplicates, and the numbers of the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from headrace.errors import CallerError
from headrace.queue import limits
from headrace.queue.dedup import DedupWindow, dedup_key
from headrace.queue.model import Entry, Message, QueueSettings, Sent
from headrace.queue.store.checks import check_entry, dedup_key_of
from headrace.queue.store.disk import Dedup
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState


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


def _remember(state: LocalState, door: Door, settings: QueueSettings, message: Message, sent: Sent, now: int) -> None:
    assert message.group is not None
    key = dedup_key(settings, group=message.group, dedup_id=message.dedup_id, body=message.body)
    assert key is not None
    expires_ms = now + limits.DEDUP_MS
    door.dedup.add(key, sent, expires_ms)
    state.plan.batch.dedups.append(Dedup(door.number, key, sent, expires_ms))
    state.plan.undo.append(lambda: door.dedup.remove(key))
