"""What passes from stage to stage: a flight, the departures of an airport in an hour, a window of the pipeline."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, Literal, TypeAlias

import msgspec

TASKS: Final = "tasks"
LETTERS: Final = "tasks-dead"
TOPIC: Final = "flights"
RESULTS: Final = "delays"
"""A topic, into which the pipeline publishes its windows, and the queue that is subscribed to it."""
LATE: Final = "delays-late"
REPORTS: Final = "reports"

AIRPORTS: Final = ("EWR", "JFK", "LGA")

Key: TypeAlias = tuple[str, str]
"""(day, airport) of a window."""


class Flight(msgspec.Struct, frozen=True, gc=False):
    """A row of the data. `time_hour`: the hour it was to leave in, UTC. Delays in minutes; None: it never left or arrived."""

    row: int
    time_hour: dt.datetime
    origin: str
    dest: str
    carrier: str
    flight: int
    tailnum: str | None
    dep_delay: float | None
    arr_delay: float | None


class Departures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /departures."""

    airport: Literal["EWR", "JFK", "LGA"]
    flights: list[Flight]


class Filed(Flight, frozen=True, gc=False):
    """A flight on the topic. `request`: the Idempotency-Key that it came with."""

    request: str = ""

    @classmethod
    def of(cls, flight: Flight, request: str) -> Filed:
        fields: dict[str, Any] = msgspec.structs.asdict(flight)
        return cls(**fields, request=request)


class Window(msgspec.Struct, frozen=True):
    """A day of an airport, as the pipeline closes it. `delay`: the mean of those that departed, in minutes."""

    window_start: dt.datetime
    origin: str
    flights: int
    departed: int
    delay: float | None

    @property
    def key(self) -> Key:
        return self.window_start.date().isoformat(), self.origin


class Report(msgspec.Struct, frozen=True):
    """What the schedule tells: the worst of the windows that were closed since the report before."""

    at: dt.datetime
    windows: int
    worst: Window | None
