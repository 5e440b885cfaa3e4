"""The physical plan: the operators of the embedded engine, as data. `sql.compile` makes it, `engine` runs it.

Inputs come before the operators that read them; each operator names its inputs by index. Columns are named, unique
without regard to case; SQL in an operator is DuckDB's, made by the compiler, never the user's text.

Event time. `time` names a column of a node's rows that is its event time in the sense of its watermark: no row that
comes later has a smaller one (late rows excepted). Windows that closed give rows whose time is `window_time`, the last
microsecond of the window (Spark's and Flink's rule), so that windows over windows, and joins of windows, need no rule of
their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import pyarrow as pa

from headrace.stream import plan
from headrace.stream.schema import Schema, type_name

INPUT = "input"
"""The name under which an operator's SQL reads its input."""


@dataclass(frozen=True, slots=True)
class Tumble:
    """Windows [n × size, (n + 1) × size), counted from 1970."""

    size_us: int


@dataclass(frozen=True, slots=True)
class Hop:
    """Windows of `size_us`, one beginning at each multiple of `slide_us`, which is not greater than the size."""

    size_us: int
    slide_us: int


@dataclass(frozen=True, slots=True)
class Session:
    """Rows of a key that are at most `gap_us` apart (a row exactly at the gap merges, as in Spark). The window is
    [first, last + gap)."""

    gap_us: int


Window: TypeAlias = Tumble | Hop | Session

AggregateFunction: TypeAlias = Literal[
    "count_all", "count", "sum", "min", "max", "avg", "count_distinct", "approx_count_distinct", "first", "last",
    "stddev_samp", "stddev_pop", "var_samp", "var_pop", "percentile", "approx_percentile", "collect_list", "collect_set",
    "bool_and", "bool_or", "min_by", "max_by",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate of a GROUP BY, over columns of the input.

    Attributes:
        function: its kind. `first` and `last` are by event time; ties by arrival.
        arguments: input columns; none for count_all, two for min_by and max_by (value, order).
        name: the output column.
        type: the output's type: Spark's rules (sum of integers: bigint; avg: double, or decimal).
        where: a boolean input column: rows without true do not count (FILTER). None: all do.
        parameter: percentile and approx_percentile: which one, 0 to 1.
    """

    function: AggregateFunction
    arguments: tuple[str, ...]
    name: str
    type: pa.DataType
    where: str | None = None
    parameter: float | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """The rows of a source, ORIGIN behind them where its reader gives it."""

    source: plan.Source
    schema: Schema
    time: str | None


@dataclass(frozen=True, slots=True)
class Project:
    """A stateless SELECT: filter, columns, joins with static tables (read by their names).

    `sql` reads INPUT, and gives ORIGIN as its last column where the input has it (the engine replaces the text
    `/*origin*/` by `, _origin` or nothing). Row errors (casts, divisions) raise; the engine finds the rows.
    """

    input: int
    sql: str
    schema: Schema
    time: str | None
    tables: tuple[plan.TableRef, ...] = ()
    functions: tuple[plan.Function, ...] = ()
    step: str = ""


@dataclass(frozen=True, slots=True)
class Python:
    """A Python step. Keeps ORIGIN."""

    input: int
    step: plan.PythonStep
    schema: Schema
    time: str | None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """GROUP BY. Gives `window_start`, `window_end`, `window_time` (if there is a window), the keys, the aggregates.

    Append: the rows of a window, once, when it closes. Update: the groups that a batch has changed; without
    a window only this mode is possible. Late: a row whose windows have all closed, by the watermark before its batch.
    """

    input: int
    window: Window | None
    time: str | None
    keys: tuple[str, ...]
    aggregations: tuple[Aggregation, ...]
    mode: plan.Mode
    schema: Schema
    step: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """Two streams. A pair joins if `left_keys` equal `right_keys` (NULL equals nothing), the right's time lies in
    [left + lower_us, left + upper_us], and `condition` (SQL over the columns of both) is true.

    A bound of None is open: rows are then kept for ever, and the plan warns. Columns of the two sides have different
    names. Outer joins output a row without partner when no partner can arrive any more. Late: a row that is older than its side's
    watermark, whose partners may have expired.

    `time`: the column of the output that is its event time: the left's or the right's; the output's watermark is held
    back by the bounds, so that it is one.
    """

    left: int
    right: int
    kind: Literal["inner", "left", "right", "full"]
    left_keys: tuple[str, ...]
    right_keys: tuple[str, ...]
    left_time: str | None
    right_time: str | None
    lower_us: int | None
    upper_us: int | None
    condition: str | None
    schema: Schema
    time: str | None
    step: str = ""


@dataclass(frozen=True, slots=True)
class Dedup:
    """The first row of each key, for `within_us` of event time. Late: a row older than the watermark."""

    input: int
    keys: tuple[str, ...]
    time: str
    within_us: int
    schema: Schema
    step: str = ""


@dataclass(frozen=True, slots=True)
class Top:
    """The first `limit` rows of each partition. `rank`: the output column that numbers them from 1, or None.

    `per_window`: the partition contains a closed window's columns, so the result is final when the window's rows have
    come (append). Otherwise (keep-last, top-N for ever; only in update mode) each batch gives the rows of the partitions
    that changed, as they are now.

    `order`: (column, descending, nulls first).
    """

    input: int
    partition: tuple[str, ...]
    order: tuple[tuple[str, bool, bool], ...]
    limit: int
    rank: str | None
    per_window: bool
    schema: Schema
    time: str | None
    step: str = ""


@dataclass(frozen=True, slots=True)
class Union:
    """UNION ALL: the rows of both, columns by place."""

    inputs: tuple[int, ...]
    schema: Schema
    time: str | None


Operator: TypeAlias = Read | Project | Python | Aggregate | Join | Dedup | Top | Union
STATEFUL = (Aggregate, Join, Dedup, Top)


@dataclass(frozen=True, slots=True)
class PhysicalPlan:
    """A compiled plan. `operators[-1]` gives the pipeline's output. `warnings`: for the author of the plan (state
    that is kept for ever, …), one sentence each."""

    operators: tuple[Operator, ...]
    warnings: tuple[str, ...] = ()

    @property
    def output(self) -> Operator:
        return self.operators[-1]

    def signatures(self) -> dict[str, str]:
        """Operator (by place among those of its kind) → what its state depends on, as JSON. Two plans whose signatures
        are equal can continue from each other's state."""
        counts: dict[str, int] = {}
        found = {}
        for operator in self.operators:
            if isinstance(operator, STATEFUL):
                kind = type(operator).__name__
                counts[kind] = counts.get(kind, 0) + 1
                found[f"{kind.lower()}-{counts[kind]}"] = _signature(operator, self.operators)
        return found


def inputs_of(operator: Operator) -> tuple[int, ...]:
    if isinstance(operator, Read):
        return ()
    if isinstance(operator, Join):
        return (operator.left, operator.right)
    if isinstance(operator, Union):
        return operator.inputs
    return (operator.input,)


def _signature(operator: Operator, operators: tuple[Operator, ...]) -> str:
    ignored = {"input", "left", "right", "inputs", "schema", "step"}
    fields = {name: _plain(getattr(operator, name)) for name in operator.__slots__ if name not in ignored}
    inputs = [str(operators[place].schema) for place in inputs_of(operator)]
    return msgspec.json.encode({"operator": fields, "reads": inputs, "gives": str(operator.schema)}).decode()


def _plain(value: object) -> object:
    if isinstance(value, pa.DataType):
        return type_name(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tumble | Hop | Session | Aggregation):
        return [type(value).__name__, *(_plain(getattr(value, name)) for name in value.__slots__)]
    return value
