"""Columns of which some values may not fit: the fast way first; only if it fails, the rows to blame are sought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa

from headrace.stream.formats.columns import UNFIT
from headrace.stream.schema import Schema

Build: TypeAlias = Callable[[int, Sequence[int]], pa.Array]
"""(number of a column, rows) → the column of these rows; raises UNFIT."""


def fit(schema: Schema, count: int, build: Build) -> tuple[list[pa.Array], dict[int, str]]:
    """(the columns of the rows that fit, why each of the others does not)."""
    rows = range(count)
    try:
        return _all(schema, rows, build), {}
    except UNFIT:
        unfit = _unfit(schema, rows, build)
        return _all(schema, [row for row in rows if row not in unfit], build), unfit


def _all(schema: Schema, rows: Sequence[int], build: Build) -> list[pa.Array]:
    return [build(number, rows) for number in range(len(schema.fields))]


def _unfit(schema: Schema, rows: Sequence[int], build: Build) -> dict[int, str]:
    """By halving: a few among many are found in a few steps."""
    try:
        _all(schema, rows, build)
    except UNFIT:
        if len(rows) == 1:
            return {rows[0]: _why(schema, rows, build)}
        half = len(rows) // 2
        return _unfit(schema, rows[:half], build) | _unfit(schema, rows[half:], build)
    return {}


def _why(schema: Schema, row: Sequence[int], build: Build) -> str:
    for number, field in enumerate(schema.fields):
        try:
            build(number, row)
        except UNFIT as error:
            return f"column {field.name!r}: {error}"
    raise AssertionError("a row that does not fit has a column that does not")
