"""From a plan's nodes to operators. The SQL of a step is compiled by `query.py`; here are the nodes around it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sqlglot import exp

from headrace.stream import limits, physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import INPUT
from headrace.stream.schema import Schema
from headrace.stream.sql.analysis import Roles, is_time
from headrace.stream.sql.dialect import refused
from headrace.stream.sql.relation import Relation, Scope, item_of, project, project_operator
from headrace.stream.sql.types import Types

QUEUE_METADATA = Schema.of("message_id string, sent_at timestamp, message_group string, sequence bigint")


@dataclass(slots=True)
class Compiler:
    """Collects operators. `mode` None: for an analysis, which does not know the pipeline."""

    types: Types
    mode: plan.Mode | None = None
    operators: list[physical.Operator] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sessions: dict[int, tuple[exp.Expr, str]] = field(default_factory=dict)
    _known: dict[int, Relation] = field(default_factory=dict)

    def add(self, operator: physical.Operator) -> int:
        """Append an operator; returns its place."""
        if not isinstance(operator, physical.Read) and operator in self.operators:
            return self.operators.index(operator)  # written twice, done once
        if len(self.operators) >= limits.STEPS_MAX:
            raise UnsupportedQuery("the pipeline", f"it has more than {limits.STEPS_MAX} operators")
        self.operators.append(operator)
        place = len(self.operators) - 1
        self.types.add(place, operator.schema)
        return place

    def settled(self, relation: Relation, step: str = "") -> Relation:
        """The relation as rows of an operator: its query becomes a Project if it is one."""
        if relation.hidden:
            scope = Scope.of(relation, "", self.types)
            relation = project(
                scope, [item_of(column) for column in relation.schema.names if column not in relation.hidden]
            )
        if relation.query == INPUT:
            return relation
        place = self.add(project_operator(relation, step))
        return replace(relation, place=place, query=INPUT, tables=(), functions=(), renames=None)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def node(self, node: plan.Node) -> Relation:
        """A node's rows. The same node is compiled once."""
        if id(node) not in self._known:
            self._known[id(node)] = self._compiled(node)
        return self._known[id(node)]

    def _compiled(self, node: plan.Node) -> Relation:
        if isinstance(node, plan.SqlStep):
            return self._sql(node)
        if isinstance(node, plan.PythonStep):
            return self._python(node)
        if isinstance(node, plan.DedupStep):
            return self._dedup(node)
        schema, time = source_schema(node), node.time.column if node.time else None
        return Relation(self.add(physical.Read(node, schema, time)), schema, Roles(time))

    def _sql(self, step: plan.SqlStep) -> Relation:
        from headrace.stream.sql.query import Query  # noqa: PLC0415 # a query reads nodes, and a node may be a query

        try:
            return Query(self, step).relation()
        except UnsupportedQuery as error:
            error.step = error.step or step.name
            raise

    def _python(self, step: plan.PythonStep) -> Relation:
        below = self.settled(self.node(step.input), step.name)
        roles = below.roles if step.kind == "filter" else _kept(below.roles, step.schema)
        place = self.add(physical.Python(below.place, step, step.schema, roles.time))
        return replace(below, place=place, schema=step.schema, roles=roles)

    def _dedup(self, step: plan.DedupStep) -> Relation:
        below = self.settled(self.node(step.input), step.name)
        keys = tuple(_column(step, below.schema, key) for key in step.keys)
        if below.roles.time is None:
            raise UnsupportedQuery(
                "dedup", "without an event time every key would be kept for ever",
                ".with_watermark(column, delay=…) on the source, and the column among those selected", step=step.name,
            )  # fmt: skip
        self.refuse_changes(below, "dedup", step.name)
        place = self.add(physical.Dedup(below.place, keys, below.roles.time, step.within_us, below.schema, step.name))
        return replace(below, place=place)

    def session(self, place: int, node: exp.Expr, step: str) -> None:
        """Remember where a session window was written, for `settled_modes`."""
        self.sessions[place] = (node, step)

    def settled_modes(self) -> None:
        """In mode `update`, what stands below something with state gives closed windows all the same: nothing else could be
        counted on. Raises UnsupportedQuery for sessions as results that change: a session that grows has another start."""
        below = {
            place
            for operator in self.operators
            if isinstance(operator, physical.STATEFUL)
            for place in self._under(operator)
        }
        for place, operator in enumerate(self.operators):
            if not isinstance(operator, physical.Aggregate) or operator.window is None or operator.mode == "append":
                continue
            if place in below:
                self.operators[place] = replace(operator, mode="append")
            elif isinstance(operator.window, physical.Session):
                node, step = self.sessions[place]
                error = refused(
                    node,
                    "session_window in mode 'update'",
                    "a session that grows would be another row",
                    "mode='append'",
                )
                error.step = step
                raise error

    def _under(self, operator: physical.Operator) -> set[int]:
        found: set[int] = set()
        todo = list(physical.inputs_of(operator))
        while todo:
            place = todo.pop()
            if place not in found:
                found.add(place)
                todo.extend(physical.inputs_of(self.operators[place]))
        return found

    def unwindowed(self, step: str) -> None:
        """An aggregate or top without a window: its results change for ever, and its state grows with the keys."""
        if self.mode == "append":
            raise UnsupportedQuery(
                "GROUP BY without a window", "its result is never final, so in mode 'append' nothing would ever come",
                "GROUP BY tumble(ts, '1 minute'), …, or mode='update'", step=step,
            )  # fmt: skip
        self.warn(f"step {step!r} has an aggregate without a window: a row of state for every key, for ever")

    def unwindowed_top(self, node: exp.Expr, step: str) -> None:
        """A top over all time: only as results that change."""
        if self.mode == "append":
            raise refused(
                node, "ROW_NUMBER()", "without the window in PARTITION BY it is never final, so in mode 'append' nothing would"
                " ever come", "PARTITION BY window_start, window_end, … over a windowed query, or mode='update'",
            )  # fmt: skip
        self.warn(f"step {step!r} keeps the first rows of every partition for ever")

    def refuse_changes(self, relation: Relation, what: str, step: str = "") -> None:
        """Nothing that remembers rows can stand on rows that are withdrawn later without a word."""
        if relation.changes:
            raise UnsupportedQuery(
                what, "it would read results that still change (an aggregate or top without a window)",
                "a window in the inner query: GROUP BY tumble(ts, '1 minute'), …", step=step,
            )  # fmt: skip


def source_schema(source: plan.Source) -> Schema:
    """The columns of a source's rows: metadata first."""
    names = source.metadata if isinstance(source, plan.QueueSource | plan.TopicSource) else ()
    fields = []
    for column in names:
        found = QUEUE_METADATA.find(column)
        if found is None:
            raise UnsupportedQuery(
                f"metadata {column!r}",
                "messages have no such metadata",
                ", ".join(QUEUE_METADATA.names),
                step=source.name,
            )
        fields.append(found)
    return Schema((*fields, *source.schema.fields))


def _column(step: plan.DedupStep, schema: Schema, key: str) -> str:
    found = schema.find(key)
    if found is None:
        raise UnsupportedQuery(f"dedup key {key!r}", "there is no such column", ", ".join(schema.names), step=step.name)
    return found.name


def _kept(roles: Roles, schema: Schema) -> Roles:
    """What a Python step leaves of the roles: columns that it still gives, as timestamps. It must not change them."""
    kept = {field.name: field.name for field in schema.fields if is_time(field.type)}
    return roles.renamed(kept)


def pruned(operators: list[physical.Operator], output: int) -> tuple[physical.Operator, ...]:
    """Only the operators that `output` depends on, in their order, renumbered; the output is the last."""
    needed: set[int] = set()

    def visit(place: int) -> None:
        if place not in needed:
            needed.add(place)
            for below in physical.inputs_of(operators[place]):
                visit(below)

    visit(output)
    places = {old: new for new, old in enumerate(sorted(needed))}
    return tuple(_moved(operators[old], places) for old in sorted(needed))


def _moved(operator: physical.Operator, places: dict[int, int]) -> physical.Operator:
    if isinstance(operator, physical.Read):
        return operator
    if isinstance(operator, physical.Join):
        return replace(operator, left=places[operator.left], right=places[operator.right])
    if isinstance(operator, physical.Union):
        return replace(operator, inputs=tuple(places[place] for place in operator.inputs))
    return replace(operator, input=places[operator.input])
