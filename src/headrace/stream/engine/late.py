"""Late rows: taken out of the stream, kept in the context with the reason."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.engine.operator import END, NEVER, Context, Refused
from headrace.stream.engine.tables import complete, split


def refuse_late(context: Context, rows: pa.Table, time: str, watermark: int, step: str) -> pa.Table:
    """The rows that are not older than the watermark, or have no time at all; the others are refused."""
    if watermark == NEVER or not rows.num_rows:
        return rows
    column = rows[time].cast(pa.int64())
    oldest = pc.min(column).as_py()
    if oldest is None or oldest >= watermark:
        return rows
    timely, late = split(rows, pc.fill_null(pc.greater_equal(column, watermark), True))
    context.late.append(Refused(late, f"{time} is older than the watermark, {moment(watermark)}", step))
    return timely


def refuse_timeless(context: Context, rows: pa.Table, time: str, step: str) -> pa.Table:
    """The rows that have an event time; the others are refused."""
    timely, timeless = complete(rows, [time])
    if timeless.num_rows:
        context.late.append(Refused(timeless, f"{time} is NULL, so nobody knows when it is late", step))
    return timely


def moment(time_us: int) -> str:
    """A point of event time for people."""
    if time_us >= END:
        return "the end of the stream"
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=time_us)).isoformat(" ")  # noqa: DTZ001 (UTC, unsaid)
