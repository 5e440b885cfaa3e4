"""Sending: what is asked for is checked, an entry at a time, and stored with everything else that is new (`new.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from headrace.errors import CallerError
from headrace.queue.model import Entry, Sent
from headrace.queue.operations import Send
from headrace.queue.store.checks import check_batch, check_entry
from headrace.queue.store.postgres.new import New
from headrace.queue.store.postgres.publishing import Door, Publication, Publications, door_of
from headrace.queue.store.postgres.transaction import Answers, Transaction, answer


def send(tx: Transaction, operations: Sequence[Send]) -> Answers:
    new, publications = New(tx.now), Publications(tx.now)
    planned = [answer(lambda tx, one: _plan(tx, new, publications, one), tx, operation) for operation in operations]
    publications.lock(tx)
    yield from publications.publish(tx, new)
    sent = yield from new.store(tx)
    return [[sent_as(sent, one) for one in plan] if isinstance(plan, list) else plan for plan in planned]


def _plan(tx: Transaction, new: New, publications: Publications, operation: Send) -> list[Place | CallerError]:
    """For each entry where it stands, or its error."""
    door = door_of(tx.catalog, operation.queue)
    check_batch(operation.entries)
    publications.expect(door)
    places: list[Place | CallerError] = []
    for entry in operation.entries:
        try:
            check_entry(door.settings, entry)
            places.append(put_in(door, entry, new, publications))
        except CallerError as error:
            places.append(error)
    return places


Place: TypeAlias = int | Publication
"""Where what came in stands: its place in `New`, or what it is as published."""


def put_in(door: Door, entry: Entry, new: New, publications: Publications) -> Place:
    """Let an entry that was checked come in: it will be stored in the queue, or published. Raises, by a FIFO door, if it has
    no group or no dedup id."""
    if door.topic is not None:
        return publications.add(door.topic, door, entry)
    assert door.queue is not None
    return new.add(door.queue, entry)


def sent_as(sent: Sequence[Sent], place: Place | CallerError) -> Sent | CallerError | None:
    """What is answered for it, once `sent` says so for the new messages."""
    if isinstance(place, Publication):
        return place.sent
    return sent[place] if isinstance(place, int) else place
