"""Bounds on time in a join's condition: `b.ts BETWEEN a.ts AND a.ts + INTERVAL 10 MINUTES`, `a.window_end = b.window_end`.

Each side of a comparison must be an event time plus a constant. A closed window's bounds are such: its end is one
microsecond after its `window_time`, its start the window's size before its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sql.analysis import Roles
from headrace.stream.sql.expressions import Writer, interval_us


@dataclass(frozen=True, slots=True)
class Bounds:
    """The right's event time less the left's lies between these (µs, inclusive); None: open."""

    lower_us: int | None = None
    upper_us: int | None = None

    def both(self, other: Bounds) -> Bounds:
        """What both say."""
        lower = [bound for bound in (self.lower_us, other.lower_us) if bound is not None]
        upper = [bound for bound in (self.upper_us, other.upper_us) if bound is not None]
        return Bounds(max(lower, default=None), min(upper, default=None))


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a join: its columns and roles, as they are called in the condition."""

    columns: frozenset[str]
    roles: Roles


def read_bound(node: exp.Expr, writer: Writer, left: Side, right: Side) -> Bounds | None:
    """The bounds that a conjunct sets; None if it is about something else."""
    if not isinstance(node, exp.EQ | exp.LT | exp.LTE | exp.GT | exp.GTE):
        return None
    one, other = _Point.read(node.this, writer, left, right), _Point.read(node.expression, writer, left, right)
    if one is None or other is None or one.side == other.side:
        return None
    return _bounds(type(node), one, other) if one.side == 1 else _bounds(_MIRRORED[type(node)], other, one)


_MIRRORED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.EQ: exp.EQ,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
}


def _bounds(comparison: type[exp.Expr], right: _Point, left: _Point) -> Bounds:
    """right + r ∘ left + l: the difference of the times is compared with l - r."""
    bound = left.offset_us - right.offset_us
    if comparison is exp.EQ:
        return Bounds(bound, bound)
    if comparison in (exp.GT, exp.GTE):
        return Bounds(bound + (comparison is exp.GT), None)
    return Bounds(None, bound - (comparison is exp.LT))


@dataclass(frozen=True, slots=True)
class _Point:
    """The event time of a side (0: left, 1: right), plus so much."""

    side: int
    offset_us: int

    @classmethod
    def read(cls, node: exp.Expr, writer: Writer, left: Side, right: Side) -> _Point | None:
        if isinstance(node, exp.Paren):
            return cls.read(node.this, writer, left, right)
        if isinstance(node, exp.Add | exp.Sub):
            return cls._shifted(node, writer, left, right)
        column = writer.column(node)
        if column is None:
            return None
        side = 0 if column in left.columns else 1
        offset = _offset(column, (left, right)[side].roles)
        return None if offset is None else cls(side, offset)

    @classmethod
    def _shifted(cls, node: exp.Add | exp.Sub, writer: Writer, left: Side, right: Side) -> _Point | None:
        base, length = node.this, node.expression
        if isinstance(base, exp.Interval) and isinstance(node, exp.Add):
            base, length = length, base
        point = cls.read(base, writer, left, right)
        if point is None or not isinstance(length, exp.Interval):
            return None
        try:
            shift = interval_us(length)
        except UnsupportedQuery:  # months: no length, so no bound
            return None
        return cls(point.side, point.offset_us + (shift if isinstance(node, exp.Add) else -shift))


def _offset(column: str, roles: Roles) -> int | None:
    if column == roles.time:
        return 0
    if column == roles.end:
        return 1
    if column == roles.start and roles.size_us is not None:
        return 1 - roles.size_us
    return None
