"""The windows: what they should be, and whether queue and Parquet folder say so.

The reference is a plain loop over the flights that were accepted: no window, no state, no SQL.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from demo.flights import read as read_flights
from demo.shapes import Key, Window

DELAY_TOLERANCE: Final = 1e-9
"""Relative: means are sums in another order."""


@dataclass(frozen=True)
class WindowAudit:
    """What the windows prove; keys are (day, airport), what is listed is what is wrong.

    Attributes:
        expected: windows of the one-shot computation over the flights that were accepted.
        closed: windows in the result queue.
        differ: missing, unexpected or with other numbers.
        twice: more than once in the queue, or in the folder.
        parquet_differs: where the folder says something else than the queue.
        late: rows that came too late for their window.
    """

    expected: int
    closed: int
    differ: list[Key] = field(default_factory=list)
    twice: list[Key] = field(default_factory=list)
    parquet_differs: list[Key] = field(default_factory=list)
    late: int = 0

    @property
    def holds(self) -> bool:
        return not (self.differ or self.twice or self.parquet_differs or self.late)


def one_shot(rows: Iterable[int]) -> dict[Key, Window]:
    """The windows over these rows of the data."""
    wanted = set(rows)
    sums: dict[Key, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for flight in read_flights(max(wanted, default=-1) + 1):
        if flight.row in wanted:
            of = sums[flight.time_hour.date().isoformat(), flight.origin]
            of[0] += 1
            if flight.dep_delay is not None:
                of[1] += 1
                of[2] += flight.dep_delay
    return {key: _window(key, *of) for key, of in sums.items()}


def _window(key: Key, flights: float, departed: float, delays: float) -> Window:
    day = dt.datetime.fromisoformat(key[0]).replace(tzinfo=dt.UTC)
    return Window(day, key[1], int(flights), int(departed), delays / departed if departed else None)


def audit_windows(
    queue: Iterable[Window], parquet: Iterable[Window], expected: Mapping[Key, Window], *, late: int
) -> WindowAudit:
    """Compare every window with the one-shot computation, and the folder with the queue."""
    sent, filed = _by_key(queue), _by_key(parquet)
    return WindowAudit(
        expected=len(expected),
        closed=sum(map(len, sent.values())),
        differ=sorted(key for key in sent.keys() | expected.keys() if not _same(sent.get(key), expected.get(key))),
        twice=sorted({key for found in (sent, filed) for key, windows in found.items() if len(windows) > 1}),
        parquet_differs=sorted(
            key for key in sent.keys() | filed.keys() if not _same(filed.get(key), _first(sent, key))
        ),
        late=late,
    )


def read_parquet(folder: Path) -> list[Window]:
    """Every window in the folder."""
    import pyarrow.dataset as ds  # noqa: PLC0415 - it takes a third of a second, and only the end needs it

    if not folder.is_dir():
        return []
    rows = ds.dataset(folder, format="parquet").to_table().to_pylist()
    return [Window(**{**row, "window_start": row["window_start"].replace(tzinfo=dt.UTC)}) for row in rows]


def _by_key(windows: Iterable[Window]) -> dict[Key, list[Window]]:
    found: dict[Key, list[Window]] = defaultdict(list)
    for window in windows:
        found[window.key].append(window)
    return dict(found)


def _first(found: Mapping[Key, list[Window]], key: Key) -> Window | None:
    return found[key][0] if key in found else None


def _same(windows: list[Window] | None, expected: Window | None) -> bool:
    """A key's windows are all what is expected; there is at least one."""
    return windows is not None and expected is not None and all(_equal(window, expected) for window in windows)


def _equal(left: Window, right: Window) -> bool:
    if (left.flights, left.departed) != (right.flights, right.departed):
        return False
    if left.delay is None or right.delay is None:
        return left.delay is right.delay
    return math.isclose(left.delay, right.delay, rel_tol=DELAY_TOLERANCE)
