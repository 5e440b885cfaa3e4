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
from headrace.stream.formats.conform import Unfit, nullable, split_nulls
from headrace.stream.formats.decoding import ORIGIN_FIELD, Decoded
from headrace.stream.formats.fitting import fit
from headrace.stream.schema import Schema, type_name


class CsvDecoder:
    """Records, one a line or several, of one header. See Decoder."""

    def __init__(self, schema: Schema, header: bytes) -> None:
        """Raises Unfit: the header lacks a column, or has one twice. SchemaInvalid: CSV has no such type."""
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
        try:
            return self._parse(records)
        except pa.ArrowInvalid as error:  # one spoils all: no UTF-8, or an open quote
            if len(records) == 1:
                return self._empty(), [], [(0, f"no CSV: {error}")]
        half = len(records) // 2
        table, kept, bad = self._texts(records[:half])
        table_, kept_, bad_ = self._texts(records[half:])
        kept += [half + record for record in kept_]
        return pa.concat_tables([table, table_]), kept, bad + [(half + record, reason) for record, reason in bad_]

    def _parse(self, records: Sequence[bytes]) -> tuple[pa.Table, list[int], list[tuple[int, str]]]:
        wrong: dict[int, str] = {}
        if not records:
            return self._empty(), [], []

        def note(row: pc_csv.InvalidRow) -> str:
            wrong[row.number - 1] = f"no CSV: {row.actual_columns} fields, not {row.expected_columns}"
            return "skip"

        data = b"\n".join(records) + b"\n"
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
        if len(table) + len(wrong) != len(records):
            raise pa.ArrowInvalid("a quote is not closed, or closed early")
        kept = [record for record in range(len(records)) if record not in wrong]
        return table.combine_chunks(), kept, list(wrong.items())

    def _empty(self) -> pa.Table:
        return pa.schema([(name, pa.string()) for name in self._schema.names]).empty_table()


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
        raise Unfit(f"the header is no CSV: {error}") from None


def _check(schema: Schema, names: list[str]) -> None:
    for field in schema.fields:
        if pa.types.is_nested(field.type):
            raise SchemaInvalid(str(schema), f"CSV has no {type_name(field.type)} (column {field.name!r})")
        if names.count(field.name) != 1:
            found = "stands twice" if field.name in names else "is not there"
            raise Unfit(f"column {field.name!r} {found} in the header {names}"[:500])
