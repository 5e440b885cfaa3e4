"""Stateless operators: a SELECT without state, and UNION ALL.

A SELECT runs as pyarrow kernels where these mean the same as DuckDB, otherwise as one DuckDB query a batch: a query starts
at 0.8 ms, the kernels at 0.02, and texts that pass unchanged are not copied.

The kernels give what DuckDB gives, or raise pa.ArrowInvalid (a number that does not fit), and then DuckDB runs the query.
Anything that is only almost the same is left to DuckDB: floats (NaN), values of two types, functions.
"""

from __future__ import annotations

import contextlib
import decimal
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp

from headrace.stream import limits, physical
from headrace.stream.engine.arrow_tables import conform
from headrace.stream.engine.operator import Context, Operator, RejectedRows
from headrace.stream.schema import ORIGIN, Schema

_TIME: Final = pa.timestamp("us")
_INT64_DIGITS: Final = 19
_INT64_MAX: Final = 2**63 - 1
_REMAINDERS: Final = "remainder" in pc.list_functions()  # older ones of pyarrow have none
_UNITS_US: Final = {"MICROSECOND": 1, "MICROSECONDS": 1, "SECOND": 1_000_000, "SECONDS": 1_000_000}

Compute: TypeAlias = Callable[[pa.Table], Any]
"""Of the rows: a column, or one value for all of them."""


@dataclass(frozen=True, slots=True)
class Term:
    """An expression of the type `type`. `column`: which of the input's it is, if it is nothing else; `value`: what it
    always is, if it is written out."""

    type: pa.DataType
    compute: Compute
    column: str | None = None
    value: Any = None


_Scope: TypeAlias = dict[str, Term]
"""What a name stands for; names in lower case."""


@dataclass(frozen=True, slots=True)
class Select:
    """`columns` of the rows of which all `conditions` are true. `reads`: the input's columns that are looked at."""

    columns: tuple[Term, ...]
    conditions: tuple[Term, ...]
    reads: tuple[str, ...]

    def rows(self, rows: pa.Table, names: Sequence[str]) -> pa.Table:
        """The columns, called `names`, for these rows; ORIGIN behind them if it is there. Raises pa.ArrowInvalid."""
        origin = [ORIGIN] if ORIGIN in rows.column_names else []
        rows = rows.select([*self.reads, *origin])
        if self.conditions:
            masks = [condition.compute(rows) for condition in self.conditions]
            rows = rows.filter(functools.reduce(pc.and_kleene, masks))  # NULL is not true
        columns = [term.compute(rows) for term in self.columns]
        return pa.table([*columns, *(rows[name] for name in origin)], [*names, *origin])


@functools.lru_cache(maxsize=256)
def parsed(sql: str) -> exp.Expr | None:
    """The compiler's SQL as a tree that is not to be changed; None if only DuckDB can read it.

    Read as plain SQL, which is no other for what is looked at here: sqlglot's DuckDB takes 60 ms to load.
    """
    try:
        return sqlglot.parse_one(sql)
    except sqlglot.errors.SqlglotError:
        return None


def select_of(sql: str, given: Schema) -> Select | None:
    """The query (`physical.Project.sql`, without its mark) over these columns; None if it is none for kernels."""
    query = parsed(sql)
    scope = {field.name.lower(): _input(field.name, field.type) for field in given.fields}
    try:
        columns, conditions = _selected(query, scope)
    except _Unknown:
        return None
    names = {node.name.lower() for node in query.find_all(exp.Column)} if query is not None else set()
    reads = tuple(field.name for field in given.fields if field.name.lower() in names)
    return Select(tuple(columns.values()), tuple(conditions), reads)


class _Unknown(Exception):
    """Something is not in the table below."""


def _input(name: str, kind: pa.DataType) -> Term:
    return Term(kind, lambda rows: rows[name], column=name)


def _selected(query: exp.Expr | None, scope: _Scope) -> tuple[_Scope, list[Term]]:
    """The columns and the conditions of a SELECT over INPUT, or over another one in parentheses."""
    if not isinstance(query, exp.Select) or not _has_only(query, "expressions", "from_", "where", "kind"):
        raise _Unknown
    scope, conditions = _source(query, scope)
    where = query.args.get("where")
    conditions += [_flag(node, scope) for node in ([] if where is None else _conjuncts(where.this))]
    columns = {item.alias_or_name.lower(): _term(item.unalias(), scope) for item in query.expressions}
    if len(columns) < len(query.expressions) or any(term.value is not None for term in columns.values()):
        raise _Unknown
    return columns, conditions


def _source(query: exp.Select, scope: _Scope) -> tuple[_Scope, list[Term]]:
    source = query.args["from_"].this if query.args.get("from_") else None
    if isinstance(source, exp.Subquery) and _has_only(source, "this"):
        return _selected(source.this, scope)
    if isinstance(source, exp.Table) and source.name == physical.INPUT and _has_only(source, "this"):
        return scope, []
    raise _Unknown


def _has_only(node: exp.Expr, *parts: str) -> bool:
    return not any(value for part, value in node.args.items() if part not in parts)


def _conjuncts(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.And):
        return _conjuncts(node.left) + _conjuncts(node.right)
    return [node]


def _term(node: exp.Expr, scope: _Scope) -> Term:
    read = _TERMS.get(type(node))
    if read is None:
        raise _Unknown
    return read(node, scope)


def _flag(node: exp.Expr, scope: _Scope) -> Term:
    term = _term(node, scope)
    if not pa.types.is_boolean(term.type) or term.value is not None:
        raise _Unknown
    return term


def _column(node: exp.Column, scope: _Scope) -> Term:
    found = scope.get(node.name.lower())
    if found is None or not _has_only(node, "this") or not isinstance(node.this, exp.Identifier):
        raise _Unknown
    return found


def _literal(node: exp.Literal, _: _Scope) -> Term:
    if node.is_string:
        return _constant(node.name, pa.string())
    if not node.name.isdigit() or int(node.name) > _INT64_MAX:
        raise _Unknown
    return _constant(int(node.name), pa.int64())


def _constant(value: Any, kind: pa.DataType) -> Term:
    scalar = pa.scalar(value, kind)
    return Term(kind, lambda _: scalar, value=value)


def _logical(kernel: Callable[[Any, Any], Any]) -> Callable[[Any, _Scope], Term]:
    def read(node: exp.Binary, scope: _Scope) -> Term:
        left, right = _flag(node.left, scope), _flag(node.right, scope)
        return Term(pa.bool_(), lambda rows: kernel(left.compute(rows), right.compute(rows)))

    return read


def _not(node: exp.Not, scope: _Scope) -> Term:
    term = _flag(node.this, scope)
    return Term(pa.bool_(), lambda rows: pc.invert(term.compute(rows)))


def _is(node: exp.Is, scope: _Scope) -> Term:
    term = _term(node.this, scope)
    if not isinstance(node.expression, exp.Null) or term.value is not None:
        raise _Unknown
    return Term(pa.bool_(), lambda rows: pc.is_null(term.compute(rows)))


def _comparison(kernel: Callable[[Any, Any], Any]) -> Callable[[Any, _Scope], Term]:
    def read(node: exp.Binary, scope: _Scope) -> Term:
        left, right = _alike(_term(node.left, scope), _term(node.right, scope))
        return Term(pa.bool_(), lambda rows: kernel(left.compute(rows), right.compute(rows)))

    return read


def _alike(left: Term, right: Term) -> tuple[Term, Term]:
    """Two that can be compared: of one type, or a whole number written out that fits the other's."""
    if left.value is not None and right.value is not None:
        raise _Unknown
    if left.value is not None:
        left = _as(left, right.type)
    right = _as(right, left.type)
    if not _comparable(left.type):
        raise _Unknown
    return left, right


def _as(term: Term, kind: pa.DataType) -> Term:
    if term.type == kind:
        return term
    if not isinstance(term.value, int) or not pa.types.is_integer(kind):
        raise _Unknown
    try:
        return _constant(term.value, kind)
    except (pa.ArrowInvalid, OverflowError):
        raise _Unknown from None


def _comparable(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or kind == _TIME or pa.types.is_date32(kind))


def _in(node: exp.In, scope: _Scope) -> Term:
    term = _term(node.this, scope)
    if not node.expressions or not _has_only(node, "this", "expressions") or not _comparable(term.type):
        raise _Unknown
    values = [_as(_term(item, scope), term.type).value for item in node.expressions]
    if term.value is not None or None in values:
        raise _Unknown
    options = pc.SetLookupOptions(pa.array(values, term.type))
    # NULL in a list is NULL, not false: NOT distinguishes them.
    return Term(pa.bool_(), lambda rows: _known(term.compute(rows), lambda column: pc.is_in(column, options=options)))


def _known(column: Any, compute: Callable[[Any], Any]) -> Any:
    found = compute(column)
    return pc.if_else(column.is_valid(), found, pa.scalar(None, found.type)) if column.null_count else found


def _remainder(node: exp.Mod, scope: _Scope) -> Term:
    """By a number that is written out and is not zero; with the sign of what is divided."""
    left, right = _term(node.left, scope), _term(node.right, scope)
    if not _REMAINDERS or left.value is not None or not isinstance(right.value, int) or not right.value:
        raise _Unknown
    if left.type != pa.int64():  # of narrower ones DuckDB's result is wider than theirs, or not, by the number
        raise _Unknown
    return Term(left.type, lambda rows: pc.call_function("remainder", [left.compute(rows), right.compute(rows)]))


def _shift(kernel: str) -> Callable[[Any, _Scope], Term]:
    """A time, and so much before or after it."""

    def read(node: exp.Binary, scope: _Scope) -> Term:
        left = _term(node.left, scope)
        if left.type != _TIME or not isinstance(node.right, exp.Interval):
            raise _Unknown
        length = pa.scalar(_length_us(node.right), pa.duration("us"))
        return Term(_TIME, lambda rows: pc.call_function(kernel, [left.compute(rows), length]))

    return read


def _length_us(node: exp.Interval) -> int:
    unit_us = _UNITS_US.get(node.args["unit"].name.upper()) if node.args.get("unit") else None
    if unit_us is None or not isinstance(node.this, exp.Literal) or not node.this.name.isdigit():
        raise _Unknown
    return int(node.this.name) * unit_us


def _cast(node: exp.Cast, scope: _Scope) -> Term:
    """A decimal that is written out, or a whole number times one."""
    kind = _decimal(node.args["to"])
    inner = node.this.this if isinstance(node.this, exp.Paren) else node.this
    if isinstance(inner, exp.Mul):
        return _product(_term(inner.left, scope), _term(inner.right, scope), kind)
    text = inner.name if isinstance(inner, exp.Literal) and not inner.is_string else None
    value = _term(inner, scope).value if text is None else decimal.Decimal(text)
    if not isinstance(value, decimal.Decimal):
        raise _Unknown
    return _constant(value, kind)


def _decimal(node: exp.DataType) -> pa.DataType:
    if node.this != exp.DType.DECIMAL or len(node.expressions) != 2:
        raise _Unknown
    precision, scale = (int(item.name) for item in node.expressions)
    return pa.decimal128(precision, scale)


def _product(left: Term, right: Term, kind: pa.DataType) -> Term:
    """Decimals as whole multiples of 10 ** -scale. Twice as fast as pyarrow's decimals."""
    number, factor = (right, left) if left.value is not None else (left, right)
    if not isinstance(factor.value, decimal.Decimal) or factor.type.scale != kind.scale or number.value is not None:
        raise _Unknown
    if not pa.types.is_integer(number.type) or kind.precision < _INT64_DIGITS:
        raise _Unknown
    units = pa.scalar(int(factor.value.scaleb(kind.scale)), pa.int64())
    whole = pa.decimal128(kind.precision, 0)

    def compute(rows: pa.Table) -> pa.ChunkedArray:
        products = pc.multiply_checked(number.compute(rows).cast(pa.int64()), units).cast(whole)
        return pa.chunked_array([chunk.view(kind) for chunk in products.chunks], kind)

    return Term(kind, compute)


_TERMS: Final[dict[type, Callable[[Any, _Scope], Term]]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Paren: lambda node, scope: _term(node.this, scope),
    exp.And: _logical(pc.and_kleene),
    exp.Or: _logical(pc.or_kleene),
    exp.Not: _not,
    exp.Is: _is,
    exp.EQ: _comparison(pc.equal),
    exp.NEQ: _comparison(pc.not_equal),
    exp.LT: _comparison(pc.less),
    exp.LTE: _comparison(pc.less_equal),
    exp.GT: _comparison(pc.greater),
    exp.GTE: _comparison(pc.greater_equal),
    exp.In: _in,
    exp.Mod: _remainder,
    exp.Add: _shift("add_checked"),
    exp.Sub: _shift("subtract_checked"),
    exp.Cast: _cast,
}
"""What there is. DuckDB does the rest."""


# --- The operator of a SELECT ---


ORIGIN_MARK: Final = "/*origin*/"
"""Where the compiler's SQL says that ORIGIN is to come."""

ROW_ERRORS: Final = (duckdb.DataError, duckdb.InvalidInputException)
"""What a value can be to blame for. Anything else (names, types, memory) would fail with any rows."""


class ProjectOperator(Operator):
    """Rows that make the query fail are found by halving, and are dead."""

    def __init__(
        self, node: physical.Project, name: str, inputs: Sequence[Schema], context: Context, *, kernels: bool = True
    ) -> None:
        """Args: kernels: whether pyarrow's may be used; tests say no, to compare."""
        del name
        self.schema = node.schema
        self._node = node
        self._context = context
        self._plain = node.sql.replace(ORIGIN_MARK, "")
        self._with_origin = node.sql.replace(ORIGIN_MARK, f", {ORIGIN}")
        self._dead_rows = 0
        self._select = select_of(self._plain, inputs[0]) if kernels else None
        if self._select is None:
            # Fails now, not with the first row, if the SQL is wrong; and makes DuckDB load what it needs.
            self._query(inputs[0].arrow().empty_table())

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port, watermark
        if self._select is not None:
            with contextlib.suppress(pa.ArrowInvalid):  # then DuckDB finds the rows that are to blame
                return conform(self._select.rows(rows, self.schema.names), self.schema)
        self._dead_rows = 0
        return self._tried(rows)

    def _tried(self, rows: pa.Table) -> pa.Table | None:
        try:
            return self._query(rows)
        except ROW_ERRORS as error:
            if rows.num_rows > 1 and self._dead_rows < limits.DEAD_ROWS_SOUGHT:
                return self._halved(rows)
            self._refuse(rows, plain_error(error))
            return None

    def _halved(self, rows: pa.Table) -> pa.Table | None:
        middle = rows.num_rows // 2
        halves = [self._tried(rows.slice(0, middle)), self._tried(rows.slice(middle))]
        given = [half for half in halves if half is not None]
        return pa.concat_tables(given) if given else None

    def _refuse(self, rows: pa.Table, reason: str) -> None:
        self._dead_rows += rows.num_rows
        if rows.num_rows > 1:
            reason += f" (or the like: {limits.DEAD_ROWS_SOUGHT} rows of the batch had failed, so these were not tried singly)"
        self._context.dead.append(RejectedRows(rows, reason, self._node.step))

    def _query(self, rows: pa.Table) -> pa.Table:
        sql = self._with_origin if ORIGIN in rows.column_names else self._plain
        return conform(self._context.query(sql, **{physical.INPUT: rows}), self.schema)


def plain_error(error: BaseException) -> str:
    """DuckDB's message without its class, its position in the generated SQL, and its advice."""
    text = str(error).split("\n", 1)[0]
    kind, colon, rest = text.partition(": ")
    text = rest if colon and kind.endswith("Error") else text
    return text.removeprefix("Python exception occurred while executing the UDF: ").removeprefix("ValueError: ")


# --- UNION ALL: the rows of every input, under the names of the first ---


class UnionOperator(Operator):
    """Stateless. Rows keep their ORIGIN."""

    def __init__(self, node: physical.Union, name: str, inputs: Sequence[Schema], context: Context) -> None:
        del name, context
        self.schema = node.schema
        self._inputs = inputs

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port, watermark
        return conform(rows, self.schema) if rows.num_rows else None
