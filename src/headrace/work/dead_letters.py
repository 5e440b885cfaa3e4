"""Dead letters: the message as it goes to `<queue>-dead`, with what happened to it. Pure.

The body of a task's dead letter is its envelope with the whole history and no attempt made: moved back by
`headrace queue redrive`, it starts anew and still tells what was. Another's message keeps its body.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.queue import attributes
from headrace.queue.limits import ATTRIBUTES_MAX, MESSAGE_BYTES_MAX
from headrace.queue.model import Entry, arn_of
from headrace.work import limits, names
from headrace.work.dispatch import entry_of
from headrace.work.job import Job
from headrace.work.outcome import ErrorInfo

TASK: Final = "headrace-task"
ERROR: Final = "headrace-error"
REASON: Final = "headrace-reason"

OVERHEAD_BYTES: Final = 32
"""Of an attribute, beside its name and value: its type, and lengths."""


def dead_letter(job: Job, error: ErrorInfo) -> tuple[str, Entry]:
    """The queue that it goes to, and the message. The job's envelope has the last attempt in its history already."""
    queue = names.dead(job.queue)
    entry = _as_it_came(job) if job.foreign or job.full else _anew(queue, job)
    return queue, msgspec.structs.replace(
        entry, dedup_id=_dedup_id(queue, job), attributes=_attributes(job, error), source=arn_of(job.queue)
    )


def last_resort(job: Job, error: ErrorInfo) -> tuple[str, Entry]:
    """As `dead_letter`, of a message for which that is refused: nothing of what its body says is relied on."""
    queue = names.dead(job.queue)
    dedup_id = _dedup_id(queue, job)
    group = job.delivery.message.group if dedup_id else None
    body = job.delivery.message.body
    return queue, Entry(
        body, group=group, dedup_id=dedup_id, attributes=_attributes(job, error), source=arn_of(job.queue)
    )


def _dedup_id(queue: str, job: Job) -> str | None:
    """Of the message, not of the task: one that was redriven and fails again within minutes is another dead letter."""
    return f"{job.delivery.message.id.hex()}-dead" if queue.endswith(".fifo") else None


def _anew(queue: str, job: Job) -> Entry:
    return entry_of(queue, msgspec.structs.replace(job.envelope, attempt=0, losses=0))


def _as_it_came(job: Job) -> Entry:
    message = job.delivery.message
    return Entry(message.body, group=message.group, trace=message.trace)


def _attributes(job: Job, error: ErrorInfo) -> bytes:
    """The message's own, and ours as far as there is room: it may have ten, and be 1 MiB with them."""
    message = job.delivery.message
    kept = attributes.decode(message.attributes)
    ours = {ERROR: error.type, TASK: job.envelope.task, REASON: _one_line(error)}
    room = MESSAGE_BYTES_MAX - len(message.body) - len(message.attributes)
    for name, value in ours.items():
        room -= len(name) + len(value.encode()) + OVERHEAD_BYTES
        if value and room >= 0 and (name in kept or len(kept) < ATTRIBUTES_MAX):
            kept[name] = ("String", value)
    return attributes.encode(kept)


def _one_line(error: ErrorInfo) -> str:
    text = "".join(character if character.isprintable() else " " for character in error.line)
    return text[: limits.REASON_CHARACTERS_MAX]
