"""What every way of leasing messages shares: the update, the rows that it answers, deliveries of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

import msgspec

from headrace.errors import InFlightLimit
from headrace.queue.model import Delivery
from headrace.queue.store.checks import check_visibility
from headrace.queue.store.postgres import flight, rows
from headrace.queue.store.postgres.arrays import Ints
from headrace.queue.store.postgres.catalog import StoredQueue

LEASE: Final[LiteralString] = """
UPDATE message m SET visible_ms = %(until)s, receives = receives + 1, received_ms = %(now)s,
    first_ms = coalesce(first_ms, %(now)s)
"""
RETURNING: Final[LiteralString] = " RETURNING " + rows.COLUMNS + ", m.receives, m.first_ms"
"""The rows that `delivery_of` reads."""

# A join, not `= ANY`: made while the table is empty, the plan of that would look through the whole queue.
THESE: Final[LiteralString] = (
    " FROM unnest(%(queues)s, %(seqs)s) AS these (queue, seq) WHERE m.queue = these.queue AND m.seq = these.seq"
)
LEASE_THESE: Final[LiteralString] = LEASE + THESE + RETURNING
"""Leases the messages with these numbers, see `these`."""


class Wish(msgspec.Struct):
    """A request, and what it is given."""

    queue: StoredQueue
    limit: int
    visibility_ms: int
    attempt_id: str | None = None
    deliveries: list[Delivery] = []
    refused: bool = False  # as many as may be are in flight

    def outcome(self) -> list[Delivery] | InFlightLimit:
        return flight.full(self.queue) if self.refused else self.deliveries


def these(queue: StoredQueue, seqs: Sequence[int]) -> dict[str, Ints]:
    """The parameters that name messages of a queue."""
    return {"queues": Ints([queue.number] * len(seqs)), "seqs": Ints(seqs)}


def visibility_of(queue: StoredQueue, visibility_ms: int | None) -> int:
    """How long leases of the queue last; `visibility_ms` None: as it is set to."""
    if visibility_ms is None:
        return queue.info.settings.visibility_ms
    check_visibility(visibility_ms)
    return visibility_ms


def delivery_of(queue: StoredQueue, row: tuple[Any, ...]) -> Delivery:
    """A row of a lease as a delivery, with its receipt."""
    message = rows.message_of(row)
    receives, first_ms = row[rows.WIDTH :]
    if message.first_received_ms is not None:
        first_ms = message.first_received_ms
    return Delivery(message, queue.receipts.mint(message.seq, receives), message.receives + receives, first_ms)
