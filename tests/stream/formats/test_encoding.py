"""Rows → bodies."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec
import pyarrow as pa
import pytest

from headrace.stream.formats.encoding import JsonEncoder, arrow_streams

at = dt.datetime.fromisoformat


def test_json_has_timestamps_in_utc_decimals_as_numbers_and_base64() -> None:
    rows = pa.table(
        {
            "t": pa.array([at("2013-01-01T05:00:00")], pa.timestamp("us")),
            "m": pa.array([Decimal("1.10")]),
            "x": [b"hi"],
            "d": [float("nan")],
            "n": pa.nulls(1, pa.int64()),
        }
    )
    assert JsonEncoder(rows.schema).rows(rows) == [
        b'{"t":"2013-01-01T05:00:00.000000Z","m":1.10,"x":"aGk=","d":"NaN","n":null}'
    ]


def test_arrow_bodies_keep_rows_and_bytes_below_their_bounds() -> None:
    rows = pa.table({"n": list(range(1_000)), "s": ["x" * 100] * 1_000})
    bodies = arrow_streams(rows, rows_max=300, bytes_max=20_000)
    tables = [pa.ipc.open_stream(body).read_all() for body in bodies]
    assert max(map(len, bodies)) <= 20_000 and max(map(len, tables)) <= 300
    assert pa.concat_tables(tables).equals(rows)


def test_a_row_that_is_too_long_for_a_message_is_refused() -> None:
    with pytest.raises(ValueError, match="one row has"):
        arrow_streams(pa.table({"s": ["x" * 5_000]}), rows_max=10, bytes_max=4_000)


def test_a_column_of_any_name_is_a_key() -> None:
    rows = pa.table({'a"b': [1], "c\n": [2]})
    assert msgspec.json.decode(JsonEncoder(rows.schema).rows(rows)[0]) == {'a"b': 1, "c\n": 2}
