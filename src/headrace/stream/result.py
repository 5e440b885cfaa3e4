"""The result of a run, for programs and notebooks, and the reports while it runs."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.stream import limits
from headrace.stream.engine.operator import END, NEVER
from headrace.stream.sources.base import Progress

_SHOWN_ROWS = 20


@dataclass(frozen=True, slots=True)
class Report:
    """The progress of a running pipeline.

    Attributes:
        batches, rows_in, rows_out, late, dead: in this run.
        rows_in_s: recent rows per second.
        watermark: µs; the least of the sources'.
        state_bytes: the size of the state.
        sources: how far each is.
        undelivered: batches on their way to sinks outside the store.
        standby: another process has the pipeline; this one waits to take over.
        paused: by `headrace stream pause`.
    """

    pipeline: str
    batches: int = 0
    rows_in: int = 0
    rows_out: int = 0
    late: int = 0
    dead: int = 0
    rows_in_s: float = 0.0
    watermark: int = NEVER
    state_bytes: int = 0
    sources: Mapping[str, Progress] = field(default_factory=dict)
    undelivered: int = 0
    standby: bool = False
    paused: bool = False


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run.

    Attributes:
        rows: the output: all rows if the pipeline has no sink, otherwise the first RESULT_ROWS_MAX.
        complete: whether `rows` has all of the output.
    """

    pipeline: str
    batches: int
    rows_in: int
    rows_out: int
    late: int
    dead: int
    watermark: int
    seconds: float
    rows: pa.Table
    complete: bool

    def to_arrow(self) -> pa.Table:
        return self.rows

    def to_pandas(self) -> Any:
        """A pandas DataFrame (pandas is not brought by headrace)."""
        return self.rows.to_pandas()

    def __str__(self) -> str:
        refused = f", {self.late:,} late, {self.dead:,} dead" if self.late or self.dead else ""
        return (
            f"{self.pipeline}: {self.rows_in:,} rows in, {self.rows_out:,} out{refused}, {counted(self.batches, 'batch', 'batches')} in"
            f" {self.seconds:.1f} s; watermark {watermark_text(self.watermark)}"
        )

    def __repr__(self) -> str:
        return f"<{self}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.rows.column_names)
        shown = self.rows.slice(0, _SHOWN_ROWS).to_pylist()
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(str(value))}</td>' for value in row.values())}</tr>" for row in shown
        )
        more = self.rows_out - len(shown)
        rest = f"<p>… and {more:,} more rows</p>" if more > 0 else ""
        return f"<p>{html.escape(str(self))}</p><table><tr>{head}</tr>{body}</table>{rest}"


class Collector:
    """Keeps output for the result: all of it, or the first RESULT_ROWS_MAX rows."""

    def __init__(self, schema: pa.Schema, *, everything: bool) -> None:
        self._schema = schema
        self._room = None if everything else limits.RESULT_ROWS_MAX
        self._tables: list[pa.Table] = []
        self.complete = True

    def add(self, rows: pa.Table) -> None:
        if self._room is not None:
            self.complete &= rows.num_rows <= self._room
            rows = rows.slice(0, self._room)
            self._room -= rows.num_rows
        if rows.num_rows:
            self._tables.append(rows)

    def table(self) -> pa.Table:
        return pa.concat_tables(self._tables) if self._tables else self._schema.empty_table()


def counted(count: int, one: str, many: str) -> str:
    """`1 batch`, `2 batches`."""
    return f"{count:,} {one if count == 1 else many}"


def watermark_text(watermark: int) -> str:
    """A watermark for people."""
    if watermark >= END:
        return "at the end"
    if watermark <= NEVER:
        return "none yet"
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=watermark)  # noqa: DTZ001 - UTC without zone, as inside
    return moment.isoformat(sep=" ", timespec="milliseconds" if moment.microsecond else "seconds")
