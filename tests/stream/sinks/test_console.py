"""The terminal and callbacks as sinks."""

from __future__ import annotations

import io

import pyarrow as pa
import rich.console

from headrace.stream.plan import CallbackSink, ConsoleSink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import Outbox
from headrace.stream.sinks.console import ConsoleOutbox
from headrace.stream.sinks.open import open_sink

ROWS = pa.table({"[red]n": [1, 2, 3], "s": ["[bold]x[/]", None, "z"]})


def test_a_batch_is_a_table_of_so_many_rows_and_values_are_no_markup() -> None:
    out = io.StringIO()
    sink = ConsoleOutbox(ConsoleSink(2), title="p", console=rich.console.Console(file=out, width=80))
    sink.deliver(7, sink.stage(7, ROWS))
    text = out.getvalue()
    assert "p, batch 7" in text and "[red]n" in text and "[bold]x[/]" in text and "NULL" in text
    assert "and 1 more row" in text and "z" not in text


def test_a_callback_is_given_the_number_and_the_rows() -> None:
    given: list[tuple[int, pa.Table]] = []
    sink = open_sink(
        CallbackSink(lambda batch, rows: given.append((batch, rows))), Schema(()), None, pipeline="p", index=0
    )
    assert isinstance(sink, Outbox)
    sink.collect([])
    sink.deliver(7, sink.stage(7, ROWS))
    sink.close()
    assert given == [(7, ROWS)]


def test_times_are_as_short_as_they_are_and_nothing_is_cut() -> None:
    out = io.StringIO()
    rows = pa.table({"at": pa.array([0, 1_500_000, None], pa.timestamp("us")), "text": ["x" * 60, "", ""]})
    sink = ConsoleOutbox(ConsoleSink(9), title="p", console=rich.console.Console(file=out, width=60))
    sink.deliver(7, sink.stage(7, rows))
    text = out.getvalue()
    assert "1970-01-01 00:00:00 " in text and "1970-01-01 00:00:01.500000" in text
    assert text.count("x") >= 60 and "…" not in text
