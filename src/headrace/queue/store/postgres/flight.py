"""How many messages of a queue are in flight, on all nodes: counted now and then, kept up by what this node does.

What a node remembers is never too low for what it did itself: what it leased is added, and only what it deleted while it was leased
is taken off. So the limit is exact within a node: whenever the number that is remembered comes near it, the messages are
counted. So they are when a node has used a quarter of the room that it saw: others may use as much, unseen.
"""

from __future__ import annotations

from typing import Final, LiteralString

from headrace.errors import InFlightLimit
from headrace.queue import limits
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.known import Flight
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Transaction

GOOD_MS: Final = 30 * limits.SECOND_MS  # while a node uses little of the room
COUNTED_PER_MS: Final = 100
"""A count of so many messages is good for a millisecond in any case: one of 120,000 takes some 50 ms, and clients that
wait at the limit ask again and again."""

_COUNT: Final[LiteralString] = """
SELECT count(*) FROM message
WHERE queue = %s AND visible_ms > 0 AND visible_ms > %s AND seq >= %s AND (receives > 0 OR visible_ms >= %s)
"""


def room(tx: Transaction, queue: StoredQueue, wanted: int) -> int:
    """How many of `wanted` messages may be leased now."""
    known = tx.known.flights.get(queue.number)
    if known is None or tx.now >= _good_until(known, wanted):
        known = _count(tx, queue)
    return max(0, min(wanted, limits.IN_FLIGHT_MAX - known.now()))


def _good_until(known: Flight, wanted: int) -> int:
    used = known.now() + wanted - known.counted
    much = 4 * used > limits.IN_FLIGHT_MAX - known.counted
    return known.at_ms + (known.counted // COUNTED_PER_MS if much else GOOD_MS)


def leased(tx: Transaction, queue: StoredQueue, number: int) -> None:
    """This node has leased so many."""
    known = tx.known.flights.get(queue.number)
    if known is not None:
        known.leased += number


def full(queue: StoredQueue) -> InFlightLimit:
    return InFlightLimit(queue.arn, limits.IN_FLIGHT_MAX)


def _count(tx: Transaction, queue: StoredQueue) -> Flight:
    row = tx.execute(_COUNT, (queue.number, tx.now, queue.floor, CLAIMED_MS)).fetchone()
    assert row is not None
    flight = tx.known.flights[queue.number] = Flight(tx.now, row[0])
    return flight
