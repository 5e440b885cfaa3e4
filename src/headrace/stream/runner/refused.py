"""Rows that left the stream, as messages: late rows for the late queue, dead ones for the dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from headrace.queue import limits as queue_limits
from headrace.queue.model import Entry
from headrace.stream.engine.operator import Refused
from headrace.stream.formats.encoding import JsonEncoder
from headrace.stream.letters import dead_letter
from headrace.stream.runner.batch import Batch
from headrace.stream.schema import ORIGIN
from headrace.stream.sources.base import Dead


def late_entries(refused: Iterable[Refused], *, pipeline: str) -> list[Entry]:
    """A message a row: its columns as they are, `_reason` and `_step` behind them. So that what reads the source's
    messages reads these, too. A row that is too long by that is a dead letter here: no commit must fail by a late row."""
    found: list[Entry] = []
    for group in refused:
        rows = without_origin(group.rows)
        for name, value in (("_reason", group.reason), ("_step", group.step)):
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
        for body in JsonEncoder(rows.schema).rows(rows):
            if len(body) <= queue_limits.MESSAGE_BYTES_MAX:
                found.append(Entry(body))
            else:
                found.append(dead_letter(Dead(body, group.reason, "", "", group.step), pipeline=pipeline))
    return found


def dead_of(refused: Sequence[Refused], batch: Batch) -> list[Dead]:
    """The dead letters of rows that failed in a step: one a message, however many of its rows failed."""
    found: dict[int, Dead] = {}
    rest: list[Dead] = []
    for group in refused:
        if ORIGIN not in group.rows.column_names:
            bodies = JsonEncoder(group.rows.schema).rows(group.rows)
            rest += [Dead(body, group.reason, "", "", group.step) for body in bodies]
            continue
        for origin in group.rows.column(ORIGIN).to_pylist():
            if origin not in found:
                found[origin] = batch.dead_of(origin, group.reason, group.step)
    return [*found.values(), *rest]


def without_origin(rows: pa.Table) -> pa.Table:
    return rows.drop_columns([ORIGIN]) if ORIGIN in rows.column_names else rows
