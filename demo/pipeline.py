"""The pipeline process that the demo starts, kills and starts again; the windows that it closes; and what they should be.

The reference is a plain loop over the flights that the consumers saw: no window, no state, no SQL.
"""

from __future__ import annotations

import datetime as dt
import math
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

import headrace
from demo.flights import read as read_flights
from headrace.errors import HeadraceError
from headrace.native.queue import Queue

DEFINITION: Final = Path(__file__).parent / "delays.py"
TOPIC: Final = "flights"
RESULTS: Final = "delays"
LATE: Final = "delays-late"
STOP_TIMEOUT_S: Final = 20
AT_ONCE: Final = 1_000
DELAY_TOLERANCE: Final = 1e-9
"""Relative: means are sums in another order."""

Key: TypeAlias = tuple[str, str]
"""(day, origin)."""


class Window(msgspec.Struct, frozen=True):
    """A closed window, as the pipeline sends it. `delay`: the mean of those that departed, in minutes."""

    window_start: dt.datetime
    origin: str
    flights: int
    departed: int
    delay: float | None

    @property
    def key(self) -> Key:
        return self.window_start.date().isoformat(), self.origin


class PipelineProcess:
    """A real `headrace stream run` against the demo's broker."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.log = folder / "pipeline.log"
        self._command = [sys.executable, "-m", "headrace", "stream", "run", str(DEFINITION), "--broker", endpoint]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then stops it.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def check(self) -> None:
        """Raises RuntimeError if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"the pipeline ended with {self._process.returncode}:\n{self.log.read_text()[-2_000:]}")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


class Results:
    """The windows that have come so far, taken from the result queue; never waits for a broker that is down."""

    def __init__(self, endpoint: str) -> None:
        self._client = headrace.connect(endpoint, timeout=2, patience=0)
        self._queue: Queue = self._client.queue(RESULTS, create=True)
        self._seen: set[str] = set()
        self.windows: list[Window] = []
        self.flights = 0

    def read(self) -> None:
        """Take what is there. A message whose delete was cut comes again: it is the same message, and counts once."""
        try:
            while messages := self._queue.receive(max=AT_ONCE, wait=0):
                new = [message for message in messages if message.id not in self._seen]
                self._seen.update(message.id for message in new)
                self.windows += [message.json(Window) for message in new]
                self.flights = sum(window.flights for window in self.windows)
                self._queue.delete(messages)
        except HeadraceError:
            return

    def late(self) -> int:
        """How many rows came too late for their window."""
        return self._client.queue(LATE, create=True).counts().visible

    def close(self) -> None:
        self._client.close()


class _Flight(msgspec.Struct, frozen=True):
    row: int
    origin: str
    dep_delay: float | None
    time_hour: dt.datetime


_flight = msgspec.json.Decoder(_Flight)


@dataclass(frozen=True)
class WindowAudit:
    """What the windows prove.

    Attributes:
        expected: windows of the one-shot computation over the messages that the consumers processed.
        closed: windows that the pipeline sent.
        equal: keys for which exactly one was sent, with the same numbers.
        twice: windows sent more than once. Must be 0.
        late: rows that came too late. Must be 0: the pipeline waits three days.
    """

    expected: int
    closed: int
    equal: int
    twice: int
    late: int

    @property
    def holds(self) -> bool:
        return self.expected == self.closed == self.equal and self.twice == self.late == 0


def one_shot(rows: Iterable[int]) -> dict[Key, Window]:
    """The windows over these rows of the data, a row as often as it stands there: once for each message."""
    times: dict[int, int] = defaultdict(int)
    for row in rows:
        times[row] += 1
    counts: dict[Key, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for flight in map(_flight.decode, read_flights()):
        repeated = times.get(flight.row, 0)
        if repeated:
            sums = counts[flight.time_hour.date().isoformat(), flight.origin]
            sums[0] += repeated
            if flight.dep_delay is not None:
                sums[1] += repeated
                sums[2] += repeated * flight.dep_delay
    return {key: _window(key, *sums) for key, sums in counts.items()}


def _window(key: Key, flights: float, departed: float, delays: float) -> Window:
    day = dt.datetime.fromisoformat(key[0]).replace(tzinfo=dt.UTC)
    return Window(day, key[1], int(flights), int(departed), delays / departed if departed else None)


def audit_windows(windows: Iterable[Window], expected: Mapping[Key, Window], *, late: int) -> WindowAudit:
    """Compare every window with the one-shot computation."""
    sent: dict[Key, list[Window]] = defaultdict(list)
    for window in windows:
        sent[window.key].append(window)
    return WindowAudit(
        expected=len(expected),
        closed=sum(map(len, sent.values())),
        equal=sum(
            len(found) == 1 and key in expected and _same(found[0], expected[key]) for key, found in sent.items()
        ),
        twice=sum(len(found) - 1 for found in sent.values()),
        late=late,
    )


def _same(left: Window, right: Window) -> bool:
    if (left.flights, left.departed) != (right.flights, right.departed):
        return False
    if left.delay is None or right.delay is None:
        return left.delay is right.delay
    return math.isclose(left.delay, right.delay, rel_tol=DELAY_TOLERANCE)
