"""Letters back to where they came from, one by one: taken, and sent and acknowledged in one commit. None is lost, none doubled."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.console.page import Refused
from headrace.errors import HeadraceError
from headrace.native.aio import AsyncClient
from headrace.queue.model import Delivery, Entry, arn_of
from headrace.queue.operations import ChangeVisibility, Delete, Take, Transact

_TAKEN_MS: Final = 30_000  # should we die in between, they are visible again then
_BATCH: Final = 4  # of at most 1 MiB each: the least that a broker lets a remote client send is 8 MiB
_BATCH_SMALL: Final = 100


class Moved(NamedTuple):
    """How many letters were dealt with; how many could not be: gone, or held by somebody."""

    done: int
    left: int


async def redrive(client: AsyncClient, queue: str, seqs: Sequence[int], *, to: str = "", long: bool = False) -> Moved:
    """Send these letters back, or all of them to one queue.

    Args:
        to: a queue's name; empty: each to the queue that gave it up.
        long: they may be a megabyte each: few a commit.

    Raises: Refused: one does not say where it came from; those before it were moved.
    """
    done = 0
    size = _BATCH if long else _BATCH_SMALL
    for start in range(0, len(seqs), size):
        taken = await _take(client, queue, seqs[start : start + size])
        try:
            sends = _sends(taken, to)
            if sends:
                receipts = [delivery.receipt for delivery in taken]
                await client.call(Transact(acknowledge=[(arn_of(queue), receipts)], sends=sends))
        except HeadraceError:
            await _give_back(client, queue, taken)
            raise
        done += len(taken)
    return Moved(done, len(seqs) - done)


async def delete(client: AsyncClient, queue: str, seqs: Sequence[int]) -> Moved:
    """Delete these letters for good."""
    done = 0
    for start in range(0, len(seqs), _BATCH_SMALL):
        taken = await _take(client, queue, seqs[start : start + _BATCH_SMALL])
        outcomes = await client.call(Delete(arn_of(queue), [delivery.receipt for delivery in taken])) if taken else []
        done += sum(outcome is None for outcome in outcomes)
    return Moved(done, len(seqs) - done)


async def _take(client: AsyncClient, queue: str, seqs: Sequence[int]) -> list[Delivery]:
    outcomes = await client.call(Take(arn_of(queue), list(seqs), _TAKEN_MS))
    return [outcome for outcome in outcomes if isinstance(outcome, Delivery)]


async def _give_back(client: AsyncClient, queue: str, taken: Sequence[Delivery]) -> None:
    with contextlib.suppress(HeadraceError):  # their time runs out anyway
        changes = [(delivery.receipt, 0) for delivery in taken]
        await client.call(ChangeVisibility(arn_of(queue), changes, strict=True))


def _sends(taken: Sequence[Delivery], to: str) -> list[tuple[str, list[Entry]]]:
    found: dict[str, list[Entry]] = {}
    for delivery in taken:
        target = arn_of(to) if to else delivery.message.source
        if target is None:
            raise Refused(f"message {delivery.message.seq} does not say which queue gave it up: name one to move it to")
        found.setdefault(target, []).append(_entry(delivery, target))
    return list(found.items())


def _entry(delivery: Delivery, target: str) -> Entry:
    message = delivery.message
    fifo = target.endswith(".fifo")
    return Entry(
        message.body,
        message.attributes,
        group=(message.group or "redriven") if fifo else message.group,
        # The old id may have been seen within five minutes; then the letter would vanish.
        dedup_id=f"redrive-{uuid.uuid4().hex}" if fifo else None,
        trace=message.trace,
    )
