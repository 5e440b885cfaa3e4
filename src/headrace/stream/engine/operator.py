"""The contract between `engine.py` and the operators of the embedded engine.

In one step of the engine each operator, inputs first, receives the new rows of its inputs (`process`) under the watermark
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
    """Rows that a step has removed from the stream: late or dead.

    Attributes:
        rows: the rows before the operator, with ORIGIN if they stem from single messages.
        reason: the common reason, as a sentence.
        step: the name of the step.
    """

    rows: pa.Table
    reason: str
    step: str


@dataclass(slots=True)
class Context:
    """The context that operators share.

    Attributes:
        queries: the engine's DuckDB; its zone is UTC. Only the engine's thread uses it.
        store: the state backend.
        late, dead: the rows that the current step has removed from the stream.
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

    Its whole state is in the state backend, and is read from there when it is made. Rows go in and out as Arrow tables with the columns
    of its inputs' schemas and of `schema`, in this order, with ORIGIN behind them where a row stems from one message.

    Attributes:
        schema: the schema of its output.
        reached: its current watermark, set by the engine, also after a restart.
    """

    schema: Schema
    reached: int = NEVER

    @abstractmethod
    def process(self, port: int, rows: pa.Table, watermark: int) -> pa.Table | None:
        """Process rows of input `port` (0, or 1 for a join's right); `watermark` is the operator's before this step.

        Returns rows of its output, None for none.
        """

    def advance(self, watermark: int) -> pa.Table | None:
        """The operator's watermark is now `watermark` (greater than before); END: no row will come.

        Returns rows of its output that are final now.
        """
        del watermark
        return None

    def watermark(self, inputs: Sequence[int]) -> int:
        """The watermark of its output, from those of its inputs: no later output row has a smaller event time."""
        return min(inputs)

    def pending(self) -> int | None:
        """The least watermark at which it has output all rows that it holds back; None: it holds no rows back.

        An idle timeout advances the watermark to this value.
        """
        return None
