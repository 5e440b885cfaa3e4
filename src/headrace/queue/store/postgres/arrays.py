"""Columns of values as parameters of statements: `unnest(%s)` of a batch.

psycopg dumps lists, too, but guesses their type from their values (so each guess is another prepared statement), element
by element in Python. These have one type each and cost 0.1 to 0.2 µs an element.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.numeric import Int8Dumper

_length = struct.Struct(">i").pack
_header = struct.Struct(">iiIii").pack
_NULL: Final = _length(-1)
_TEXT, _TEXTS, _BLOB, _BLOBS, _INTS = 25, 1009, 17, 1001, 1016  # oids of text, text[], bytea, bytea[], bigint[]


def _any(values: Sequence[Any]) -> bool:
    """Whether not all are None."""
    return values.count(None) < len(values)


class Ints:
    """A bigint[]; None is NULL. Nothing but NULLs is written as an empty array: `unnest` pads it."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[int | None]) -> None:
        found = list(values)
        self.values = ["NULL" if value is None else str(value) for value in found] if _any(found) else []


class Texts:
    """A text[]; None is NULL. Nothing but NULLs: as Ints."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[str | None]) -> None:
        self.values = values if _any(values) else ()


class Blobs:
    """A bytea[]; None is NULL. Nothing but NULLs: as Ints."""

    __slots__ = ("values",)

    def __init__(self, values: Sequence[bytes | None]) -> None:
        self.values = values if _any(values) else ()


def _written(kind: int, values: Sequence[bytes | None]) -> bytes:
    """An array in PostgreSQL's binary format."""
    parts = [_header(1, 1, kind, len(values), 1)] if values else [_header(0, 0, kind, 0, 0)[:12]]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(_length(len(value)))
            parts.append(value)
    return b"".join(parts)


class _IntsDumper(Dumper):
    oid = _INTS

    def dump(self, obj: Any) -> Buffer:
        return ("{" + ",".join(obj.values) + "}").encode()


class _TextsDumper(Dumper):
    oid = _TEXTS
    format = pq.Format.BINARY

    def dump(self, obj: Any) -> Buffer:
        return _written(_TEXT, [value.encode() if value is not None else None for value in obj.values])


class _BlobsDumper(Dumper):
    oid = _BLOBS
    format = pq.Format.BINARY

    def dump(self, obj: Any) -> Buffer:
        return _written(_BLOB, obj.values)


def register(adapters: AdaptersMap) -> None:
    """Teach a connection these types; and that every int is a bigint, whatever its value."""
    adapters.register_dumper(Ints, _IntsDumper)
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Blobs, _BlobsDumper)
    adapters.register_dumper(int, Int8Dumper)
