"""Looking for tasks that wait, and starting dead ones anew: for commands and pages. Nothing is received by looking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.errors import CallerError, MessageNotFound, QueueNotFound
from headrace.queue import operations as ops
from headrace.queue.model import Peeked, arn_of, short_name
from headrace.work import envelope as envelopes
from headrace.work import keys, names
from headrace.work.broker_backend import Caller
from headrace.work.dispatch import entry_of
from headrace.work.envelope import Envelope
from headrace.work.errors import EnvelopeInvalid

PAGE: Final = 1_000
LOOKED_AT_MAX: Final = 100_000
"""Messages of a queue that are looked at for one task: more would keep the broker busy for seconds."""
TAKE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task in a queue, as it is now. `state`: visible, delayed, in_flight."""

    queue: str
    seq: int
    state: str
    receives: int
    sent_ms: int
    visible_ms: int | None
    source: str | None
    envelope: Envelope


def around(queue: str) -> list[str]:
    """The queue, its priorities' siblings, and its dead letters."""
    return [*names.in_order(queue), names.dead(queue)]


def task_queues(client: Caller) -> list[str]:
    """Queues that are task queues by their looks: those that have dead letters called as tasks' are; these not named."""
    present: set[str] = set()
    after = ""
    while page := client.call(ops.ListQueues(after=after, limit=PAGE)):
        present |= {short_name(description.info.arn) for description in page}
        after = page[-1].info.arn
    return sorted(name for name in present if names.dead(name) in present and name != names.dead(name))


def waiting(client: Caller, queues: Iterable[str]) -> Iterator[Waiting]:
    """Tasks in the queues, oldest first in each. What is no task is left out, as are queues that are not there."""
    for queue in queues:
        for peeked in _peeked(client, queue):
            try:
                envelope = envelopes.decode(peeked.message.body)
            except EnvelopeInvalid:
                continue
            message = peeked.message
            yield Waiting(
                queue,
                message.seq,
                peeked.state,
                peeked.receives,
                message.sent_ms,
                message.visible_ms,
                message.source,
                envelope,
            )


def find(client: Caller, task_id: str, queues: Iterable[str]) -> Waiting | None:
    """Where the task is: in the first of the queues that has it."""
    return next((one for one in waiting(client, queues) if one.envelope.id == task_id), None)


def retry(client: Caller, found: Waiting) -> str:
    """Take a dead letter back to its queue, as a task that was never tried; its history stays. Exact: once or not at all.

    Returns:
        The queue that it waits in now.

    Raises:
        CallerError: somebody else has it, or it is gone.
    """
    target = short_name(found.source) if found.source else names.of_dead(found.queue)
    [delivery] = client.call(ops.Take(arn_of(found.queue), [found.seq], TAKE_MS))
    if isinstance(delivery, CallerError):
        raise delivery
    entry = entry_of(target, msgspec.structs.replace(found.envelope, attempt=0, losses=0, reserved_ms=None))
    if entry.dedup_id is not None:  # its first send's would make it a duplicate of that, for five minutes
        entry = msgspec.structs.replace(entry, dedup_id=f"{delivery.message.id.hex()}-retry")
    client.call(
        ops.Transact(
            acknowledge=[(arn_of(found.queue), [delivery.receipt])],
            sends=[(arn_of(target), [entry])],
            name=keys.NAME,
        )
    )
    return target


def retry_by_id(client: Caller, task_id: str, queues: Iterable[str]) -> str:
    """As `retry`, of the dead letter of this task. Raises MessageNotFound."""
    found = find(client, task_id, (names.dead(queue) for queue in queues))
    if found is None:
        raise MessageNotFound
    return retry(client, found)


def _peeked(client: Caller, queue: str) -> Iterator[Peeked]:
    after = looked_at = 0
    while looked_at < LOOKED_AT_MAX:
        try:
            page: list[Peeked] = client.call(ops.Peek(arn_of(queue), PAGE, after))
        except QueueNotFound:
            return
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].message.seq
        looked_at += len(page)
