from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidMessage, InvalidParameter
from headrace.native.bodies import attributes_blob, attributes_values, body_bytes, body_json, body_text
from headrace.queue import attributes as stored


@dataclass
class Order:
    book: int
    copies: int = 1


@pytest.mark.parametrize(
    ("body", "stored_as"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        ("grüße", "grüße".encode()),
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        (Order(7), b'{"book":7,"copies":1}'),
        (5, b"5"),
    ],
)
def test_body_is_stored_as_bytes_text_or_json(body: Any, stored_as: bytes) -> None:
    assert body_bytes(body) == stored_as


@pytest.mark.parametrize("body", [object(), {"x": object()}, "\ud800", {("a", "b"): 1}])
def test_body_that_is_none_of_these_is_refused(body: Any) -> None:
    with pytest.raises(InvalidMessage):
        body_bytes(body)


def test_json_is_built_as_the_type_asked_for() -> None:
    assert body_json(b'{"book": 7}', Order) == Order(7)
    with pytest.raises(InvalidMessage, match="book"):
        body_json(b'{"book": "seven"}', Order)
    with pytest.raises(InvalidMessage):
        body_json(b"\xff", Any)


def test_text_must_be_utf8() -> None:
    with pytest.raises(InvalidMessage, match=r"\.body"):
        body_text(b"\xff")


def test_attributes_are_sqs_types() -> None:
    blob = attributes_blob({"s": "x", "i": 5, "f": 0.5, "d": Decimal("1E-7"), "b": b"\xff"})

    assert stored.decode(blob) == {
        "s": ("String", "x"),
        "i": ("Number", "5"),
        "f": ("Number", "0.5"),
        "d": ("Number", "1E-7"),
        "b": ("Binary", b"\xff"),
    }
    assert attributes_values(blob) == {"s": "x", "i": 5, "f": 0.5, "d": 1e-7, "b": b"\xff"}


def test_labels_of_sqs_types_are_understood() -> None:
    blob = stored.encode({"n": ("Number.int", "7"), "b": ("Binary.png", b"p"), "s": ("String.date", "x")})

    assert attributes_values(blob) == {"n": 7, "b": b"p", "s": "x"}


@pytest.mark.parametrize("value", [True, None, [1], {}])
def test_attribute_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(InvalidParameter, match="attributes"):
        attributes_blob({"a": value})


@given(st.text(max_size=20))
def test_number_that_is_none_is_given_as_text_and_never_fails(text: str) -> None:
    value = attributes_values(stored.encode({"n": ("Number", text)}))["n"]

    assert isinstance(value, int | float) or value == text
