"""Bodies → rows: strict types, and one bad body never harms another."""

from __future__ import annotations

import datetime as dt
import math
import random
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.queue import attributes
from headrace.queue.model import Entry
from headrace.stream.errors import SchemaInvalid
from headrace.stream.formats.decoding import ARROW_TYPE, ArrowDecoder, BodyDecoder, JsonDecoder
from headrace.stream.formats.encoding import JsonEncoder, arrow_stream
from headrace.stream.schema import ORIGIN, Schema

at = dt.datetime.fromisoformat

ARROW = attributes.encode({"content-type": ("String", ARROW_TYPE)})


def one(kind: str, text: str) -> Any:
    """The value of a column of that type in one JSON body."""
    decoded = JsonDecoder(Schema.of(f"a {kind}")).decode([b'{"a":%b}' % text.encode()])
    if decoded.bad:
        raise ValueError(decoded.bad[0][1])
    return decoded.rows.column("a")[0].as_py()


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("boolean", "true", True),
        ("tinyint", "-128", -128),
        ("bigint", "9223372036854775807", 2**63 - 1),
        ("double", "1", 1.0),
        ("double", '"Infinity"', math.inf),
        ("float", "0.5", 0.5),
        ("string", '"\\u00e9"', "é"),
        ("binary", '"aGk="', b"hi"),
        ("date", '"2013-01-01"', dt.date(2013, 1, 1)),
        ("timestamp", '"2013-01-01T00:00:00+01:00"', at("2012-12-31T23:00:00")),
        ("decimal(10,2)", "1.1", Decimal("1.10")),
        ("decimal(10,2)", '"1.10"', Decimal("1.10")),
        ("array<int>", "[1,null]", [1, None]),
        ("array<array<timestamp>>", "[[0],null]", [[at("1970-01-01T00:00:00")], None]),
        ("map<string,int>", '{"k":1}', [("k", 1)]),
        ("map<int,double>", '{"1":"NaN"}', None),
        ("struct<x:int,y:string>", '{"x":1,"z":[]}', {"x": 1, "y": None}),
        ("array<struct<x:map<string,array<int>>>>", '[{"x":{"k":[1]}}]', [{"x": [("k", [1])]}]),
        ("string", "null", None),
    ],
)
def test_a_value_of_its_type_is_taken(kind: str, text: str, value: Any) -> None:
    found = one(kind, text)
    if kind == "map<int,double>":
        assert found[0][0] == 1 and math.isnan(found[0][1])
    else:
        assert found == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bigint", '"1"'),
        ("bigint", "1.0"),
        ("bigint", "1e3"),
        ("bigint", "true"),
        ("bigint", "9223372036854775808"),
        ("tinyint", "128"),
        ("double", '"1"'),
        ("double", "NaN"),
        ("double", "1e400"),
        ("float", "1e300"),
        ("boolean", "1"),
        ("string", "1"),
        ("string", '"\\ud800"'),
        ("binary", '"?"'),
        ("date", '"2013-01-01T00:00:00"'),
        ("timestamp", '"yesterday"'),
        ("timestamp", "true"),
        ("decimal(10,2)", "1.111"),
        ("decimal(4,2)", "100"),
        ("decimal(10,2)", '"NaN"'),
        ("array<int>", "1"),
        ("array<timestamp>", '["x"]'),
        ("map<string,int>", '{"k":"v"}'),
        ("struct<x:int>", '{"x":"1"}'),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_the_column(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\$\.a|'a'|JSON"):
        one(kind, text)


def test_missing_keys_are_null_unknown_ones_ignored_and_the_last_of_two_counts() -> None:
    decoded = JsonDecoder(Schema.of("a int, b int")).decode([b'{"a":1,"a":2,"c":{"deep":[1]}}'])
    assert decoded.rows.to_pylist() == [{"a": 2, "b": None, ORIGIN: 0}]


def test_not_null_asks_for_a_value() -> None:
    decoded = JsonDecoder(Schema.of("b int, a int NOT NULL")).decode([b"{}", b'{"a":null}', b'{"a":1}'])
    assert decoded.rows.to_pylist() == [{"b": None, "a": 1, ORIGIN: 2}]
    assert [origin for origin, _ in decoded.bad] == [0, 1]


def test_an_array_is_rows_of_one_origin_and_falls_as_a_whole() -> None:
    bodies = [b'[{"a":1},{"a":2}]', b"[]", b'[{"a":3},{"a":1e99}]', b'[{"a":3},{"a":"x"}]', b'{"a":4}']
    decoded = JsonDecoder(Schema.of("a decimal(5,0)")).decode(bodies)
    assert [(int(row["a"]), row[ORIGIN]) for row in decoded.rows.to_pylist()] == [(1, 0), (2, 0), (4, 4)]
    assert [origin for origin, _ in decoded.bad] == [2, 3]


def test_names_that_are_no_identifiers_are_columns() -> None:
    decoded = JsonDecoder(Schema.of("`a b` int, `class` int")).decode([b'{"a b":1,"class":2}'])
    assert decoded.rows.to_pylist() == [{"a b": 1, "class": 2, ORIGIN: 0}]


def test_names_that_msgspec_takes_in_no_key_are_refused() -> None:
    with pytest.raises(SchemaInvalid, match="quotes"):
        JsonDecoder(Schema.of({'a"b': int}))


def test_bad_bodies_among_many_do_not_harm_the_others() -> None:
    bad = {7: b"\xff", 500: b'{"ts":"2013-99-01"}', 501: b'{"n":"1"}', 900: b"", 999: b"[" * 100_000}
    bodies = [bad.get(number, b'{"n":%d,"ts":"2013-01-01T00:00:00Z"}' % number) for number in range(1_000)]
    decoded = JsonDecoder(Schema.of("n bigint, ts timestamp")).decode(bodies)
    assert [origin for origin, _ in decoded.bad] == list(bad)
    assert decoded.rows.column("n").to_pylist() == [number for number in range(1_000) if number not in bad]
    assert decoded.rows.column(ORIGIN).to_pylist() == decoded.rows.column("n").to_pylist()


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60) | st.text(max_size=30).map(str.encode), max_size=5))
def test_json_bytes_of_any_kind_are_rows_or_reasons(bodies: list[bytes]) -> None:
    decoded = JsonDecoder(Schema.of("a int, b timestamp, c struct<x:array<double>>")).decode(bodies)
    assert {origin for origin, _ in decoded.bad}.isdisjoint(decoded.rows.column(ORIGIN).to_pylist())


@settings(max_examples=60)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdexyz"), inner, max_size=4),
    max_leaves=8,
))  # fmt: skip
def test_json_values_of_any_kind_are_rows_or_reasons(value: Any) -> None:
    schema = Schema.of(
        "a int, b timestamp, c struct<x:array<double>>, d decimal(9,3), e map<string,date>, x binary, y float, z string"
    )
    JsonDecoder(schema).decode([msgspec.json.encode({"a": value, "b": value, "c": value}), msgspec.json.encode(value)])


def test_arrow_streams_are_matched_by_name_and_cast() -> None:
    table = pa.table(
        {
            "extra": [1, 2],
            "n": pa.array([1, 2], pa.int16()),
            "ts": pa.array([0, 1], pa.timestamp("ms", "Europe/Berlin")),
        }
    )
    decoded = ArrowDecoder(Schema.of("ts timestamp, n bigint, missing string")).decode([arrow_stream(table)])
    assert decoded.rows.to_pylist() == [
        {"ts": at("1970-01-01T00:00:00"), "n": 1, "missing": None, ORIGIN: 0},
        {"ts": at("1970-01-01T00:00:00.001000"), "n": 2, "missing": None, ORIGIN: 0},
    ]


def test_a_damaged_or_foreign_arrow_body_is_bad_alone() -> None:
    good = arrow_stream(pa.table({"n": [1]}))
    bodies = [
        good,
        good[:100],
        b"",
        b"{}",
        arrow_stream(pa.table({"n": ["1"]})),
        arrow_stream(pa.table({"n": [1.5]})),
        good,
    ]
    decoded = ArrowDecoder(Schema.of("n bigint")).decode(bodies)
    assert decoded.rows.column(ORIGIN).to_pylist() == [0, 6]
    assert [origin for origin, _ in decoded.bad] == [1, 2, 3, 4, 5]
    assert "'n'" in decoded.bad[3][1]


def test_flipped_bytes_of_arrow_bodies_are_rows_or_reasons() -> None:
    schema = Schema.of("n bigint, s string, l array<string>")
    good = arrow_stream(pa.table({"n": [1, 2], "s": ["a", None], "l": [["x"], []]}))
    chance = random.Random(7)
    for _ in range(300):
        body = bytearray(good)
        for _ in range(3):
            body[chance.randrange(len(body))] = chance.randrange(256)
        ArrowDecoder(schema).decode([bytes(body)]).rows.validate(full=True)


def test_a_message_is_arrow_by_its_attribute_and_json_without() -> None:
    arrow = Entry(arrow_stream(pa.table({"n": [1, 2]})), ARROW)
    messages = [Entry(b'{"n":0}'), arrow, Entry(b"x"), arrow, Entry(b'{"n":3}')]
    decoded = BodyDecoder(Schema.of("n bigint"), "auto").decode(messages)
    assert [(row["n"], row[ORIGIN]) for row in decoded.rows.to_pylist()] == [
        (0, 0),
        (1, 1),
        (2, 1),
        (1, 3),
        (2, 3),
        (3, 4),
    ]
    assert [origin for origin, _ in decoded.bad] == [2]
    assert len(BodyDecoder(Schema.of("n bigint"), "auto").decode([]).rows) == 0
    assert [origin for origin, _ in BodyDecoder(Schema.of("n bigint"), "json").decode([arrow]).bad] == [0]


def test_what_is_encoded_is_decoded_as_the_same_rows() -> None:
    schema = Schema.of(
        "a boolean, b tinyint, c decimal(10,2), d binary, e date, f array<timestamp>, g map<string,double>,"
        " h struct<x:int,y:array<struct<z:string>>>, i float, j timestamp"
    )
    body = (
        b'{"a":true,"b":-1,"c":1.5,"d":"aGk=","e":"2013-01-01","f":["2013-01-01",5,null],"g":{"k":"-Infinity","m":null},'
        b'"h":{"x":1,"y":[{"z":"\\u0000\\""},null]},"i":0.1,"j":1.5}'
    )
    rows = JsonDecoder(schema).decode([b"{}", body, b"{}", body]).rows.drop_columns([ORIGIN])
    for part in (rows, rows.slice(1), rows.slice(1, 1), rows.slice(4)):
        bodies = JsonEncoder(part.schema).rows(part)
        assert JsonDecoder(schema).decode(bodies).rows.drop_columns([ORIGIN]).equals(part)
        assert msgspec.json.decode(JsonEncoder(part.schema).array(part)) == [msgspec.json.decode(one) for one in bodies]
        assert ArrowDecoder(schema).decode([arrow_stream(part)]).rows.drop_columns([ORIGIN]).equals(part)


def test_arrow_columns_that_nobody_looks_at_are_null() -> None:
    schema = Schema.of("n bigint, t string, m bigint NOT NULL")
    body = arrow_stream(pa.table({"n": [1, 2], "t": ["a", "b"], "m": [3, 4], "more": [0, 0]}))
    decoded = ArrowDecoder(schema, frozenset({"n"})).decode([body])
    assert decoded.bad == []
    assert decoded.rows.drop_columns([ORIGIN]).to_pydict() == {"n": [1, 2], "t": [None, None], "m": [3, 4]}


def test_arrow_column_of_another_type_is_refused_though_nobody_looks_at_it() -> None:
    body = arrow_stream(pa.table({"n": [1], "t": [1.5]}))
    [(origin, reason)] = ArrowDecoder(Schema.of("n bigint, t string"), frozenset({"n"})).decode([body]).bad
    assert origin == 0
    assert "column 't' is double" in reason
