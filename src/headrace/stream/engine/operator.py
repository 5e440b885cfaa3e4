"""The contract between `engine.py` and the operators of the embedded engine.

In one step of the engine each operator, inputs first, is given its inputs' new rows (`process`), judged by the watermark
*before* the step, and then receives the new watermark (`advance`). What both return is its output of the step. So the
rows of windows that close in a step reach the next operator before that one's own watermark moves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from headrace.stream.engine.queries import Queries
from headrace.stream.engine.state import OperatorState, StateBackend
from headrace.stream.schema import Schema

NEVER: Final = -(2**62)
"""The watermark before any row (µs)."""
END: Final = 2**62
"""The watermark after all rows: everything closes."""


@dataclass(slots=True)
class RejectedRows:
    """Rows that were taken out of the stream in a step: late, or dead.

    Attributes:
        rows: as they were before the operator. With ORIGIN if they stem from single messages.
        reason: one for all of them, a sentence that names what is wrong.
        step: where.
    """

    rows: pa.Table
    reason: str
    step: str


@dataclass(slots=True)
class Context:
    """What operators share.

    Attributes:
        queries: the engine's DuckDB; its zone is UTC. Only the engine's thread uses it.
        store: where parts are.
        late, dead: what the current step took out of the stream.
    """

    queries: Queries
    store: StateBackend
    late: list[RejectedRows] = field(default_factory=list)
    dead: list[RejectedRows] = field(default_factory=list)

    def query(self, sql: str, **tables: pa.Table) -> pa.Table:
        """The result of DuckDB's SQL over Arrow tables, named by keyword. The text is the same for all batches.

        Raises duckdb.Error.
        """
        return self.queries.run(sql, tables)

    def state(self, operator: str, keys: Sequence[str], schema: pa.Schema) -> OperatorState:
        """The state of an operator: `operator` is its name in `PhysicalPlan.signatures`, or that and a suffix; rows are
        sharded by the columns `keys`."""
        return self.store.open(operator, tuple(keys), schema)


class Operator(ABC):
    """A running operator. Deterministic: the same calls give the same results, also after a restart in between.

    Its whole state is in parts, and is read from them when it is made. Rows go in and out as Arrow tables with the columns
    of its inputs' schemas and of `schema`, in this order, with ORIGIN behind them where a row stems from one message.

    Attributes:
        schema: of its output.
        reached: its watermark so far, kept up to date by the engine, which sets it after a restart, too.
    """

    schema: Schema
    reached: int = NEVER

    @abstractmethod
    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        """Take rows of input `port` (0, or 1 for a join's right); `watermark` is the operator's before this step.

        Returns rows of its output, None for none.
        """

    def advance(self, watermark: int) -> pa.Table | None:
        """The operator's watermark is now `watermark` (greater than before); END: no row will come.

        Returns rows of its output that are final now.
        """
        del watermark
        return None

    def watermark(self, inputs: Sequence[int]) -> int:
        """Its output's watermark, from those of its inputs: no later row of it will have a smaller event time."""
        return min(inputs)

    def pending(self) -> int | None:
        """The least watermark at which everything that it holds back has come out; None: it holds nothing back.

        What an idle source's timeout advances to.
        """
        return None
