"""Durations as people write them: "10 minutes", "1h30m", a timedelta, seconds."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final, TypeAlias

from headrace.errors import CallerError

Duration: TypeAlias = "str | float | dt.timedelta"
"""`"10 minutes"`, `"1 hour 30 minutes"`, `"1h30m"`, a timedelta, or a number of seconds."""

_UNITS_US: Final = {
    "us": 1, "microsecond": 1, "ms": 1_000, "millisecond": 1_000, "s": 10**6, "sec": 10**6, "second": 10**6,
    "m": 60 * 10**6, "min": 60 * 10**6, "minute": 60 * 10**6, "h": 3_600 * 10**6, "hour": 3_600 * 10**6,
    "d": 86_400 * 10**6, "day": 86_400 * 10**6, "w": 7 * 86_400 * 10**6, "week": 7 * 86_400 * 10**6,
}  # fmt: skip
_PART: Final = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([a-zµ]+)\s*,?", re.IGNORECASE)


class DurationInvalid(CallerError):
    """A duration cannot be parsed."""


def duration_us(value: Duration) -> int:
    """Microseconds. Raises DurationInvalid; months and years are refused, since their length varies."""
    if isinstance(value, dt.timedelta):
        return round(value / dt.timedelta(microseconds=1))
    if isinstance(value, int | float):
        return round(value * 10**6)
    text = value.strip().lower().removeprefix("interval ").replace("µ", "u").replace("'", "")
    parts = list(_PART.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise DurationInvalid(_reason(value))
    return round(sum(float(part.group(1)) * _unit_us(part.group(2), value) for part in parts))


def duration_text(us: int) -> str:
    """As Spark reads it, in the greatest units that say it exactly: `10 minutes`, `90 seconds`."""
    for unit in ("day", "hour", "minute", "second", "millisecond"):
        if us and us % _UNITS_US[unit] == 0:
            count = us // _UNITS_US[unit]
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{us} microseconds" if us else "0 seconds"


def _unit_us(unit: str, value: str) -> int:
    found = _UNITS_US.get(unit) or _UNITS_US.get(unit.removesuffix("s"))
    if found is None:
        raise DurationInvalid(_reason(value))
    return found


def _reason(value: str) -> str:
    return f"{value!r} is not a valid duration; use for example '10 minutes', '1h30m' or '500 ms'"
