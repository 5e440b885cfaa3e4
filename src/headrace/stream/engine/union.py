"""UNION ALL: the rows of every input, under the names of the first."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from headrace.stream import physical
from headrace.stream.engine.operator import Context, Operator
from headrace.stream.engine.tables import conform
from headrace.stream.schema import Schema


class UnionOperator(Operator):
    """Stateless. Rows keep their ORIGIN."""

    def __init__(self, node: physical.Union, name: str, inputs: Sequence[Schema], context: Context) -> None:
        del name, context
        self.schema = node.schema
        self._inputs = inputs

    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        del port, watermark
        return conform(rows, self.schema) if rows.num_rows else None
