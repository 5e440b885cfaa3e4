"""CSV records → rows."""

from __future__ import annotations

import csv
import datetime as dt
import io
import math
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.stream.errors import SchemaInvalid
from headrace.stream.formats.conform import ValueMismatch
from headrace.stream.formats.csv_rows import CsvDecoder
from headrace.stream.schema import ORIGIN, Schema

at = dt.datetime.fromisoformat


def test_fields_are_values_of_their_types() -> None:
    schema = Schema.of("b string, a bigint, t timestamp, d double, k boolean, x binary, m decimal(10,2), y date")
    decoder = CsvDecoder(schema, b"\xef\xbb\xbfz,a,b,t,d,k,x,m,y\r\n")
    decoded = decoder.decode(
        [
            b'0,1,"x\ny",2013-01-01T00:00:00+01:00,1,true,aGk=,1.5,2013-01-01\r',
            b'0,2,"",1356998400,nan,0,,,',
            b"0,3,,,,,,,",
        ]
    )
    assert decoded.bad == []
    first, second, third = decoded.rows.to_pylist()
    assert first == {
        "b": "x\ny", "a": 1, "t": at("2012-12-31T23:00:00"), "d": 1.0, "k": True, "x": b"hi", "m": Decimal("1.50"),
        "y": dt.date(2013, 1, 1), ORIGIN: 0,
    }  # fmt: skip
    assert (second["b"], second["t"], second["k"]) == ("", at("2013-01-01T00:00:00"), False) and math.isnan(second["d"])
    assert third == {"b": None, "a": 3, "t": None, "d": None, "k": None, "x": None, "m": None, "y": None, ORIGIN: 2}


def test_bad_records_are_named_and_the_others_kept() -> None:
    bad = {3: b"1,2,3,4", 5: b"q,", 6: b"\xff\xfe,x", 8: b'1,"open', 9: b",x", 10: b"1"}
    records = [bad.get(number, b"%d,x" % number) for number in range(12)]
    decoded = CsvDecoder(Schema.of("a bigint NOT NULL, b string"), b"a,b").decode(records, first=100)
    assert [origin for origin, _ in decoded.bad] == [100 + number for number in bad]
    good = [number for number in range(12) if number not in bad]
    assert decoded.rows.column("a").to_pylist() == good
    assert decoded.rows.column(ORIGIN).to_pylist() == [100 + number for number in good]


@pytest.mark.parametrize("header", [b"a,c", b"a,a,b", b"", b"\xff", b'"a'])
def test_a_header_without_a_column_is_refused(header: bytes) -> None:
    with pytest.raises(ValueMismatch):
        CsvDecoder(Schema.of("a int, b int"), header)


def test_nested_types_are_refused() -> None:
    with pytest.raises(SchemaInvalid, match="array<int>"):
        CsvDecoder(Schema.of("a array<int>"), b"a")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text("ab,\"\n'é ", max_size=6), st.integers(-9, 9)), min_size=1, max_size=8))
def test_what_pythons_csv_writes_is_read_as_the_same(rows: list[tuple[str, int]]) -> None:
    records = []
    for row in rows:
        file = io.StringIO()
        csv.writer(file, lineterminator="", quoting=csv.QUOTE_ALL).writerow(row)
        records.append(file.getvalue().encode())
    decoded = CsvDecoder(Schema.of("a string, b int"), b"a,b").decode(records)
    assert decoded.bad == []
    assert [(row["a"], row["b"]) for row in decoded.rows.to_pylist()] == rows


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")).filter(bytes.strip), max_size=6))
@example([b"\x00\r\r", b"1,b"])
def test_bytes_of_any_kind_are_rows_or_reasons(records: list[bytes]) -> None:
    decoded = CsvDecoder(Schema.of("a int, b string"), b"a,b").decode(records)
    origins = [origin for origin, _ in decoded.bad] + decoded.rows.column(ORIGIN).to_pylist()
    assert sorted(origins) == list(range(len(records)))
