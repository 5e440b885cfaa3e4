"""Sending: what is asked for is checked, an entry at a time, and stored with everything else that is new (`new.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.errors import CallerError
from headrace.queue.operations import Send
from headrace.queue.store.checks import check_batch, check_entry
from headrace.queue.store.postgres.new import New
from headrace.queue.store.postgres.transaction import Answers, Transaction, answer


def send(tx: Transaction, operations: Sequence[Send]) -> Answers:
    new = New(tx.now)
    planned = [answer(lambda tx, one: _plan(tx, new, one), tx, operation) for operation in operations]
    sent = yield from new.store(tx)
    return [
        [sent[place] if isinstance(place, int) else place for place in places] if isinstance(places, list) else places
        for places in planned
    ]


def _plan(tx: Transaction, new: New, operation: Send) -> list[Any]:
    """For each entry its place among the new messages, or its error."""
    queue = tx.catalog.queue(operation.queue)
    check_batch(operation.entries)
    places: list[int | CallerError] = []
    for entry in operation.entries:
        try:
            check_entry(queue.info.settings, entry)
            places.append(new.add(queue, entry))
        except CallerError as error:
            places.append(error)
    return places
