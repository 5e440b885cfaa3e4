"""Tables from outside → the columns of a schema."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from headrace.stream.formats.conform import ValueMismatch, conform
from headrace.stream.schema import Schema

at = dt.datetime.fromisoformat


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        (pa.array([1], pa.uint8()), "double", 1.0),
        (pa.array([2.0]), "int", 2),
        (pa.array(["x"], pa.large_string()), "string", "x"),
        (pa.array(["x"]).dictionary_encode(), "string", "x"),
        (pa.array([b"x"], pa.binary(1)), "binary", b"x"),
        (pa.array([1_999], pa.timestamp("ns")), "timestamp", at("1970-01-01T00:00:00.000001")),
        (pa.array([dt.date(2013, 1, 1)]), "timestamp", at("2013-01-01T00:00:00")),
        (pa.array([[1]], pa.large_list(pa.int8())), "array<bigint>", [1]),
        (pa.nulls(1), "string", None),
    ],
)
def test_what_loses_nothing_is_cast(column: pa.Array, kind: str, value: Any) -> None:
    assert conform(pa.table({"a": column}), Schema.of(f"a {kind}")).column("a").to_pylist() == [value]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array(["1"]), "int"),
        (pa.array([1]), "string"),
        (pa.array([1]), "timestamp"),
        (pa.array([1]), "boolean"),
        (pa.array([300]), "tinyint"),
        (pa.array([1.5]), "int"),
        (pa.array([b"x"]), "string"),
        (pa.array([[1]]), "int"),
        (pa.nulls(1, pa.int32()), "int NOT NULL"),
    ],
)
def test_what_would_lose_or_guess_is_refused(column: pa.Array, kind: str) -> None:
    with pytest.raises(ValueMismatch, match="'a'"):
        conform(pa.table({"a": column}), Schema.of(f"a {kind}"))


def test_a_column_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueMismatch, match="twice"):
        conform(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), Schema.of("a bigint"))
