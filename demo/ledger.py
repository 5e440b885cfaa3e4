"""The ledger: every message id on both sides, written by who saw it, compared at the end.

Producers write a line for each message whose send was answered, and for each whose answer was cut. Consumers write a
line for each delivery, and for each acknowledged delete. Nothing is estimated: the audit is set arithmetic over ids.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TextIO

ACCEPTED: Final = "accepted"  # row, id: the send was answered
CUT: Final = "cut"  # row: the send's answer was cut; it was repeated
DELIVERED: Final = "delivered"  # row, id, receive count; the time is when the receive was asked for
DELETED: Final = "deleted"  # row, id; the time is when the delete's answer came


class Event(NamedTuple):
    """A line of the ledger. `at_ns`: CLOCK_MONOTONIC, the same for all processes of a machine."""

    kind: str
    at_ns: int
    row: int
    id: str = "-"
    receives: int = 0


class Page:
    """One worker's part of the ledger. Only the worker writes it; `close` before it is read."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._file: TextIO = (folder / f"{worker}.ledger").open("w", encoding="ascii")

    def write(self, event: Event) -> None:
        self._file.write(f"{event.kind} {event.at_ns} {event.row} {event.id} {event.receives}\n")

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Event]:
    """All lines of all workers, in no order."""
    for page in sorted(folder.glob("*.ledger")):
        with page.open(encoding="ascii") as lines:
            for line in lines:
                kind, at_ns, row, id, receives = line.split()
                yield Event(kind, int(at_ns), int(row), id, int(receives))


@dataclass(frozen=True)
class Audit:
    """What the ledger proves.

    Attributes:
        flights: rows that were to be sent.
        accepted: messages whose send was answered.
        processed: messages whose delete was answered.
        lost: messages accepted and never processed. Must be 0.
        redelivered: deliveries beyond a message's first, also where nobody saw the first.
        revived: deliveries that were asked for after the message's delete had been answered. Must be 0.
        cut: messages whose send was cut by the kill: nobody knew whether they were stored. Each was sent again.
        cut_stored: those of them that had been stored: their flight came a second time, under another id.
        strange: messages delivered that no send explains. Must be 0.
        flights_missing: rows of which no message was processed. Must be 0.
    """

    flights: int
    accepted: int
    processed: int
    lost: int
    redelivered: int
    revived: int
    cut: int
    cut_stored: int
    strange: int
    flights_missing: int

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return self.lost == self.revived == self.strange == self.flights_missing == 0


def audit(events: Iterable[Event], *, flights: int) -> Audit:
    """Compare both sides, by message ids alone. `events` may come in any order."""
    accepted: dict[str, int] = {}
    deleted: dict[str, Event] = {}
    delivered: dict[str, list[Event]] = defaultdict(list)
    cut: Counter[int] = Counter()
    for event in events:
        if event.kind == ACCEPTED:
            accepted[event.id] = event.row
        elif event.kind == CUT:
            cut[event.row] += 1
        elif event.kind == DELIVERED:
            delivered[event.id].append(event)
        elif event.id not in deleted or event.at_ns < deleted[event.id].at_ns:
            deleted[event.id] = event
    unknown_ids = Counter(seen[0].row for id, seen in delivered.items() if id not in accepted)
    cut_stored = (unknown_ids & cut).total()
    wrong_rows = sum(accepted.get(id, seen[0].row) != seen[0].row for id, seen in delivered.items())
    processed_rows = {event.row for event in deleted.values()}
    return Audit(
        flights=flights,
        accepted=len(accepted),
        processed=len(deleted),
        lost=len(accepted.keys() - deleted.keys()),
        redelivered=sum(_deliveries(seen) - 1 for seen in delivered.values()),
        revived=sum(
            event.at_ns > deleted[id].at_ns for id, seen in delivered.items() if id in deleted for event in seen
        ),
        cut=cut.total(),
        cut_stored=cut_stored,
        strange=unknown_ids.total() - cut_stored + wrong_rows,
        flights_missing=flights - len(processed_rows),
    )


def _deliveries(seen: list[Event]) -> int:
    """How often a message was handed out: as counted here, or as the broker counts where an answer was cut."""
    return max(len(seen), *(event.receives for event in seen))
