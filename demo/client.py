"""A client process: one airport that POSTs each hour's departures when it is time to, whatever became of those before.

That is an open loop: requests come at the pace of the year and wait for nobody, as those of real clients do. What is put off
(503) or cut is sent again under its Idempotency-Key until it is accepted. One bound holds: nothing is sent that is further
ahead than AHEAD_HOURS of the oldest flight that is not processed yet, so that no flight is late for its day's window.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from demo import flights as data
from demo.ledger import ACCEPTED, CUT, FAILED, PUT_OFF, REPEATED, Event, Page
from demo.shapes import Departures, Flight
from demo.wire import Answer, Wire

AHEAD_HOURS: Final = 10 * 24
"""The pipeline waits for two days more."""
TICK_S: Final = 0.01
CUT_PAUSE_S: Final = 0.3
LONGER_MAX: Final = 8
"""Else those that were put off would take the server's time from those that it could serve."""
SPREAD: Final = 0.5
"""Clients that are told to come again in a second come in 1 to 1.5: else they would all be back at once."""


@dataclass(frozen=True)
class Orders:
    """What the demo tells all clients, in shared memory."""

    cells: SynchronizedArray[float]
    SIZE = 5

    @property
    def pace(self) -> float:
        """Hours of the year that pass in a second."""
        return self.cells[0]

    @property
    def tries_max(self) -> int:
        """Requests of a client that may be on their way at once."""
        return int(self.cells[1])

    @property
    def singly(self) -> bool:
        """Each flight is a request of its own."""
        return bool(self.cells[2])

    @property
    def floor(self) -> float:
        """The hour of the oldest flight that is not processed."""
        return self.cells[3]

    @property
    def over(self) -> bool:
        """No new requests."""
        return bool(self.cells[4])

    def set(self, *, pace: float | None = None, tries_max: int | None = None, singly: bool | None = None,
            floor: float | None = None, over: bool | None = None) -> None:  # fmt: skip
        for place, value in enumerate((pace, tries_max, singly, floor, over)):
            if value is not None:
                self.cells[place] = float(value)


@dataclass(frozen=True)
class Assignment:
    """What a client process is told at its start."""

    airport: str
    url: str
    ledger: Path
    limit: int
    orders: Orders


def run(assignment: Assignment) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the demo alone decides what it means
    uvloop.run(Client(assignment).run())


class Client:
    """One airport."""

    def __init__(self, assignment: Assignment) -> None:
        self._told = assignment
        self._orders = assignment.orders
        self._wire = Wire(assignment.url)
        self._page = Page(assignment.ledger, assignment.airport)
        self._under_way: set[asyncio.Task[None]] = set()
        self._now = 0.0
        self._ticked_s = time.monotonic()

    async def run(self) -> None:
        """Every hour of the year in turn, or until it is over; then until the last request is accepted."""
        for departing in data.hours(self._told.airport, self._told.limit):
            hour = data.hour_of(departing[0].time_hour)
            if not await self._is_time(hour):
                break
            for place, request in enumerate(self._requests(departing)):
                if not await self._is_time(hour + place / len(departing)):
                    break
                self._start(request)
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._page.close()
        self._wire.close()

    def _requests(self, departing: list[Flight]) -> Iterator[tuple[str, list[Flight]]]:
        """(Idempotency-Key, flights)."""
        hour = f"{departing[0].origin}-{departing[0].time_hour:%Y-%m-%dT%H}"
        if self._orders.singly:
            yield from ((f"{hour}-{flight.row}", [flight]) for flight in departing)
        else:
            yield hour, departing

    async def _is_time(self, hour: float) -> bool:
        """Wait for it. Returns: False if it is all over."""
        while not self._orders.over:
            self._tick()
            if self._now >= hour and len(self._under_way) < self._orders.tries_max:
                return True
            await asyncio.sleep(TICK_S)
        return False

    def _tick(self) -> None:
        """Let the year go on, at its pace."""
        now_s = time.monotonic()
        ahead = self._orders.floor + AHEAD_HOURS
        self._now = min(ahead, self._now + self._orders.pace * (now_s - self._ticked_s))
        self._ticked_s = now_s

    def _start(self, request: tuple[str, list[Flight]]) -> None:
        task = asyncio.get_running_loop().create_task(self._send(*request))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, key: str, flights: list[Flight]) -> None:
        """Until it is accepted, or refused."""
        body = msgspec.json.encode(Departures(self._told.airport, flights))  # type: ignore[arg-type] # it is one of the three
        rows = tuple(flight.row for flight in flights)
        for tries in count():
            answer = await self._wire.post("/departures", key, body)
            kind = _kind(answer)
            self._page.write(Event(kind, key, rows if kind in (ACCEPTED, REPEATED) else ()))
            if kind not in (PUT_OFF, CUT):
                return
            await asyncio.sleep(_pause_s(answer, tries))


def _kind(answer: Answer | None) -> str:
    if answer is None:
        return CUT
    if answer.status == 202:
        return REPEATED if b'"repeated":true' in answer.body else ACCEPTED
    return PUT_OFF if answer.status == 503 else FAILED


def _pause_s(answer: Answer | None, tries: int) -> float:
    """Until the next try: what the server asks for, and a bit; twice as long each time that it says no again."""
    pause_s = CUT_PAUSE_S if answer is None else answer.retry_after_s * min(2**tries, LONGER_MAX)
    return pause_s * (1 + SPREAD * random.random())
