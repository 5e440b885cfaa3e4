"""Rows as messages of a queue or topic, in the pipeline's own commit."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from headrace.queue import attributes
from headrace.queue.model import ID, Entry
from headrace.stream.errors import SinkFailed, UnsupportedQuery
from headrace.stream.formats.decoding import ARROW_TYPE
from headrace.stream.formats.encoding import JsonEncoder, arrow_streams
from headrace.stream.plan import QueueSink
from headrace.stream.schema import Schema
from headrace.stream.sinks.base import TransactionalSink

_ARROW: Final = attributes.encode({"content-type": ("String", ARROW_TYPE)})


class TransactionalQueueSink(TransactionalSink):
    """See TransactionalSink. JSON: a row a message; Arrow: as many rows a message as it holds.

    On a FIFO queue the column `group` is the message's group, and deduplication ids are made up: the commit is exactly
    once by itself, and ids that came again (after a reset, say) would silently drop what is new.
    """

    def __init__(
        self, sink: QueueSink, schema: Schema, *, arn: str, message_bytes_max: int, ids: Iterator[str] | None
    ) -> None:
        """Args: ids: deduplication ids, one a message; None for a standard queue, which has none.

        Raises UnsupportedQuery: no group on a FIFO queue, or a column that is not there.
        """
        self.arn = arn
        self._sink = sink
        self._bytes_max = message_bytes_max
        self._ids = ids if ids is not None else itertools.repeat(None)
        self._json = JsonEncoder(schema.arrow())
        _check(sink, schema, fifo=ids is not None)

    def entries(self, rows: pa.Table) -> list[Entry]:
        if not len(rows):
            return []
        if self._sink.format == "json":
            return self._json_entries(rows)
        return [entry for group, part in self._groups(rows) for entry in self._arrow_entries(part, group)]

    def _json_entries(self, rows: pa.Table) -> list[Entry]:
        bodies = self._json.rows(rows)
        self._check_lengths(bodies)
        groups = self._group_ids(rows) or itertools.repeat(None)
        return [
            Entry(body, b"", None, group, dedup_id)
            for body, group, dedup_id in zip(bodies, groups, self._ids, strict=False)
        ]

    def _arrow_entries(self, rows: pa.Table, group: str | None) -> list[Entry]:
        room = self._bytes_max - attributes.size_bytes(_ARROW)
        try:
            bodies = arrow_streams(rows, rows_max=self._sink.rows_max, bytes_max=room)
        except ValueError as error:
            raise SinkFailed(self._sink.queue, str(error)) from None
        return [Entry(body, _ARROW, None, group, dedup_id) for body, dedup_id in zip(bodies, self._ids, strict=False)]

    def _groups(self, rows: pa.Table) -> list[tuple[str | None, pa.Table]]:
        """Rows by their group: a message has one."""
        ids = self._group_ids(rows)
        if ids is None:
            return [(None, rows)]
        rows_of: dict[str, list[int]] = {}
        for row, group in enumerate(ids):
            rows_of.setdefault(group, []).append(row)
        return [(group, rows.take(pa.array(numbers))) for group, numbers in rows_of.items()]

    def _group_ids(self, rows: pa.Table) -> list[str] | None:
        if self._sink.group is None:
            return None
        return [_group_id(value) for value in rows.column(self._sink.group).to_pylist()]

    def _check_lengths(self, bodies: list[bytes]) -> None:
        longest = max(map(len, bodies))
        if longest > self._bytes_max:
            raise SinkFailed(self._sink.queue, f"a row has {longest} bytes as JSON; a message takes {self._bytes_max}")


def unique_ids() -> Iterator[str]:
    """Deduplication ids that were never used before."""
    prefix = uuid.uuid4().hex
    return (f"{prefix}-{number}" for number in itertools.count())


def _group_id(value: Any) -> str:
    """A group is 1 to 128 visible characters; what is not, is named by its digest, so that it is the same group always."""
    text = "NULL" if value is None else str(value)
    return text if ID.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()


def _check(sink: QueueSink, schema: Schema, *, fifo: bool) -> None:
    place = f"sink {sink.queue!r}"
    if fifo and sink.group is None:
        raise UnsupportedQuery(place, "it is FIFO, and messages need a group", "hs.queue(…, group='a column')")
    if sink.group is not None and sink.group not in schema.names:
        raise UnsupportedQuery(place, f"unknown column {sink.group!r} for the group", f"one of {schema.names}")
