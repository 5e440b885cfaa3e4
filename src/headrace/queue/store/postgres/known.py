"""What a node knows without asking the database: a cache, and counts of its own. Nothing that another node would miss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from headrace.queue import limits
from headrace.queue.fairness import ConsumerTime
from headrace.queue.store.postgres.marks import Marks

FIELDS: Final = (
    "sent", "received", "deleted", "empty_receives", "duplicates", "dead_lettered", "expired", "damaged"
)  # fmt: skip
"""The totals of QueueCounts."""

TELL_EACH_MS: Final = limits.SECOND_MS
LIVES_EACH_MS: Final = 10 * limits.MINUTE_MS  # told at least so often, that the node lives
COUNTING_MS: Final = limits.SECOND_MS  # what is deleted so soon after a count has begun, it may not have seen
TOLD_AT_ONCE: Final = 1_000  # queues whose sums one transaction writes

Sums: TypeAlias = tuple[int, ...]
"""A node's totals of one queue, in the order of FIELDS."""


class Flight(msgspec.Struct):
    """What is in flight of one queue: counted at `at_ms`, and what this node has leased and deleted since.

    The lane that leases writes `leased`, the owner's thread `deleted`.
    """

    at_ms: int
    counted: int
    leased: int = 0
    deleted: int = 0

    def now(self) -> int:
        return self.counted + self.leased - self.deleted


class Tenants(msgspec.Struct):
    """The tenants of a queue. Only the lane that leases touches it, but for `time`.

    Attributes:
        time: how much of the consumers' time each took, at this node.
        seen_ms: when a message with a group was seen last.
        counted_ms: when the counts were counted.
        total: messages in flight at that time, and what this node has leased since.
        in_flight: those of each tenant.
        passed: up to this seq all that waits is of tenants that are noisy: `passed_by`; since `passed_ms`.
        passed_count: how many that are.
    """

    time: ConsumerTime
    seen_ms: int
    counted_ms: int = 0
    total: int = 0
    in_flight: dict[str, int] = {}
    passed: int = 0
    passed_count: int = 0
    passed_ms: int = 0
    passed_by: frozenset[str] = frozenset()


class Counted(msgspec.Struct, frozen=True):
    """How many messages a queue of many has: good until `until_ms`, and while its floor is the same.

    `stays`: what all had sent, less what had gone, by the totals of that time.
    """

    until_ms: int
    floor: int
    all: int
    stays: int


class Waiting(msgspec.Struct, frozen=True):
    """Those of a queue's messages that were received before or delayed, where they are many; good as Counted is."""

    until_ms: int
    floor: int
    visible: int
    in_flight: int
    delayed: int


class Known:
    """One node's; by the numbers of queues.

    `note`, `to_tell`, `told`, `spent`, `landed` and `keep_only` are called on the owner's thread; lanes read.

    Attributes:
        node: its name.
        totals: (number, field of QueueCounts) -> how many; of this node, since it started.
        flights: how many messages are in flight; only the lane that leases touches it.
        counted, waiting: queues of many messages.
        tenants: of queues in which messages with a group have been seen.
        marks: below which receives need not look.
        nodes: how many there were a minute ago.
        folded: others took this node for gone, and what it had told is theirs now: it begins anew.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.totals: Counter[tuple[int, str]] = Counter()
        self.flights: dict[int, Flight] = {}
        self.counted: dict[int, Counted] = {}
        self.waiting: dict[int, Waiting] = {}
        self.tenants: dict[int, Tenants] = {}
        self.marks = Marks()
        self.nodes = 1
        self.has_told = False
        self.folded = False
        self._untold: set[int] = set()
        self._told_ms = 0

    def note(self, totals: Mapping[tuple[int, str], int]) -> None:
        """A transaction that is committed has counted these."""
        if totals:
            self.totals.update(totals)
            self._untold.update([number for number, _ in totals])

    def to_tell(self, now: int, *, last: bool = False) -> list[tuple[int, Sums]] | None:
        """Sums of queues that others do not know yet; None: it is not time. `last`: all of them, whatever the time."""
        waited = now - self._told_ms
        if not last and (waited < TELL_EACH_MS or not (self._untold or waited >= LIVES_EACH_MS)):
            return None
        self._told_ms = now
        chosen = sorted(self._untold)[: None if last else TOLD_AT_ONCE]
        self._untold.difference_update(chosen)
        return [(number, tuple([self.totals[number, field] for field in FIELDS])) for number in chosen]

    def told(self, sums: list[tuple[int, Sums]], *, committed: bool) -> None:
        """What came of telling."""
        if not committed:
            self._untold.update([number for number, _ in sums])
        elif self.folded:
            self.folded = self.has_told = False
            self.totals.clear()
        else:
            self.has_told = True

    def spent(self, ended: Iterable[tuple[int, str, int]], now: int) -> None:
        """Leases have ended: (queue, tenant, how long it had a consumer)."""
        for number, group, busy_ms in ended:
            tenants = self.tenants.get(number)
            if tenants is not None:
                tenants.time.spent(group, busy_ms=busy_ms, now=now)

    def landed(self, deleted: Mapping[int, int], now: int) -> None:
        """So many messages of queues were deleted while they were leased, in a transaction that began at `now`."""
        for number, count in deleted.items():
            flight = self.flights.get(number)
            if flight is not None and now > flight.at_ms + COUNTING_MS:
                flight.deleted += count

    def keep_only(self, numbers: Container[int]) -> None:
        """Forget queues that are there no more; `numbers` are those that are."""
        for gone in {number for number, _ in list(self.totals) if number not in numbers}:
            for field in FIELDS:
                self.totals.pop((gone, field), None)
        self._untold = {number for number in self._untold if number in numbers}
        memories: tuple[dict[int, Any], ...] = (self.flights, self.counted, self.waiting, self.tenants)
        for memory in memories:
            for gone in [number for number in list(memory) if number not in numbers]:
                memory.pop(gone, None)
