"""What became ready while a batch ran. A poll in it may have looked before, and stands in no line until it is answered: nobody
would wake it. So what it waits for is ready once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.queue.operations import Claim, GetState, Operation, Receive, ReceiveAny
from headrace.queue.store.base import Ready


class Missed:
    """Of one lane. Empty while its lane is idle."""

    def __init__(self) -> None:
        self._places: set[Ready] = set()

    def note(self, places: Iterable[Ready]) -> None:
        """These became ready while a batch runs."""
        self._places.update(places)

    def take(self, operations: Iterable[Operation], outcomes: Sequence[Any]) -> set[Ready]:
        """The batch is over: what somebody in it has found nothing of, though it is ready now."""
        places, self._places = self._places, set()
        if not places:
            return places
        found = zip(operations, outcomes, strict=True)
        asked = {name for operation, outcome in found if outcome == [] for name in _names(operation)}
        return {place for place in places if (place if isinstance(place, str) else place[0]) in asked}


def _names(operation: Operation) -> Sequence[str]:
    """What a poll waits for: queues, or state under a name."""
    if isinstance(operation, ReceiveAny):
        return operation.queues
    if isinstance(operation, GetState):
        return [operation.name]
    return [operation.queue] if isinstance(operation, Receive | Claim) else []
