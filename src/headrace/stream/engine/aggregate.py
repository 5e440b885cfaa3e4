"""GROUP BY over tumbling and hopping windows, and without windows.

Windows consist of panes whose length is the greatest common divisor of size and slide, so overlapping windows share
panes: a row is added to one pane, however many windows contain it. A batch becomes one row of partials per pane and key, and
these are appended to the pane's bucket; a window that closes merges those of its panes. Without windows there is one pane
for ever, 0, in slices by key.

A row is late if all its windows have closed: if it lies before the start of the first open one. If some are open, it
counts in those, because closed windows are never read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import limits, physical
from headrace.stream.engine.arrow_tables import conform, micros, moment, reject_timeless, split
from headrace.stream.engine.grouping import Groups
from headrace.stream.engine.operator import END, NEVER, Context, Operator, RejectedRows
from headrace.stream.engine.state_slices import KeySlices, grouped
from headrace.stream.schema import Schema

TIMES = pa.timestamp("us")
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Windows:
    """The arithmetic of windows [n × slide, n × slide + size), in whole µs since 1970, before it as well."""

    size_us: int
    slide_us: int

    @property
    def pane_us(self) -> int:
        return gcd(self.size_us, self.slide_us)

    @property
    def per_row(self) -> int:
        """The maximum number of windows that contain a row."""
        return -(-self.size_us // self.slide_us)

    def last_end(self, time_us: int) -> int:
        """The end of the last window that contains this time."""
        return time_us // self.slide_us * self.slide_us + self.size_us

    def open_from(self, watermark: int) -> int:
        """The start of the first open window: older rows are late."""
        return ((watermark - self.size_us) // self.slide_us + 1) * self.slide_us

    def ends(self, panes: Sequence[int], after: int, to: int) -> list[int]:
        """The ends in (after, to] of the windows that contain any of these panes, sorted."""
        found: set[int] = set()
        for pane in panes:
            last = self.last_end(pane)
            beyond = max(0, -((to - last) // self.slide_us))
            found.update(range(last - beyond * self.slide_us, max(after, pane), -self.slide_us))
        return sorted(found)

    def expand(self, rows: pa.Table, ends: Sequence[int]) -> pa.Table:
        """Each row of partials, repeated for each window from the first to the last of these ends that contains its pane.

        `window` is its start. The rows of a window are in the order of their panes, if `rows` are.
        """
        panes = rows["pane"].to_numpy()
        pieces = self._by_window(panes, ends) if len(ends) < self.per_row else self._by_step(panes, ends)
        return pa.concat_tables([_marked(rows, starts, mask) for starts, mask in pieces])

    def _by_window(self, panes: Ints, ends: Sequence[int]) -> Iterator[tuple[Ints, Flags]]:
        for end in ends:
            start = end - self.size_us
            yield np.full(len(panes), start), (panes >= start) & (panes < end)

    def _by_step(self, panes: Ints, ends: Sequence[int]) -> Iterator[tuple[Ints, Flags]]:
        """The last window of every row, then the one before that, …: fewer steps than windows."""
        last = panes // self.slide_us * self.slide_us
        for step in range(self.per_row):
            starts = last - step * self.slide_us
            found = starts + self.size_us
            yield starts, (found > panes) & (found >= ends[0]) & (found <= ends[-1])


def windows_of(window: physical.Window | None) -> Windows | None:
    if isinstance(window, physical.Hop):
        return Windows(window.size_us, window.slide_us)
    return Windows(window.size_us, window.size_us) if isinstance(window, physical.Tumble) else None


class AggregateOperator(Operator):
    """State: partials by pane and key, a bucket a pane (without windows: a slice of the keys).

    Invariant: there are no panes whose windows have all closed.
    """

    def __init__(
        self,
        node: physical.Aggregate,
        name: str,
        inputs: Sequence[Schema],
        context: Context,
        *,
        kernels: bool = True,
    ) -> None:
        self.schema = node.schema
        self._node = node
        self._context = context
        self._windows = windows_of(node.window)
        self._groups = Groups(node, inputs[0], ("pane",), context, kernels=kernels)
        self._state = context.state(name, self._groups.key_names, self._groups.schema)
        # Without windows: kept for ever, so a batch must not read, or a merge write, all of it.
        self._slices = KeySlices(self._state, self._groups.key_names, lambda rows: self._groups.merge(rows, ["pane"]))

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port
        rows = self._timely(rows, watermark)
        if not rows.num_rows:
            return None
        created = self._groups.create(self._groups.columns(rows, pane=self._panes(rows)))
        if self._windows is None:
            self._slices.append(created)
        else:
            for pane, group in grouped(created, created["pane"].to_numpy()):
                self._append(pane, group)
        return self._changed(created, watermark) if self._node.mode == "update" else None

    def advance(self, watermark: int) -> pa.Table | None:
        if self._windows is None:
            return None
        closed = [self._result(merged) for merged in self._closing(watermark)] if self._node.mode == "append" else []
        for pane in self._state.buckets(last=watermark):
            if self._windows.last_end(pane) > watermark:
                break
            self._state.drop(pane)
        return pa.concat_tables(closed) if closed else None

    def pending(self) -> int | None:
        panes = self._state.buckets()
        if self._windows is None or self._node.mode == "update" or not panes:
            return None
        return self._windows.last_end(panes[-1])

    def _timely(self, rows: pa.Table, watermark: int) -> pa.Table:
        if self._windows is None or self._node.time is None:
            return rows
        rows = reject_timeless(self._context, rows, self._node.time, self._node.step)
        if watermark == NEVER or not rows.num_rows:
            return rows
        times = micros(rows, self._node.time)
        first = min(self._windows.open_from(watermark), END)
        if times.min() >= first:
            return rows
        timely, late = split(rows, pa.array(times >= first))
        reason = f"all windows of {self._node.time} have closed: the watermark is {moment(watermark)}"
        self._context.late.append(RejectedRows(late, reason, self._node.step))
        return timely

    def _panes(self, rows: pa.Table) -> pa.Array:
        if self._windows is None or self._node.time is None:
            return pa.array(np.zeros(rows.num_rows, np.int64))
        pane_us = self._windows.pane_us
        return pa.array(micros(rows, self._node.time) // pane_us * pane_us)

    def _append(self, pane: int, partials: pa.Table) -> None:
        self._state.append(pane, partials)
        if self._state.count(pane) > limits.COMPACT_PARTS:
            self._state.replace(pane, self._groups.merge(self._state.read([pane]), ["pane"]))

    def _closing(self, watermark: int) -> Iterator[pa.Table]:
        """The merged windows that close, in portions that keep memory bounded."""
        assert self._windows is not None
        ends = self._windows.ends(self._state.buckets(last=watermark), self.reached, watermark)
        for some in self._at_a_time(ends):
            rows = self._windows.expand(self._read(some), some)
            yield self._groups.merge(rows, ["window"])

    def _at_a_time(self, ends: list[int]) -> Iterator[list[int]]:
        assert self._windows is not None
        rows = self._state.rows()
        many = rows * self._windows.per_row > limits.EXPANDED_ROWS_MAX
        count = max(1, limits.EXPANDED_ROWS_MAX // rows) if many else max(1, len(ends))
        for start in range(0, len(ends), count):
            yield ends[start : start + count]

    def _read(self, ends: Sequence[int]) -> pa.Table:
        """The partials of all panes of the windows with these ends."""
        assert self._windows is not None
        first = ends[0] - self._windows.size_us
        return self._state.read(self._state.buckets(first, ends[-1] - 1))

    def _changed(self, created: pa.Table, watermark: int) -> pa.Table | None:
        """Update mode: the groups of these partials, which are already in their panes."""
        if self._windows is None:
            by, rows, fresh = "pane", self._slices.candidates(created, self._groups.key_names), created
        else:
            ends = self._windows.ends(np.unique(created["pane"].to_numpy()).tolist(), watermark, END)
            by, rows = "window", self._windows.expand(self._read(ends), ends)
            fresh = self._windows.expand(created, ends)
        return self._result(self._groups.merge(self._groups.among(rows, fresh, [by]), [by]))

    def _result(self, merged: pa.Table) -> pa.Table:
        columns = [*self._bounds(merged), *(merged[name] for name in self._groups.key_names)]
        columns += self._groups.results(merged)
        return conform(pa.table(columns, names=self.schema.names), self.schema)

    def _bounds(self, merged: pa.Table) -> list[pa.ChunkedArray]:
        if self._windows is None:
            return []
        starts = merged["window"]
        ends = pc.add(starts, self._windows.size_us)
        return [starts.cast(TIMES), ends.cast(TIMES), pc.subtract(ends, 1).cast(TIMES)]


def _marked(rows: pa.Table, starts: Ints, mask: Flags) -> pa.Table:
    rows = rows.append_column("window", pa.array(starts))
    return rows if mask.all() else rows.filter(pa.array(mask))
