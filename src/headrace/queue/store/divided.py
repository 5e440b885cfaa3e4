"""One store made of several: each queue, topic and name of state is in one of them, by its name.

For more than one database can bear. What is in one store keeps every promise of that store; nothing goes across: a transaction,
a subscription or a dead-letter queue is within one, or refused. Lists are merged. Nodes must all be given the same rules: a
queue that another rule sends elsewhere is not found there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Final

import msgspec

from headrace.errors import CallerError, HeadraceError, InvalidParameter, QueueNotFound, StoreFailed
from headrace.queue.model import QueueInfo
from headrace.queue.operations import (
    CancelMove,
    Fence,
    GetState,
    ListQueues,
    ListTopics,
    Operation,
    ReceiveAny,
    StartMove,
    Subscribe,
    Transact,
    Unsubscribe,
)  # fmt: skip
from headrace.queue.store.base import Done, Offload, Ready, Request, Store, StoreStatistics

SUMMED: Final = ("commits", "commit_operations", "commit_seconds", "size_bytes", "damaged")


class Part(msgspec.Struct, frozen=True):
    """One of the stores. `pattern`: of the names that are in it, with `*`, `?` and `[…]`; `place`: for messages."""

    pattern: str
    place: str
    store: Store


class DividedStore:
    """The first part whose pattern fits has a name; the last must fit all.

    Invariant: a request is answered once, by one part or from the answers of several.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Raises ValueError: the last part's pattern is not `*`."""
        if not parts or parts[-1].pattern != "*":
            raise ValueError("the last part must have the pattern *, for all other names")
        self._parts = list(parts)
        self.durable = all(part.store.durable for part in parts)
        self.shared = parts[-1].store.shared  # holders are told there

    # --- the contract ---

    def attach(self, offload: Offload | None) -> None:
        for number, part in enumerate(self._parts):
            part.store.attach(_lanes_of(offload, number) if offload is not None else None)

    def execute(self, requests: Sequence[Request]) -> None:
        sorted_out: dict[int, list[Request]] = {}
        for request in requests:
            for number, asked in self._asked(request):
                sorted_out.setdefault(number, []).append(asked)
        for number, ones in sorted_out.items():
            self._parts[number].store.execute(ones)

    def advance(self) -> int | None:
        times = [part.store.advance() for part in self._parts]
        return min((ms for ms in times if ms is not None), default=None)

    def take_ready(self) -> set[Ready]:
        return set[Ready]().union(*[part.store.take_ready() for part in self._parts])

    def find(self, queue: str) -> QueueInfo | None:
        return self._parts[self._number(queue)].store.find(queue)

    def busy(self) -> bool:
        return any(part.store.busy() for part in self._parts)

    def failed(self) -> StoreFailed | None:
        return next((failed for part in self._parts if (failed := part.store.failed()) is not None), None)

    def away(self) -> str | None:
        return next((away for part in self._parts if (away := part.store.away()) is not None), None)

    def statistics(self) -> StoreStatistics:
        return merged([part.store.statistics() for part in self._parts])

    def close(self) -> None:
        for part in self._parts:
            part.store.close()

    # --- who is asked ---

    def _number(self, name: str) -> int:
        """Which part has a queue or topic (by its ARN) or a name of state."""
        last = name.rpartition(":")[2] if name.startswith("arn:") else name
        return next(number for number, part in enumerate(self._parts) if fnmatchcase(last, part.pattern))

    def _asked(self, request: Request) -> Iterable[tuple[int, Request]]:
        """The parts, and what each is asked; what needs no part is answered here."""
        operation, done = request.operation, request.done
        if isinstance(operation, ListQueues | ListTopics):
            return self._all(operation, _gather(len(self._parts), done, lambda lists: _merge(lists, operation.limit)))
        if isinstance(operation, CancelMove):  # its handle does not tell where
            return self._all(operation, _gather(len(self._parts), done, _first_success))
        numbers = sorted({self._number(name) for name in names_of(operation)}) or [len(self._parts) - 1]
        if len(numbers) == 1:
            return [(numbers[0], request)]
        if isinstance(operation, ReceiveAny):
            self._receive_in_turn(operation, done)
        else:
            done(self._refusal(operation, numbers))
        return []

    def _all(self, operation: Operation, done: Done) -> list[tuple[int, Request]]:
        return [(number, Request(operation, done)) for number in range(len(self._parts))]

    def _refusal(self, operation: Operation, numbers: Sequence[int]) -> CallerError:
        names = ", ".join(dict.fromkeys(names_of(operation)))
        places = ", ".join(self._parts[number].place for number in numbers)
        return InvalidParameter(
            "queues", names, f"they are in different stores ({places}); {type(operation).__name__} cannot be in several"
        )

    def _receive_in_turn(self, operation: ReceiveAny, done: Done) -> None:
        """Ask for the queues of one part after the other, in the order asked, for what is left of the limit."""
        absent = next((queue for queue in operation.queues if self.find(queue) is None), None)
        if absent is not None:
            done(QueueNotFound(absent))
            return
        turns = [(number, list(ones)) for number, ones in groupby(operation.queues, self._number)]
        found: list[Any] = []
        errors: list[HeadraceError] = []

        def go_on(left: int) -> None:
            number, queues = turns.pop(0)
            asked = msgspec.structs.replace(operation, queues=queues, limit=left)
            self._parts[number].store.execute([Request(asked, lambda outcome: answered(outcome, left))])

        def answered(outcome: Any, left: int) -> None:
            if isinstance(outcome, HeadraceError):  # as a queue that is full: told if no other has anything
                errors.append(outcome)
                outcome = []
            found.extend(outcome)
            left -= sum(len(deliveries) for _, deliveries in outcome)
            if turns and left > 0:
                go_on(left)
            else:
                done(found or (errors[0] if errors else []))

        go_on(operation.limit)


def names_of(operation: Operation) -> list[str]:
    """All names of queues, topics and state that an operation is about; none: it is about no certain one."""
    if isinstance(operation, Transact):
        pairs = [*operation.acknowledge, *operation.sends, *operation.holds]
        named = operation.state or operation.expect or operation.epoch is not None
        return [
            *[queue for queue, _ in pairs],
            *[queue for queue, _, _ in operation.claims],
            *([operation.name] if named else []),
        ]
    if isinstance(operation, Fence | GetState):
        return [operation.name]
    if isinstance(operation, ReceiveAny):
        return operation.queues
    if isinstance(operation, StartMove):
        return [operation.source, *([operation.target] if operation.target is not None else [])]
    if isinstance(operation, Subscribe | Unsubscribe):
        return [operation.topic, operation.queue]
    fields = (getattr(operation, field, None) for field in ("queue", "topic", "source"))
    return [name for name in fields if name is not None]


def merged(all_of: Sequence[StoreStatistics]) -> StoreStatistics:
    """What all parts have done."""
    first = all_of[0]
    sums = {name: sum(getattr(one, name) for one in all_of) for name in SUMMED}
    return StoreStatistics(
        **sums,
        commit_seconds_recent=max(one.commit_seconds_recent for one in all_of),
        commit_buckets=tuple(map(sum, zip(*[one.commit_buckets for one in all_of], strict=True))),
        commit_bounds=first.commit_bounds,
        failed=next((one.failed for one in all_of if one.failed is not None), None),
        full=any(one.full for one in all_of),
        lanes=tuple(lane for one in all_of for lane in one.lanes),
    )


def _lanes_of(offload: Offload, number: int) -> Offload:
    """Lanes of a part's own: works of two parts do not wait for each other."""

    def offloaded(work: Callable[[], Any], then: Callable[[Any], None], lane: str = "commit", /) -> None:
        offload(work, then, f"{lane}-{number}")

    return offloaded


def _gather(number: int, done: Done, combine: Callable[[list[Any]], Any]) -> Done:
    """Answer when so many outcomes are there."""
    outcomes: list[Any] = []

    def gathered(outcome: Any) -> None:
        outcomes.append(outcome)
        if len(outcomes) == number:
            done(combine(outcomes))

    return gathered


def _merge(lists: list[Any], limit: int) -> Any:
    """Sorted lists as one, by ARN, up to the limit; an error if there is one: what is missing must not look absent."""
    error = next((one for one in lists if isinstance(one, HeadraceError)), None)
    if error is not None:
        return error
    return sorted([one for part in lists for one in part], key=lambda one: one.info.arn)[:limit]


def _first_success(outcomes: list[Any]) -> Any:
    return next((one for one in outcomes if not isinstance(one, HeadraceError)), outcomes[-1])
