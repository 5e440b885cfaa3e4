"""Runs a physical plan, batch by batch: rows of the sources in, rows of the output out, state in parts.

An engine whose `step` has raised is in an undefined state: drop it, and make a new one from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import duckdb
import pyarrow as pa

from headrace.stream import limits, physical, plan
from headrace.stream.engine.aggregate import AggregateOperator
from headrace.stream.engine.arrow_tables import plain
from headrace.stream.engine.dedup import DedupOperator
from headrace.stream.engine.join import JoinOperator
from headrace.stream.engine.operator import NEVER, Context, Operator, RejectedRows
from headrace.stream.engine.project import ProjectOperator, UnionOperator
from headrace.stream.engine.python_functions import PythonOperator, register_function
from headrace.stream.engine.queries import Queries, spill_folder
from headrace.stream.engine.session_windows import SessionOperator
from headrace.stream.engine.state import StateBackend
from headrace.stream.engine.top import TopOperator
from headrace.stream.schema import ORIGIN, Schema

OPERATORS: Final[dict[type, Any]] = {
    physical.Project: ProjectOperator,
    physical.Python: PythonOperator,
    physical.Aggregate: AggregateOperator,
    physical.Join: JoinOperator,
    physical.Dedup: DedupOperator,
    physical.Top: TopOperator,
    physical.Union: UnionOperator,
}
"""What runs which operator. Each is made by (node, name, the inputs' schemas, context)."""


@dataclass(slots=True)
class Step:
    """The result of a step. `output` may have no rows, and has no ORIGIN."""

    output: pa.Table
    late: list[RejectedRows]
    dead: list[RejectedRows]


class Shuffle(Protocol):
    """Exchanges rows between processes that share a plan, before one operator.

    Attributes:
        place: the index of this operator in the plan.
    """

    place: int

    def swap(self, port: int, rows: pa.Table | None) -> pa.Table | None:
        """The rows to process in place of the rows of input `port`. Called once per step for each input."""


class Engine:
    """A running plan. Only the thread that made it may use it.

    Args:
        plan_: the plan.
        store: the backend of its state, from which it continues.
        watermarks: source name → its watermark (µs) after the last step that was committed; none at the first start.
        tables: static tables by name, as `set_table` takes them.
        memory_bytes: memory of DuckDB, which spills to disk beyond it.
        threads: threads of DuckDB.
        shuffle: the exchange of rows with other processes; None: it does not share the plan.
    """

    def __init__(
        self,
        plan_: physical.PhysicalPlan,
        store: StateBackend,
        *,
        watermarks: Mapping[str, int] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
        memory_bytes: int = limits.ENGINE_MEMORY_BYTES_DEFAULT,
        threads: int = limits.ENGINE_THREADS_DEFAULT,
        shuffle: Shuffle | None = None,
    ) -> None:
        self._plan = plan_
        self._shuffle = shuffle
        self._closing = ExitStack()
        with ExitStack() as failed:
            failed.callback(self.close)
            self._context = Context(Queries(partial(self._connect, memory_bytes, threads)), store)
            self._tables(tables or {})
            self._running = _running(plan_, self._context)
            failed.pop_all()
        self._reached = self._spread(watermarks or {}, [NEVER] * len(plan_.operators))
        for operator, place in self._placed():
            operator.reached = self._before(self._reached, place)

    def step(self, inputs: Mapping[str, pa.Table], watermarks: Mapping[str, int]) -> Step:
        """Process new rows, by source name, and then the sources' new watermarks. Missing entries mean no change.

        Raises duckdb.Error, and the errors of Python batch steps, if single rows are not the cause.
        """
        reached = self._spread(watermarks, self._reached)
        outputs: list[pa.Table | None] = []
        for place, node in enumerate(self._plan.operators):
            if isinstance(node, physical.Read):
                outputs.append(inputs.get(node.source.name))
            else:
                outputs.append(self._run(place, outputs, reached))
        self._reached = reached
        return self._taken(outputs[-1])

    def set_table(self, name: str, rows: pa.Table) -> None:
        """Set the rows of the static table `name`."""
        self._context.queries.connection.register(name, rows)

    def pending(self) -> int | None:
        """The least watermark at which all operators have output the rows that they hold back now; None: none holds rows back.

        The next operator may hold these rows back, so the value can change then.
        """
        found = [operator.pending() for operator, _ in self._placed()]
        return max((time for time in found if time is not None), default=None)

    def watermarks(self) -> list[int]:
        """The watermark of each operator's output, in the plan's order."""
        return list(self._reached)

    def close(self) -> None:
        """Close DuckDB and remove its spilled data. Idempotent."""
        self._closing.close()

    def _run(self, place: int, outputs: Sequence[pa.Table | None], reached: Sequence[int]) -> pa.Table | None:
        """Process the rows of the inputs under the previous watermark, then advance the watermark."""
        operator = self._running[place]
        assert operator is not None
        given = []
        for port, source in enumerate(physical.inputs_of(self._plan.operators[place])):
            rows = outputs[source]
            if self._shuffle is not None and self._shuffle.place == place:
                rows = self._shuffle.swap(port, rows)
            if rows is not None and rows.num_rows:
                given.append(operator.process(port, rows, operator.reached))
        watermark = self._before(reached, place)
        if watermark > operator.reached:
            given.append(operator.advance(watermark))
            operator.reached = watermark
        return _joined([rows for rows in given if rows is not None and rows.num_rows])

    def _taken(self, output: pa.Table | None) -> Step:
        schema = self._plan.output.schema
        rows = schema.arrow().empty_table() if output is None else plain(output, schema)
        step = Step(rows, self._context.late, self._context.dead)
        self._context.late, self._context.dead = [], []
        return step

    def _spread(self, watermarks: Mapping[str, int], before: Sequence[int]) -> list[int]:
        """The watermarks of all outputs, from the sources'. They never retreat."""
        reached: list[int] = []
        for place, node in enumerate(self._plan.operators):
            if isinstance(node, physical.Read):
                found = watermarks.get(node.source.name, NEVER)
            else:
                operator = self._running[place]
                assert operator is not None
                found = operator.watermark([reached[source] for source in physical.inputs_of(node)])
            reached.append(max(found, before[place]))
        return reached

    def _before(self, reached: Sequence[int], place: int) -> int:
        return min(reached[source] for source in physical.inputs_of(self._plan.operators[place]))

    def _placed(self) -> list[tuple[Operator, int]]:
        return [(operator, place) for place, operator in enumerate(self._running) if operator is not None]

    def _connect(self, memory_bytes: int, threads: int) -> duckdb.DuckDBPyConnection:
        folder = self._closing.enter_context(spill_folder())
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_bytes // 1024}KiB",
            "temp_directory": folder,
            "threads": threads,
        }
        connection = duckdb.connect(config=config)
        self._closing.callback(connection.close)
        # Not in `config`: the part of DuckDB that knows zones is loaded by this statement.
        connection.execute("SET TimeZone = 'UTC'")
        # The compiler writes the SQL, but a path in a user's text must not be read, nor a Python variable used as a table.
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        return connection

    def _tables(self, tables: Mapping[str, pa.Table]) -> None:
        """Every static table and function of the plan: with their rows, or empty until `set_table`."""
        known: set[str] = set()
        for node in self._plan.operators:
            if isinstance(node, physical.Project):
                for table in node.tables:
                    self.set_table(table.name, _rows_of(table, tables))
                for function in node.functions:
                    if function.name not in known:
                        known.add(function.name)
                        register_function(self._context.queries.connection, function)


def _rows_of(table: plan.TableRef, tables: Mapping[str, pa.Table]) -> pa.Table:
    if table.name in tables:
        return tables[table.name]
    return table.schema.arrow().empty_table() if table.data is None else table.data


def _running(plan_: physical.PhysicalPlan, context: Context) -> list[Operator | None]:
    """The running operators, in the plan's order; None for sources. They are named as in `PhysicalPlan.signatures`."""
    counts: dict[str, int] = {}
    made: list[Operator | None] = []
    for node in plan_.operators:
        kind = type(node).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        inputs = [plan_.operators[source].schema for source in physical.inputs_of(node)]
        made.append(None if isinstance(node, physical.Read) else _made(node, f"{kind}-{counts[kind]}", inputs, context))
    return made


def _made(node: physical.Operator, name: str, inputs: list[Schema], context: Context) -> Operator:
    kind = OPERATORS[type(node)]
    if isinstance(node, physical.Aggregate) and isinstance(node.window, physical.Session):
        kind = SessionOperator
    operator: Operator = kind(node, name, inputs, context)
    return operator


def _joined(tables: list[pa.Table]) -> pa.Table | None:
    if len(tables) < 2:
        return tables[0] if tables else None
    if any(ORIGIN not in table.column_names for table in tables):
        tables = [table.drop_columns([ORIGIN]) if ORIGIN in table.column_names else table for table in tables]
    return pa.concat_tables(tables)
