"""How large an Arrow stream becomes: asked before it is unpacked, since a body of a kilobyte may claim to be a terabyte.

Arrow's Python has no bound of its own, and reads (and unpacks) a record batch whole. What is read here is the flatbuffer in
front of each (Arrow's Message.fbs): where its buffers lie in the body, and in front of each packed buffer its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import limits
from headrace.stream.formats.conform import ValueMismatch

_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # of union MessageHeader
_HEADER_TYPE, _HEADER = 1, 2  # places of fields in table Message
_LENGTH, _BUFFERS, _COMPRESSION = 0, 2, 3  # … in table RecordBatch
_DATA = 1  # … in table DictionaryBatch


def read_bounded(body: bytes, unread: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """The rows of a stream.

    Args:
        unread: columns that the plan does not read. Those that have these types are left out, and so are not checked; which takes
            longer than reading them.

    Raises:
        ValueMismatch: it has more than ARROW_ROWS_MAX rows, or ARROW_BYTES_MAX when it is unpacked and its columns are plain.
        pa.ArrowException, OSError, EOFError: it is not a stream, or a damaged one.
    """
    _check_unpacked(body)
    with pa.ipc.open_stream(body) as stream:
        table = stream.read_all()
    if unread:
        table = table.select(
            [place for place, field in enumerate(table.schema) if unread.get(field.name) != field.type]
        )
    table.validate(full=True)  # offsets of a damaged stream would be read beyond its end
    _check_size(sum(_plain_bytes(column) for column in table.columns))
    return table


def _check_unpacked(body: bytes) -> None:
    rows = size_bytes = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(body):
            batch = _record_batch(message.metadata.to_pybytes())
            if batch is not None:
                metadata, table = batch
                rows += _scalar(metadata, table, _LENGTH, "<q")
                size_bytes += sum(_sizes(metadata, table, message.body))
    except struct.error as error:
        raise pa.ArrowInvalid(f"its metadata is damaged: {error}") from None
    if rows > limits.ARROW_ROWS_MAX:
        raise ValueMismatch(f"it has {rows:,} rows, more than {limits.ARROW_ROWS_MAX:,}; send smaller messages")
    _check_size(size_bytes)


def _check_size(size_bytes: int) -> None:
    if size_bytes > limits.ARROW_BYTES_MAX:
        raise ValueMismatch(
            f"it is {size_bytes:,} bytes unpacked, more than {limits.ARROW_BYTES_MAX:,}; send smaller messages"
        )


# --- the flatbuffer in front of a batch ---


def _record_batch(metadata: bytes) -> tuple[bytes, int] | None:
    """(metadata, where in it the table RecordBatch is), None if the message is none and has none."""
    message = _unsigned(metadata, 0)
    kind = _scalar(metadata, message, _HEADER_TYPE, "<B")
    if kind not in (_BATCH, _DICTIONARY):
        return None
    table = _followed(metadata, _field(metadata, message, _HEADER))
    return metadata, table if kind == _BATCH else _followed(metadata, _field(metadata, table, _DATA))


def _sizes(metadata: bytes, table: int, body: pa.Buffer | None) -> Iterator[int]:
    """Of each buffer, unpacked. A packed one begins with its size; -1: it is not packed after all."""
    place = _field(metadata, table, _BUFFERS)
    if not place or body is None:
        return
    vector = _followed(metadata, place)
    packed = bool(_field(metadata, table, _COMPRESSION))
    data = memoryview(body)
    for number in range(_unsigned(metadata, vector)):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        unpacked = struct.unpack_from("<q", data, offset)[0] if packed and length else -1
        yield length if unpacked < 0 else unpacked


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0: it is not there."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + place)[0]
    return table + offset if offset else 0


def _scalar(metadata: bytes, table: int, number: int, kind: str) -> int:
    place = _field(metadata, table, number)
    return int(struct.unpack_from(kind, metadata, place)[0]) if place else 0


def _followed(metadata: bytes, place: int) -> int:
    return place + _unsigned(metadata, place)


def _unsigned(metadata: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", metadata, place)[0])


# --- columns that say a long value once, and point to it often ---


def _plain_bytes(column: pa.ChunkedArray) -> int:
    """How large the column is when each row has its own value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return sum(_dictionary_bytes(chunk) for chunk in column.chunks)
    if _is_view(kind):
        return sum(_view_bytes(chunk) for chunk in column.chunks)
    if _is_shared(kind):
        raise ValueMismatch(f"a column is {kind}; send it plain")
    return 0


def _dictionary_bytes(chunk: pa.DictionaryArray) -> int:
    values = chunk.dictionary
    if _is_shared(values.type) or pa.types.is_nested(values.type):
        raise ValueMismatch(f"a column is {chunk.type}; send it plain")
    if not (pa.types.is_string(values.type) or pa.types.is_binary(values.type) or _is_large(values.type)):
        return 0
    return int(pc.sum(pc.take(pc.binary_length(values), chunk.indices)).as_py() or 0)


def _view_bytes(chunk: pa.Array) -> int:
    """A view is 16 bytes: its length, and where the value is."""
    views = np.frombuffer(chunk.buffers()[1], np.int32).reshape(-1, 4) if len(chunk) else np.zeros((0, 4), np.int32)
    lengths = views[chunk.offset : chunk.offset + len(chunk), 0].astype(np.int64)
    return int(lengths[chunk.is_valid().to_numpy(zero_copy_only=False)].sum())


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_shared(kind: pa.DataType) -> bool:
    """Whether rows may share values, in the column or in what it is made of."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or _is_view(kind) or "list_view" in str(kind):
        return True
    return any(_is_shared(kind.field(place).type) for place in range(kind.num_fields))
