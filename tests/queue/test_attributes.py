"""Attributes as blobs: what a store must be able to measure before it takes a message."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import InvalidMessage
from headrace.queue.attributes import Attributes, decode, encode, size_bytes


def test_size_counts_names_types_and_values() -> None:
    assert size_bytes(encode({"é": ("String", "ab"), "n": ("Binary", b"\0\1\2")})) == (2 + 6 + 2) + (1 + 6 + 3)


def test_attributes_come_back_as_they_were() -> None:
    attributes: Attributes = {"a": ("String", "x"), "b": ("Binary", b"\xff")}
    assert decode(encode(attributes)) == attributes
    assert encode({}) == b""


@pytest.mark.parametrize(
    "value", [7, None, [1], {"a": 1}, {"a": ["String", 1]}, {1: ["String", "x"]}, {"a": ["String"]}]
)
def test_other_msgpack_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessage):
        size_bytes(msgspec.msgpack.encode(value))


@given(st.binary(min_size=1))
@example(b"\x81\xa2\x00\x80")  # text that is not UTF-8
def test_any_bytes_are_measured_or_refused(blob: bytes) -> None:
    with suppress(InvalidMessage):
        assert size_bytes(blob) >= 0


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        size_bytes(b"\x81\xa1a\x92\xa6String" + b"\x91" * 100_000 + b"\x01")
