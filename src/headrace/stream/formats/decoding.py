"""Bodies of messages, and lines → rows. An invalid body does not affect others.

JSON: an object is a row, an array of objects are rows. Keys are columns, by their exact names; unknown keys are ignored;
of duplicate keys the last counts. A missing key is NULL. A value of another type is an error, never a silent
NULL: texts are not numbers, 1.0 is not a bigint (1 is a double), a number too large does not fit, a decimal (number or text)
must not have more digits than its type. Timestamps: see `timestamps`; binary is base64; NaN, Infinity and -Infinity are
texts. Arrow: a record batch stream whose columns `conform` accepts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.formats import columns
from headrace.stream.formats.arrow_bounds import read_bounded
from headrace.stream.formats.conform import ValueMismatch, conform, fit
from headrace.stream.plan import Format
from headrace.stream.schema import ORIGIN, Schema

ARROW_TYPE: Final = "application/vnd.apache.arrow.stream"
"""The attribute `content-type` of a message whose body is Arrow."""

ORIGIN_FIELD: Final = pa.field(ORIGIN, pa.int32())


@dataclass(slots=True)
class Decoded:
    """The result of decoding.

    Attributes:
        rows: the schema's columns and ORIGIN, the index of the row's body.
        bad: (index, reason) of each invalid body, sorted.
    """

    rows: pa.Table
    bad: list[tuple[int, str]]


class HasBody(Protocol):
    """The parts of a message that decoding needs; `attributes` as the queue stores them."""

    @property
    def body(self) -> bytes: ...

    @property
    def attributes(self) -> bytes: ...


class Decoder(Protocol):
    """Decodes bodies of one format."""

    def decode(self, bodies: Sequence[bytes], first: int = 0) -> Decoded:
        """`first`: the index of the first body."""


class JsonDecoder:
    """JSON, one value a body."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._arrow = with_origin(schema)
        record = columns.record_type(schema.arrow())
        self._parse: Callable[[bytes], Any] = msgspec.json.Decoder(record | list[record]).decode  # type: ignore[valid-type]  # made here

    def decode(self, bodies: Sequence[bytes], first: int = 0) -> Decoded:
        """See Decoder."""
        records: list[Any] = []
        origins: list[int] = []
        bad: dict[int, str] = {}
        for origin, body in enumerate(bodies, first):
            try:
                value = self._parse(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                bad[origin] = _reason(error)
                continue
            if type(value) is list:
                records += value
                origins += [origin] * len(value)
            else:
                records.append(value)
                origins.append(origin)
        return self._fitting(records, origins, bad)

    def _fitting(self, records: list[Any], origins: list[int], bad: dict[int, str]) -> Decoded:
        def build(number: int, rows: Sequence[int]) -> pa.Array:
            attribute = f"f{number}"
            chosen = records if len(rows) == len(records) else [records[row] for row in rows]
            return columns.build(self._schema.fields[number].type, [getattr(record, attribute) for record in chosen])

        arrays, unfit = fit(self._schema, len(records), build)
        good = [origin for row, origin in enumerate(origins) if row not in unfit] if unfit else origins
        rows = pa.table([*arrays, pa.array(good, pa.int32())], schema=self._arrow)
        if not unfit:
            return Decoded(rows, sorted(bad.items()))
        bad_rows = {origins[row]: reason for row, reason in unfit.items()}
        whole = pc.invert(pc.is_in(rows.column(ORIGIN), pa.array(bad_rows, pa.int32())))  # no half of an array
        return Decoded(rows.filter(whole), sorted((bad | bad_rows).items()))


class ArrowDecoder:
    """Arrow IPC streams, one a body. `used`: the columns that are looked at, None: all; the others are NULL where they fit
    the schema, and are checked as ever where they do not."""

    def __init__(self, schema: Schema, used: frozenset[str] | None = None) -> None:
        self._schema = schema
        self._arrow = with_origin(schema)
        unread = [field for field in schema.fields if field.nullable and used is not None and field.name not in used]
        self._unread = {field.name: field.type for field in unread}

    def decode(self, bodies: Sequence[bytes], first: int = 0) -> Decoded:
        """See Decoder."""
        tables: list[pa.Table] = []
        bad: list[tuple[int, str]] = []
        for origin, body in enumerate(bodies, first):
            try:
                tables.append(self._table(body, origin))
            except (pa.ArrowException, OSError, EOFError, MemoryError, *columns.UNFIT) as error:
                bad.append((origin, str(error) if isinstance(error, ValueMismatch) else f"no Arrow stream: {error}"))
        return Decoded(pa.concat_tables(tables).combine_chunks() if tables else self._arrow.empty_table(), bad)

    def _table(self, body: bytes, origin: int) -> pa.Table:
        rows = conform(read_bounded(body, self._unread), self._schema)
        return rows.append_column(ORIGIN_FIELD, pa.repeat(pa.scalar(origin, pa.int32()), len(rows)))


class BodyDecoder:
    """Messages of one or both formats, in their order. `used`: see ArrowDecoder."""

    def __init__(self, schema: Schema, form: Format, used: frozenset[str] | None = None) -> None:
        self._form = form
        self._arrow = with_origin(schema)
        self._decoders: dict[bool, Decoder] = {False: JsonDecoder(schema), True: ArrowDecoder(schema, used)}

    def decode(self, messages: Sequence[HasBody]) -> Decoded:
        parts: list[Decoded] = []
        first = 0
        for is_arrow, group in itertools.groupby(messages, self._is_arrow):
            bodies = [message.body for message in group]
            parts.append(self._decoders[is_arrow].decode(bodies, first))
            first += len(bodies)
        if len(parts) == 1:
            return parts[0]
        rows = pa.concat_tables([part.rows for part in parts]) if parts else self._arrow.empty_table()
        return Decoded(rows, [bad for part in parts for bad in part.bad])

    def _is_arrow(self, message: HasBody) -> bool:
        return self._form == "arrow" or (self._form == "auto" and ARROW_TYPE.encode() in message.attributes)


def numbered(rows: pa.Table) -> pa.Table:
    """Rows that are an origin each."""
    return rows.append_column(ORIGIN_FIELD, _numbers(len(rows).bit_length()).slice(0, len(rows)))


@functools.cache
def _numbers(bits: int) -> pa.Array:
    """0, 1, 2, …: made once a size."""
    return pa.array(np.arange(1 << bits, dtype=np.int32))


def with_origin(schema: Schema) -> pa.Schema:
    return schema.arrow().append(ORIGIN_FIELD)


def _reason(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        return f"not of the schema: {error}"
    return f"no JSON: {error}"
