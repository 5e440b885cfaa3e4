"""The ledger: the ids of both sides, each written by who saw it, compared at the end.

*Accepted* is what clients wrote down when their POST was answered 202: the request's Idempotency-Key and its flights.
*Processed* is what stands in the log of the topic, into which workers published each flight with the key of its request.
Nothing is estimated: the audit is set arithmetic over keys and rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import msgspec

from demo.shapes import Filed

ACCEPTED: Final = "accepted"  # 202: the task is on the disk
REPEATED: Final = "repeated"  # 202, and the server knew the key: the task was there already
PUT_OFF: Final = "put-off"  # 503: come again
CUT: Final = "cut"  # the connection broke before the answer
FAILED: Final = "failed"  # any other answer: must not be

Accepted = Mapping[str, tuple[int, ...]]
"""Key of a request → its flights' rows."""


class Event(NamedTuple):
    """A line of the ledger: what became of one try of a request."""

    kind: str
    key: str
    rows: tuple[int, ...] = ()


class Page:
    """One client's part of the ledger, a line at a time. Only the client writes it."""

    def __init__(self, folder: Path, client: str) -> None:
        self._file: TextIO = (folder / f"{client}.ledger").open("w", buffering=1, encoding="ascii")

    def write(self, event: Event) -> None:
        self._file.write(f"{event.kind} {event.key} {','.join(map(str, event.rows))}\n")

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Event]:
    """All lines of all clients, in no order."""
    return Reader(folder).news()


class Reader:
    """Reads the ledger while it is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[Event]:
        """All whole lines that are new."""
        for page in sorted(self._folder.glob("*.ledger")):
            with page.open("rb") as file:
                file.seek(self._read.get(page, 0))
                whole, _, _ = file.read().rpartition(b"\n")
            self._read[page] = self._read.get(page, 0) + len(whole) + bool(whole)
            yield from map(_event, whole.decode().splitlines())


def _event(line: str) -> Event:
    kind, key, rows = line.split(" ")
    return Event(kind, key, tuple(map(int, filter(None, rows.split(",")))))


_filed = msgspec.json.Decoder(Filed)


class Processed:
    """What the topic's log holds: add its messages in any number of pieces."""

    def __init__(self) -> None:
        self.times: dict[str, Counter[int]] = defaultdict(Counter)
        """Key → row → how often it stands there."""
        self.flights = 0

    def add(self, bodies: Iterable[bytes]) -> list[Filed]:
        """Returns: the flights among them, decoded."""
        found = [filed for body in bodies if (filed := _filed.decode(body)).row >= 0]
        for filed in found:
            self.times[filed.request][filed.row] += 1
        self.flights += len(found)
        return found


@dataclass(frozen=True)
class Audit:
    """What the ledger proves; what is listed is what is wrong.

    Attributes:
        accepted: requests that were answered 202.
        flights: in them.
        processed: requests of which each flight was published.
        lost: keys of requests that were accepted, and of which a flight is missing. Must be none.
        twice: keys of requests of which a flight was published more than once. Must be none.
        strange: keys that were published and never accepted, or with rows that they did not have. Must be none.
        unheard: keys of requests that were put off or cut, and never accepted. Must be none.
        failed: tries that were answered in any other way. Must be 0.
        put_off: tries that were answered 503. Each request was sent again, and accepted, or it is in `unheard`.
        cut: tries whose connection broke.
        repeated: tries of which the server knew the key: they counted once.
    """

    accepted: int
    flights: int
    processed: int
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)
    failed: int = 0
    put_off: int = 0
    cut: int = 0
    repeated: int = 0

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.twice or self.strange or self.unheard or self.failed)


def accepted_of(events: Iterable[Event]) -> dict[str, tuple[int, ...]]:
    """What was accepted."""
    return {event.key: event.rows for event in events if event.kind in (ACCEPTED, REPEATED)}


def audit(events: Iterable[Event], times: Mapping[str, Mapping[int, int]]) -> Audit:
    """Compare both sides. `events` may come in any order.

    Args:
        times: key → row → how often it was published.
    """
    told = list(events)
    accepted = accepted_of(told)
    kinds = Counter(event.kind for event in told)
    lost = [key for key, rows in accepted.items() if not set(rows) <= times.get(key, {}).keys()]
    return Audit(
        accepted=len(accepted),
        flights=sum(map(len, accepted.values())),
        processed=len(accepted) - len(lost),
        lost=sorted(lost),
        twice=sorted(key for key, rows in times.items() if any(count > 1 for count in rows.values())),
        strange=sorted(key for key, rows in times.items() if not rows.keys() <= set(accepted.get(key, ()))),
        unheard=sorted({event.key for event in told if event.kind in (PUT_OFF, CUT)} - accepted.keys()),
        failed=kinds[FAILED],
        put_off=kinds[PUT_OFF],
        cut=kinds[CUT],
        repeated=kinds[REPEATED],
    )
