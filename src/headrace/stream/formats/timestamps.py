"""Points in time as text or number → µs since 1970, UTC.

Text is ISO 8601 (`2013-01-01T05:00:00.5-05:00`, `2013-01-01 05:00`, `2013-01-01`); without a zone it is UTC; digits beyond
the microsecond are cut off. A number is an epoch, whose unit follows from its size: below 1e11 seconds (until the year 5138),
below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

Moment: TypeAlias = str | int | float | None

TYPE: Final = pa.timestamp("us")

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_FIRST_US: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_LAST_US: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_TEXT: Final = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)


def build(values: Sequence[Moment]) -> pa.Array:
    """Arrow timestamps. Raises ValueError if a value is invalid."""
    return _from_texts(values) or pa.array([None if value is None else to_us(value) for value in values], TYPE)


def to_us(value: str | float) -> int:
    """One of them. Raises ValueError."""
    moment_us = _text_us(value) if isinstance(value, str) else _number_us(value)
    if not _FIRST_US <= moment_us <= _LAST_US:
        raise ValueError(f"{value!r} is not in the years 1 to 9999")
    return moment_us


def _from_texts(values: Sequence[Moment]) -> pa.Array | None:
    """The fast way, for texts of which either all have a zone or none has; None: take the other."""
    try:
        texts = pa.array(values, pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid, UnicodeEncodeError):  # numbers among them, or no text at all
        return None
    for kind in (pa.timestamp("us", "UTC"), TYPE):
        try:
            found = pc.cast(texts, kind).cast(TYPE)
        except pa.ArrowInvalid:
            continue
        return found if _within(found) else None
    return None


def _within(found: pa.Array) -> bool:
    bounds = pc.min_max(found.cast(pa.int64())).as_py()
    return bounds["min"] is None or (bounds["min"] >= _FIRST_US and bounds["max"] <= _LAST_US)


def _text_us(text: str) -> int:
    if not _TEXT.fullmatch(text):
        raise ValueError(f"{text[:100]!r} is no ISO 8601 timestamp")
    moment = dt.datetime.fromisoformat(text)
    return (moment.replace(tzinfo=moment.tzinfo or dt.UTC) - _EPOCH) // _MICROSECOND


def _number_us(number: float) -> int:
    size = abs(number)
    if size < 1e11:
        return round(number * 1_000_000)
    if size < 1e14:
        return round(number * 1_000)
    return round(number) if size < 1e17 else int(number) // 1_000
