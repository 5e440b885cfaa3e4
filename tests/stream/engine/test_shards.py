from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest

from headrace.stream.engine.shards import shard_of


def shards(values: list[object], kind: pa.DataType, count: int = 256) -> list[int]:
    found: list[int] = shard_of(pa.table({"k": pa.array(values, kind)}), ["k"], count).to_pylist()
    return found


def test_shards_are_what_they_were_when_state_was_first_written() -> None:
    # These stand in people's stores: a change here loses state.
    assert shards([0, 1, -1, 10**12, None], pa.int64()) == [0, 202, 86, 96, 175]
    assert shards(["", "a", "ab", "ba", "zürich", None], pa.string()) == [0, 0, 248, 235, 238, 175]


def test_equal_numbers_have_equal_shards_whatever_their_type() -> None:
    numbers: list[object] = [0, 1, 7, 100]
    expected = shards(numbers, pa.int64())
    for kind in (pa.int8(), pa.int32(), pa.float32(), pa.float64()):
        assert shards(numbers, kind) == expected
    decimals: list[object] = [decimal.Decimal(number) for number in (0, 1, 7, 100)]
    assert shards(decimals, pa.decimal128(10, 2)) == expected
    assert shards([-0.0, float("nan")], pa.float64()) == shards([0.0, -float("nan")], pa.float64())


def test_pieces_of_a_column_have_the_shards_of_the_whole() -> None:
    table = pa.table({"k": ["a", None, "bb", "a", "", "ccc"], "n": [1, 2, None, 4, 5, 6]})
    whole = shard_of(table, ["k", "n"], 16).to_pylist()
    pieces = [shard for place in range(6) for shard in shard_of(table.slice(place, 1), ["k", "n"], 16).to_pylist()]
    assert pieces == whole
    chunked = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert shard_of(chunked, ["k", "n"], 16).to_pylist() == whole


def test_order_of_keys_counts_and_no_keys_are_shard_0() -> None:
    table = pa.table({"a": list(range(50)), "b": list(range(50, 0, -1))})
    assert shard_of(table, ["a", "b"], 64).to_pylist() != shard_of(table, ["b", "a"], 64).to_pylist()
    assert shard_of(table, [], 64).to_pylist() == [0] * 50
    assert shard_of(table, ["a"], 1).to_pylist() == [0] * 50


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.timestamp("us")])
def test_sequences_spread_evenly(kind: pa.DataType) -> None:
    values = pa.array(range(8_000), pa.int64())
    column = values.cast(pa.string()) if kind == pa.string() else values.cast(kind)
    counts = np.bincount(shard_of(pa.table({"k": column}), ["k"], 8).to_numpy())
    assert counts.min() > 850
    assert counts.max() < 1150


def test_any_type_can_be_a_key() -> None:
    columns = {
        "list": pa.array([[1, 2], None, []]),
        "struct": pa.array([{"a": 1}, None, {"a": None}]),
        "date": pa.array([dt.date(1969, 1, 1), None, dt.date(2020, 1, 1)]),
        "bytes": pa.array([b"\xff", None, b""]),
        "flag": pa.array([True, None, False]),
        "none": pa.nulls(3),
    }
    for name in columns:
        assert len(set(shard_of(pa.table(columns), [name], 256).to_pylist())) == (1 if name == "none" else 3)
    assert shard_of(pa.table(columns).slice(0, 0), list(columns), 8).to_pylist() == []
