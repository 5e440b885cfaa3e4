"""Aggregate functions as partial aggregates, which are created from rows, merged with each other, and finished into a result.

    rows ──create──▶ partials ──merge──▶ partials ──final──▶ result

Each is defined once, in DuckDB's SQL; plain functions also as pyarrow kernels, which start at 0.03 ms where
a query starts at 1.5 and are as fast for a hundred thousand rows. Equal partials are shared: `avg(x)` and `count(x)` in
one query count once.

Functions differ in how they treat NULL, but all leave out rows whose FILTER is not true: such a row's argument is NULL
beforehand, and where NULL counts (first, last) a column says which rows do.

The rows that SQL sees have the columns `pane`, `k0`…, `a0`… (arguments), `t` (time, µs) and `r` (arrival); partials
`pane`, `k0`…, `p0`…, and `r` when they are merged.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import limits, physical
from headrace.stream.schema import type_name


@dataclass(frozen=True, slots=True)
class Argument:
    """A column that partials are made of: an input column, NULL where `where` is not true.

    `column` None: true. `as_double`: as a double.
    """

    column: str | None
    where: str | None = None
    as_double: bool = False


@dataclass(frozen=True, slots=True)
class Kernels:
    """A partial by pyarrow: `create` of `argument` (None: of rows), then `merge`. `type`: its own; None: the argument's."""

    create: str
    argument: str | None
    merge: str
    type: pa.DataType | None
    overflows: bool = False  # pyarrow's sum of integers wraps around silently, so greater ones are DuckDB's


@dataclass(frozen=True, slots=True)
class Partial:
    """One column of state. `merge` is SQL over `{p}`."""

    create: str
    merge: str
    kernels: Kernels | None = None


T = TypeVar("T")

Compute: TypeAlias = Callable[[pa.Table], pa.ChunkedArray | pa.Array]


@dataclass(frozen=True, slots=True)
class Result:
    """A finished aggregate: by SQL over partials, or by Arrow."""

    sql: str = ""
    compute: Compute | None = None


@dataclass(slots=True)
class Layout:
    """What the aggregations of one operator need: `arguments` are a0…, `partials` p0…, `results` in the plan's order."""

    arguments: list[Argument] = field(default_factory=list)
    partials: list[Partial] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def argument(self, column: str | None, where: str | None, *, as_double: bool = False) -> str:
        return f"a{_place(self.arguments, Argument(column, where, as_double))}"

    def partial(self, create: str, merge: str, kernels: Kernels | None = None) -> str:
        return f"p{_place(self.partials, Partial(create, merge, kernels))}"


def layout_of(aggregations: Sequence[physical.Aggregation]) -> Layout:
    """The partials and results of these aggregations."""
    layout = Layout()
    for aggregation in aggregations:
        layout.results.append(_FUNCTIONS[aggregation.function](layout, aggregation))
    return layout


def _count(layout: Layout, it: physical.Aggregation) -> Result:
    if it.function == "count_all" and it.where is None:
        kernels = Kernels("count_all", None, "sum", pa.int64())
        name = layout.partial("count(*)", "CAST(sum({p}) AS BIGINT)", kernels)
    else:
        argument = layout.argument(it.arguments[0] if it.arguments else None, it.where)
        name = _counted(layout, argument)
    return Result(compute=_column(name))


def _counted(layout: Layout, argument: str) -> str:
    return layout.partial(
        f"count({argument})", "CAST(sum({p}) AS BIGINT)", Kernels("count", argument, "sum", pa.int64())
    )


def _sum(layout: Layout, it: physical.Aggregation) -> Result:
    argument = layout.argument(it.arguments[0], it.where, as_double=pa.types.is_floating(it.type))
    return Result(compute=_column(_summed(layout, argument, it.type)))


def _summed(layout: Layout, argument: str, kind: pa.DataType) -> str:
    """A sum that does not fit its type raises, as in Spark. Decimals are DuckDB's: pyarrow keeps their precision."""
    name = type_name(kind)
    kernels = Kernels("sum", argument, "sum", kind, overflows=pa.types.is_integer(kind))
    kernels_ = None if pa.types.is_decimal(kind) else kernels
    return layout.partial(f"CAST(sum({argument}) AS {name})", f"CAST(sum({{p}}) AS {name})", kernels_)


def _avg(layout: Layout, it: physical.Aggregation) -> Result:
    if pa.types.is_decimal(it.type):
        argument = layout.argument(it.arguments[0], it.where)
        total = _summed(layout, argument, pa.decimal128(38, max(it.type.scale - 4, 0)))
        return Result(compute=_decimal_mean(total, _counted(layout, argument), it.type))
    argument = layout.argument(it.arguments[0], it.where, as_double=True)
    total, count = _summed(layout, argument, pa.float64()), _counted(layout, argument)
    return Result(compute=lambda partials: pc.divide(partials[total], partials[count].cast(pa.float64())))


def _decimal_mean(total: str, count: str, kind: pa.DataType) -> Compute:
    """Exact, half away from zero; by Python, since neither DuckDB nor pyarrow divides decimals so."""
    unit = decimal.Decimal(1).scaleb(-kind.scale)

    def mean(partials: pa.Table) -> pa.Array:
        pairs = zip(partials[total].to_pylist(), partials[count].to_pylist(), strict=True)
        with decimal.localcontext(prec=76, rounding=decimal.ROUND_HALF_UP):
            return pa.array([None if sum_ is None else (sum_ / n).quantize(unit) for sum_, n in pairs], kind)

    return mean


def _extreme(layout: Layout, it: physical.Aggregation) -> Result:
    """min, max, bool_and, bool_or: a partial is a result already."""
    argument = layout.argument(it.arguments[0], it.where)
    kernel = {"bool_and": "all", "bool_or": "any"}.get(it.function, it.function)
    merge = f"{it.function}({{p}})"
    return Result(
        compute=_column(layout.partial(f"{it.function}({argument})", merge, Kernels(kernel, argument, kernel, None)))
    )


def _distinct_values(layout: Layout, it: physical.Aggregation) -> str:
    """A list of the values, each once: exact, and as large as they are many."""
    arguments = [layout.argument(column, it.where) for column in it.arguments]
    value = arguments[0] if len(arguments) == 1 else "{" + ", ".join(f"'{name}': {name}" for name in arguments) + "}"
    known = " AND ".join(f"{name} IS NOT NULL" for name in arguments)
    return layout.partial(f"list(DISTINCT {value}) FILTER (WHERE {known})", f"list_distinct({_ALL})")


def _count_distinct(layout: Layout, it: physical.Aggregation) -> Result:
    return Result(f"coalesce(len({_distinct_values(layout, it)}), 0)")


def _collect_set(layout: Layout, it: physical.Aggregation) -> Result:
    """Sorted: Spark gives any order, one that depends on nothing is better."""
    return Result(f"coalesce(list_sort({_distinct_values(layout, it)}), [])")


def _approx_count_distinct(layout: Layout, it: physical.Aggregation) -> Result:
    """The least hashes (k minimum values): if the k-th of evenly spread hashes is x, there are (k - 1) / x values.

    MD5, because DuckDB's own hash changes between versions, and state outlives them.
    """
    count = limits.SKETCH_VALUES
    argument = layout.argument(it.arguments[0], it.where)
    hashes = f"list(DISTINCT md5_number_lower(CAST({argument} AS VARCHAR))) FILTER (WHERE {argument} IS NOT NULL)"
    least = f"list_slice(list_sort({{values}}), 1, {count})"
    merge = least.format(values=f"list_distinct({_ALL})")
    p = layout.partial(least.format(values=hashes), merge)
    many = f"CAST(round({count - 1} * pow(2.0, 64) / {p}[{count}]) AS BIGINT)"
    return Result(f"CASE WHEN coalesce(len({p}), 0) < {count} THEN coalesce(len({p}), 0) ELSE {many} END")


def _first_last(layout: Layout, it: physical.Aggregation) -> Result:
    """The value with the least (greatest) time, NULL or not; of equal times the first (last) to arrive."""
    pick = "arg_min" if it.function == "first" else "arg_max"
    argument = layout.argument(it.arguments[0], None)
    counts = f" FILTER (WHERE {layout.argument(None, it.where)})" if it.where else ""
    p = layout.partial(
        f"{pick}({{'v': {argument}, 't': t}}, {{'t': t, 'r': r}}){counts}",
        f"{pick}({{p}}, {{{{'t': {{p}}.t, 'r': r}}}}) FILTER (WHERE {{p}} IS NOT NULL)",
    )
    return Result(f"{p}.v")


def _by_order(layout: Layout, it: physical.Aggregation) -> Result:
    """min_by, max_by: the value of the row with the least (greatest) order; of equal ones the oldest, the first to arrive."""
    pick, sign = ("arg_min", "") if it.function == "min_by" else ("arg_max", "-")
    value, order = layout.argument(it.arguments[0], None), layout.argument(it.arguments[1], it.where)
    p = layout.partial(
        f"{pick}({{'v': {value}, 'o': {order}, 't': t}}, {{'o': {order}, 't': {sign}t, 'r': {sign}r}})"
        f" FILTER (WHERE {order} IS NOT NULL)",
        f"{pick}({{p}}, {{{{'o': {{p}}.o, 't': {sign}{{p}}.t, 'r': {sign}r}}}}) FILTER (WHERE {{p}} IS NOT NULL)",
    )
    return Result(f"{p}.v")


def _collect_list(layout: Layout, it: physical.Aggregation) -> Result:
    """In the order of time, then of arrival."""
    argument = layout.argument(it.arguments[0], it.where)
    p = layout.partial(f"list({{'t': t, 'v': {argument}}} ORDER BY t, r) FILTER (WHERE {argument} IS NOT NULL)", _ALL)
    placed = f"list_transform({p}, lambda x, i: {{'t': x.t, 'i': i, 'v': x.v}})"
    return Result(f"coalesce(list_transform(list_sort({placed}), lambda x: x.v), [])")


def _variance(layout: Layout, it: physical.Aggregation) -> Result:
    """By count, mean and squared deviations, merged by Chan's formula: sums of squares would cancel each other out."""
    argument = layout.argument(it.arguments[0], it.where, as_double=True)
    # var_pop raises for infinities, where Spark gives NaN.
    finite = f"CASE WHEN isfinite({argument}) THEN {argument} END"
    squares = f"CASE WHEN bool_and(isfinite({argument})) THEN var_pop({finite}) * count({argument}) ELSE 'NaN' END"
    create = f"{{'n': CAST(count({argument}) AS DOUBLE), 'm': avg({argument}), 's': CAST({squares} AS DOUBLE)}}"
    p = layout.partial(
        f"CASE WHEN count({argument}) > 0 THEN {create} END", f"list_reduce({_LIST}, lambda x, y: {_CHAN})"
    )
    less = 1 if it.function.endswith("samp") else 0
    variance = f"{p}.s / ({p}.n - {less})"
    result = f"sqrt({variance})" if it.function.startswith("stddev") else variance
    return Result(f"CASE WHEN {p}.n > {less} THEN {result} END")


def _percentile(layout: Layout, it: physical.Aggregation) -> Result:
    """All values are kept, so approx_percentile is exact, too: one of the values where percentile interpolates."""
    exact = it.function == "percentile"
    argument = layout.argument(it.arguments[0], it.where, as_double=exact)
    p = layout.partial(f"list({argument}) FILTER (WHERE {argument} IS NOT NULL)", _ALL)
    kind = "quantile_cont" if exact else "quantile_disc"
    return Result(f"list_aggregate({p}, '{kind}', {float(it.parameter or 0)})")


_LIST: Final = "list({p} ORDER BY r) FILTER (WHERE {p} IS NOT NULL)"
_ALL: Final = f"flatten({_LIST})"
_CHAN: Final = (
    "{{'n': x.n + y.n, 'm': x.m + (y.m - x.m) * y.n / (x.n + y.n),"
    " 's': x.s + y.s + (y.m - x.m) * (y.m - x.m) * x.n * y.n / (x.n + y.n)}}"
)

_FUNCTIONS: Final[dict[str, Callable[[Layout, physical.Aggregation], Result]]] = {
    "count_all": _count,
    "count": _count,
    "sum": _sum,
    "avg": _avg,
    "min": _extreme,
    "max": _extreme,
    "bool_and": _extreme,
    "bool_or": _extreme,
    "count_distinct": _count_distinct,
    "approx_count_distinct": _approx_count_distinct,
    "first": _first_last,
    "last": _first_last,
    "min_by": _by_order,
    "max_by": _by_order,
    "collect_list": _collect_list,
    "collect_set": _collect_set,
    "stddev_samp": _variance,
    "stddev_pop": _variance,
    "var_samp": _variance,
    "var_pop": _variance,
    "percentile": _percentile,
    "approx_percentile": _percentile,
}


def _column(name: str) -> Compute:
    return lambda partials: partials[name]


def _place(items: list[T], item: T) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)
