"""CSV records → rows. The header names the columns; RFC 4180, also with line breaks within quotes.

An empty field is NULL, an empty field in quotes an empty text. Numbers, booleans (true, false, 1, 0), dates and decimals as
they are written in JSON; timestamps as ISO 8601 or as epoch numbers; binary as base64.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from headrace.stream.errors import SchemaInvalid
from headrace.stream.formats import timestamps
from headrace.stream.formats.conform import ValueMismatch, fit, nullable, split_nulls
from headrace.stream.formats.decoding import ORIGIN_FIELD, Decoded
from headrace.stream.schema import Schema, type_name


class CsvDecoder:
    """Records, one a line or several, of one header. See Decoder."""

    def __init__(self, schema: Schema, header: bytes) -> None:
        """Raises ValueMismatch: the header lacks a column, or has one twice. SchemaInvalid: CSV has no such type."""
        self._schema = schema
        self._names = _names(header)
        _check(schema, self._names)

    def decode(self, bodies: Sequence[bytes], first: int = 0) -> Decoded:
        texts, kept, bad = self._texts(bodies)

        def build(number: int, rows: Sequence[int]) -> pa.Array:
            field = self._schema.fields[number]
            column = texts.column(field.name)
            return parse(field.type, column if len(rows) == len(texts) else column.take(pa.array(rows, pa.int64())))

        arrays, unfit = fit(self._schema, len(texts), build)
        origins = pa.array([first + origin for row, origin in enumerate(kept) if row not in unfit], pa.int32())
        schema = nullable(self._schema).arrow().append(ORIGIN_FIELD)
        rows, absent = split_nulls(pa.table([*arrays, origins], schema=schema), self._schema)
        bad += [(kept[row], reason) for row, reason in unfit.items()]
        return Decoded(rows, sorted([(first + record, reason) for record, reason in bad] + absent))

    def _texts(self, records: Sequence[bytes]) -> tuple[pa.Table, list[int], list[tuple[int, str]]]:
        """(all fields as texts, the number of the record that each row was, the records that are none)."""
        wrong = _broken(records)
        kept = [number for number in range(len(records)) if number not in wrong]
        table, skipped = self._parse([records[number] for number in kept]) if kept else (self._empty(), {})
        wrong |= {kept[row]: reason for row, reason in skipped.items()}
        rows = [number for row, number in enumerate(kept) if row not in skipped]
        assert len(table) == len(rows), "a record that is whole is one row, or skipped"
        return table, rows, list(wrong.items())

    def _parse(self, records: Sequence[bytes]) -> tuple[pa.Table, dict[int, str]]:
        """(rows, why the others were skipped): of records that are whole."""
        skipped: dict[int, str] = {}
        data = b"\n".join(records) + b"\n"

        def note(row: pc_csv.InvalidRow) -> str:
            skipped[row.number - 1] = f"no CSV: {row.actual_columns} fields, not {row.expected_columns}"
            return "skip"

        table = pc_csv.read_csv(
            io.BytesIO(data),
            pc_csv.ReadOptions(use_threads=False, column_names=self._names, block_size=len(data)),
            pc_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=note),
            pc_csv.ConvertOptions(
                column_types=dict.fromkeys(self._names, pa.string()),
                include_columns=self._schema.names,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        return table.combine_chunks(), skipped

    def _empty(self) -> pa.Table:
        return pa.schema([(name, pa.string()) for name in self._schema.names]).empty_table()


def _broken(records: Sequence[bytes]) -> dict[int, str]:
    """Records that would take their neighbours with them: an open quote, a bare carriage return, no UTF-8. Only those with
    a quote or a return in them are looked at one by one."""
    try:
        b"\n".join(records).decode()
        suspects = [number for number, record in enumerate(records) if b'"' in record or b"\r" in record[:-1]]
    except UnicodeDecodeError:
        suspects = list(range(len(records)))
    reasons = ((number, _reason(records[number])) for number in suspects)
    return {number: reason for number, reason in reasons if reason}


def _reason(record: bytes) -> str:
    """Why the record is invalid; empty: it is valid."""
    try:
        text = record.decode().removesuffix("\r")
        rows = list(csv.reader([text], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        return f"no CSV: {error}"
    # A second return at the end is a line of its own for Arrow, and the end of the first one for Python.
    return "" if len(rows) == 1 and not text.endswith("\r") else "no CSV: not one record"


def parse(kind: pa.DataType, texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Texts as values of a type. Raises columns.UNFIT."""
    if pa.types.is_timestamp(kind):
        return _parse_timestamps(texts.to_pylist())
    if pa.types.is_binary(kind):
        values = [None if text is None else base64.b64decode(text, validate=True) for text in texts.to_pylist()]
        return pa.array(values, kind)
    found = pc.cast(texts, kind)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _parse_timestamps(texts: list[str | None]) -> pa.Array:
    try:
        return timestamps.build(texts)
    except ValueError:
        return timestamps.build([_number_or_text(text) for text in texts])


def _number_or_text(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def _names(header: bytes) -> list[str]:
    try:
        return next(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueMismatch(f"the header is no CSV: {error}") from None


def _check(schema: Schema, names: list[str]) -> None:
    for field in schema.fields:
        if pa.types.is_nested(field.type):
            raise SchemaInvalid(str(schema), f"CSV has no {type_name(field.type)} (column {field.name!r})")
        if names.count(field.name) != 1:
            found = "stands twice" if field.name in names else "is not there"
            raise ValueMismatch(f"column {field.name!r} {found} in the header {names}"[:500])
