"""A hostile Arrow body is known before it takes memory."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stream import limits
from headrace.stream.formats.arrow_bounds import read_bounded
from headrace.stream.formats.conform import ValueMismatch
from headrace.stream.formats.decoding import ArrowDecoder
from headrace.stream.schema import Schema


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


VIEW = struct.pack("<i4sii", 10_000, b"xxxx", 0, 0)  # of the first buffer, from its beginning


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize(
    "column",
    [
        pa.array(range(1_000)),
        pa.array(["a", None, "b" * 500] * 300),
        pa.array(["a", None, "b" * 500] * 300).dictionary_encode(),
        pa.array(["a", None, "b" * 500] * 300, pa.string_view()),
        pa.array([[{"x": 1, "y": "z"}], [], None]),
        pa.nulls(5),
        pa.array([], pa.int64()),
    ],
    ids=["numbers", "texts", "dictionary", "views", "nested", "nulls", "none"],
)
def test_what_is_small_is_read(column: pa.Array, compression: str | None) -> None:
    table = pa.table({"c": column})
    assert read_bounded(stream(table, compression)).equals(table)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_body_that_unpacks_to_too_much_is_not_unpacked(compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = stream(pa.table({"n": pa.array(bytearray(8 * 1_000_000), pa.uint8())}), compression)
    assert len(body) < 100_000
    monkeypatch.setattr(limits, "ARROW_BYTES_MAX", 1_000_000)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueMismatch, match="8,000,000 bytes unpacked, more than 1,000,000"):
        read_bounded(body)
    assert pa.default_memory_pool().max_memory() == before


def test_a_size_that_is_a_lie_is_believed_as_far_as_the_bound() -> None:
    body = bytearray(stream(pa.table({"n": pa.array([7] * 1_000)}), "lz4"))
    place = body.index(struct.pack("<q", 8_000))
    body[place : place + 8] = struct.pack("<q", 2**50)
    with pytest.raises(ValueMismatch, match="bytes unpacked"):
        read_bounded(bytes(body))


def test_rows_without_bytes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ARROW_ROWS_MAX", 1_000)
    with pytest.raises(ValueMismatch, match="1,001 rows, more than 1,000"):
        read_bounded(stream(pa.table({"n": pa.nulls(1_001)})))


@pytest.mark.parametrize(
    "column",
    [
        pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int8()), pa.array(["x" * 10_000])),
        pa.Array.from_buffers(pa.string_view(), 1_000, [None, pa.py_buffer(VIEW * 1_000), pa.py_buffer(b"x" * 10_000)]),
    ],
    ids=["dictionary", "views"],
)
def test_a_value_that_many_rows_point_to_counts_in_each(column: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ARROW_BYTES_MAX", 1_000_000)
    table = pa.table({"s": column})
    monkeypatch.setattr(pa.ipc, "MessageReader", _NoMessages)  # of views the writer copies what they point to
    with pytest.raises(ValueMismatch, match="10,000,000 bytes"):
        read_bounded(stream(table))


class _NoMessages:
    @staticmethod
    def open_stream(body: bytes) -> list[object]:
        del body
        return []


def test_values_that_are_shared_deeper_are_refused() -> None:
    inner = pa.array(["a", "b"]).dictionary_encode()
    column = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), inner)
    with pytest.raises(ValueMismatch, match="send it plain"):
        read_bounded(stream(pa.table({"l": column})))


def test_such_a_body_is_dead_and_the_others_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ARROW_ROWS_MAX", 2)
    bodies = [stream(pa.table({"n": pa.array([1] * count)})) for count in (1, 3, 2)]
    decoded = ArrowDecoder(Schema.of("n bigint")).decode(bodies)
    assert decoded.rows.num_rows == 3
    assert [(origin, "more than 2" in reason) for origin, reason in decoded.bad] == [(1, True)]


GOOD = stream(pa.table({"n": [1, 2], "s": ["a", None]}), "lz4")


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_any_damage_is_rows_or_a_reason(place: int, noise: bytes) -> None:
    body = GOOD[:place] + noise + GOOD[place + len(noise) :]
    decoded = ArrowDecoder(Schema.of("n bigint, s string")).decode([body])
    decoded.rows.validate(full=True)
