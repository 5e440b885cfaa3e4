"""Sinks that print a table in the terminal, or call a Python function."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
import rich.console
import rich.table
import rich.text

from headrace.stream.formats.columns import plain
from headrace.stream.plan import CallbackSink, ConsoleSink
from headrace.stream.sinks.base import RowsOutbox, unpack


class ConsoleOutbox(RowsOutbox):
    """See Outbox. At least once."""

    name = "console"

    def __init__(self, sink: ConsoleSink, *, title: str, console: rich.console.Console | None = None) -> None:
        self._rows_max = sink.rows_max
        self._title = title
        self._console = console or rich.console.Console()

    def deliver(self, batch: int, staged: bytes) -> None:
        _, rows = unpack(staged)
        shown = rows.slice(0, self._rows_max)
        left = len(rows) - len(shown)
        caption = f"and {left:,} more row{'' if left == 1 else 's'}" if left else None
        table = rich.table.Table(title=f"{self._title}, batch {batch}", caption=caption)
        for field in rows.schema:
            table.add_column(rich.text.Text(field.name), overflow="fold", justify=_side(field.type))
        for row in zip(*(_texts(column.combine_chunks()) for column in shown.columns), strict=True):
            table.add_row(*map(_text, row))
        self._console.print(table)


class CallbackOutbox(RowsOutbox):
    """See Outbox. An exception of the callback ends the pipeline; the batch is delivered again at the next start."""

    def __init__(self, sink: CallbackSink) -> None:
        self._call = sink.call
        self.name = f"callback {getattr(sink.call, '__qualname__', sink.call)}"

    def deliver(self, batch: int, staged: bytes) -> None:
        self._call(batch, unpack(staged)[1])


def _side(kind: pa.DataType) -> Literal["left", "right"]:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "right" if numeric else "left"


def _texts(column: pa.Array) -> list[Any]:
    """A time without the fraction that no row has: narrow enough for people's terminals."""
    if not pa.types.is_timestamp(column.type):
        return plain(column)
    return [value if value is None else value.isoformat(sep=" ") for value in column.to_pylist()]


def _text(value: Any) -> Any:
    """Never markup, which a value must not be taken for."""
    return rich.text.Text("NULL", style="dim") if value is None else rich.text.Text(str(value))
