"""Operations on Arrow tables that operators share, and the removal of late rows from a stream."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.engine.operator import END, NEVER, Context, RejectedRows
from headrace.stream.schema import ORIGIN, Schema


def conform(rows: pa.Table, schema: Schema) -> pa.Table:
    """The rows under a schema: columns by place, named and typed as it says. An ORIGIN behind them stays."""
    columns = [_typed(column, field.type) for column, field in zip(rows.columns, schema.fields, strict=False)]
    names = schema.names
    if ORIGIN in rows.column_names:
        columns.append(rows[ORIGIN])
        names = [*names, ORIGIN]
    return pa.table(columns, names=names)


def plain(rows: pa.Table, schema: Schema) -> pa.Table:
    """The columns of the schema alone: no ORIGIN. For state, and for rows that stem from more than one message."""
    return conform(rows.select(schema.names), schema)


def nullable(schema: Schema, names: Sequence[str] | None = None) -> pa.Schema:
    """The columns (None: all) as `plain` gives them. Only tables that agree in what may be NULL can be put together."""
    fields = schema.fields if names is None else [field for name in names if (field := schema.find(name)) is not None]
    return pa.schema([pa.field(field.name, field.type) for field in fields])


def micros(rows: pa.Table, column: str) -> npt.NDArray[np.int64]:
    """A timestamp column without NULLs, in µs since 1970."""
    times: npt.NDArray[np.int64] = rows[column].cast(pa.int64()).to_numpy()
    return times


def split(rows: pa.Table, mask: pa.ChunkedArray | pa.Array) -> tuple[pa.Table, pa.Table]:
    """(rows where it is true, the others)."""
    if pc.all(mask, min_count=0).as_py():
        return rows, rows.slice(0, 0)
    return rows.filter(mask), rows.filter(pc.invert(mask))


def complete(rows: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """(rows without a NULL in these columns, the others)."""
    valid = [rows[column].is_valid() for column in columns if rows[column].null_count]
    mask = valid[0] if valid else None
    for other in valid[1:]:
        mask = pc.and_(mask, other)
    return (rows, rows.slice(0, 0)) if mask is None else split(rows, mask)


def minus(watermark: int, by_us: int) -> int:
    """An earlier watermark; there is nothing before the first row, or after the end."""
    return watermark if watermark in (NEVER, END) else watermark - by_us


def quoted(name: str) -> str:
    """A name in DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type.equals(kind) else column.cast(kind)


# --- Late rows: removed from the stream, kept in the context with the reason ---


def reject_late(context: Context, rows: pa.Table, time: str, watermark: int, step: str) -> pa.Table:
    """The rows that are not older than the watermark, or have no time; the others are rejected."""
    if watermark == NEVER or not rows.num_rows:
        return rows
    column = rows[time].cast(pa.int64())
    oldest = pc.min(column).as_py()
    if oldest is None or oldest >= watermark:
        return rows
    timely, late = split(rows, pc.fill_null(pc.greater_equal(column, watermark), True))
    context.late.append(RejectedRows(late, f"{time} is older than the watermark, {moment(watermark)}", step))
    return timely


def reject_timeless(context: Context, rows: pa.Table, time: str, step: str) -> pa.Table:
    """The rows that have an event time; the others are rejected."""
    timely, timeless = complete(rows, [time])
    if timeless.num_rows:
        context.late.append(RejectedRows(timeless, f"{time} is NULL, so the row has no event time", step))
    return timely


def moment(time_us: int) -> str:
    """A human-readable event time."""
    if time_us >= END:
        return "the end of the stream"
    return (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=time_us)).isoformat(" ")  # noqa: DTZ001 (UTC, unsaid)
