"""Dead letters: the message as it goes to `<queue>-dead`, with what happened to it. Pure.

The body of a task's dead letter is its envelope with the whole history and no attempt made: moved back by
`headrace queue redrive`, it starts anew and still tells what was. Another's message keeps its body.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.queue import attributes
from headrace.queue.limits import ATTRIBUTES_MAX
from headrace.queue.model import Entry, arn_of
from headrace.work import limits, names
from headrace.work.dispatch import entry_of
from headrace.work.job import Job
from headrace.work.outcome import ErrorInfo

TASK: Final = "headrace-task"
ERROR: Final = "headrace-error"
REASON: Final = "headrace-reason"


def dead_letter(job: Job, error: ErrorInfo) -> tuple[str, Entry]:
    """The queue that it goes to, and the message. The job's envelope has the last attempt in its history already."""
    queue = names.dead(job.queue)
    entry = _foreign(job) if job.foreign else entry_of(queue, msgspec.structs.replace(job.envelope, attempt=0))
    if queue.endswith(".fifo"):
        entry = msgspec.structs.replace(entry, dedup_id=f"{job.envelope.id}-{job.envelope.attempt}-dead")
    return queue, msgspec.structs.replace(entry, attributes=_attributes(job, error), source=arn_of(job.queue))


def _foreign(job: Job) -> Entry:
    message = job.delivery.message
    return Entry(message.body, group=message.group, trace=message.trace)


def _attributes(job: Job, error: ErrorInfo) -> bytes:
    """The message's own, and ours as far as there is room: it may have ten."""
    kept = attributes.decode(job.delivery.message.attributes)
    ours = {ERROR: error.type, TASK: job.envelope.task, REASON: _one_line(error)}
    for name, value in ours.items():
        if value and (name in kept or len(kept) < ATTRIBUTES_MAX):
            kept[name] = ("String", value)
    return attributes.encode(kept)


def _one_line(error: ErrorInfo) -> str:
    text = "".join(character if character.isprintable() else " " for character in error.line)
    return text[: limits.REASON_CHARACTERS_MAX]
