"""GROUP BY over session windows.

Each row is an interval [time, time + gap]; intervals of a key that touch are one session (a row exactly at the gap merges,
as in Spark). The rows of a batch are first merged into sessions of the batch; the state holds these: start, stop, partials.

A session closes when the watermark is *beyond* its stop, since a row exactly at the stop would still belong to it. (At
equality Spark closes it, so there it depends on the batches whether such a row merges.) A row is late if its own interval
has ended, whatever session it might have joined.

State is divided by stop into slices, so that closing sessions are in the first ones. Sessions of these that turn out to continue are
moved to the slice of their new stop, and read again there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import limits, physical
from headrace.stream.engine.aggregate import TIMES
from headrace.stream.engine.arrow_tables import conform, micros, minus, moment, reject_timeless, split
from headrace.stream.engine.grouping import Groups, codes_of
from headrace.stream.engine.operator import END, NEVER, Context, Operator, RejectedRows
from headrace.stream.engine.state_slices import grouped
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.schema import Schema

Ints = npt.NDArray[np.int64]


class SessionOperator(Operator):
    """State: sessions of single batches, each by its own stop or, once read, by that of the session it belongs to."""

    def __init__(
        self, node: physical.Aggregate, name: str, inputs: Sequence[Schema], context: Context, *, kernels: bool = True
    ) -> None:
        assert isinstance(node.window, physical.Session)
        assert node.time is not None
        if node.mode == "update":
            raise UnsupportedQuery(
                "session_window", "sessions have no update mode, as in Spark", "append mode", step=node.step
            )
        self.schema = node.schema
        self._node = node
        self._time = node.time
        self._gap_us = node.window.gap_us
        self._slice_us = max(1, self._gap_us // limits.SESSION_SLICES)
        self._context = context
        self._groups = Groups(node, inputs[0], ("start", "stop", "born"), context, kernels=kernels)
        self._state = context.state(name, self._groups.key_names, self._groups.schema)
        # The batch's number: slices do not keep the order of arrival, and of equal times the first to arrive counts.
        self._born = 1 + int(pc.max(self._state.read()["born"]).as_py() or 0)
        # No session stops before this; known again after the first look.
        self._stops_from = NEVER

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port
        rows = self._timely(reject_timeless(self._context, rows, self._time, self._node.step), watermark)
        if rows.num_rows:
            times = pa.array(micros(rows, self._time))
            born = pa.array(np.full(rows.num_rows, self._born))
            columns = self._groups.columns(rows, start=times, stop=pc.add(times, self._gap_us), born=born)
            self._append(self._groups.create(self._united(columns, "start", "stop")), "stop")
            self._born += 1
        return None

    def advance(self, watermark: int) -> pa.Table | None:
        looked_at = self._state.buckets(last=(watermark - 1) // self._slice_us)
        if self._stops_from >= watermark or not looked_at:
            return None
        rows, count = self._read(looked_at)
        rows = self._united(rows, "first", "last")
        last = rows["last"].to_numpy()
        for number in looked_at:
            self._state.drop(number)
        # Of the other slices everything goes on, and stays where it is.
        self._append(rows.slice(0, count).filter(pa.array(last[:count] >= watermark)), "last")
        self._stops_from = int(last[last >= watermark].min(initial=END))
        closed = rows.filter(pa.array(last < watermark))
        return self._result(closed) if closed.num_rows else None

    def watermark(self, inputs: Sequence[int]) -> int:
        """A session that stops at the watermark is still open, and its time is a microsecond before that."""
        return minus(min(inputs), 1)

    def pending(self) -> int | None:
        buckets = self._state.buckets()
        return int(pc.max(self._state.read(buckets[-1:])["stop"]).as_py()) + 1 if buckets else None

    def _timely(self, rows: pa.Table, watermark: int) -> pa.Table:
        if watermark == NEVER or not rows.num_rows:
            return rows
        timely, late = split(rows, pa.array(micros(rows, self._time) + self._gap_us > watermark))
        if late.num_rows:
            reason = f"the session of {self._time} alone has ended: the watermark is {moment(watermark)}"
            self._context.late.append(RejectedRows(late, reason, self._node.step))
        return timely

    def _united(self, rows: pa.Table, first: str, last: str) -> pa.Table:
        """The intervals with the bounds of the session that each belongs to, as columns `first` and `last`."""
        codes = codes_of(rows, self._groups.key_names)
        firsts, lasts = merge_sessions(codes, rows["start"].to_numpy(), rows["stop"].to_numpy())
        return _with(_with(rows, first, firsts), last, lasts)

    def _read(self, looked_at: list[int]) -> tuple[pa.Table, int]:
        """All state, that of these slices first; and how much that is."""
        first = self._state.read(looked_at)
        rest = self._state.read(number for number in self._state.buckets() if number not in looked_at)
        return pa.concat_tables([first, rest]), first.num_rows

    def _append(self, rows: pa.Table, by: str) -> None:
        if rows.num_rows:
            for number, group in grouped(rows, rows[by].to_numpy() // self._slice_us):
                self._state.append(number, group)
            self._stops_from = min(self._stops_from, int(pc.min(rows[by]).as_py()))

    def _result(self, rows: pa.Table) -> pa.Table:
        merged = self._groups.merge(rows.sort_by("born"), ["first", "last"])
        starts, ends = merged["first"], merged["last"]
        columns = [starts.cast(TIMES), ends.cast(TIMES), pc.subtract(ends, 1).cast(TIMES)]
        columns += [*(merged[name] for name in self._groups.key_names), *self._groups.results(merged)]
        return conform(pa.table(columns, names=self.schema.names), self.schema)


def merge_sessions(codes: Ints, starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """For each interval the (first start, last stop) of those of its code that touch it, directly or through others."""
    order = np.lexsort((starts, codes))
    codes, starts, stops = codes[order], starts[order], stops[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (codes[1:] != codes[:-1]) | (starts[1:] > _greatest_so_far(codes, stops)[:-1])
    places = np.flatnonzero(begins)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(begins) - 1
    return starts[places][numbers], np.maximum.reduceat(stops, places)[numbers]


def _greatest_so_far(codes: Ints, stops: Ints) -> Ints:
    """The running maximum of the stops of each code; codes sorted. By ranks, so that a code's are above the last one's."""
    ordered = np.sort(stops)
    base = np.cumsum(np.diff(codes, prepend=codes[:1]) != 0) * len(codes)
    ranks = np.searchsorted(ordered, stops)
    greatest: Ints = ordered[np.maximum.accumulate(ranks + base) - base]
    return greatest


def _with(rows: pa.Table, name: str, values: Ints) -> pa.Table:
    place = rows.column_names.index(name) if name in rows.column_names else -1
    column = pa.array(values)
    return rows.append_column(name, column) if place < 0 else rows.set_column(place, name, column)
