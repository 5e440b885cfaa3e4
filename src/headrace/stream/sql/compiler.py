"""From the nodes of a plan to operators: sources, Python steps, dedup, and the SELECTs of SQL steps (WITH, FROM, UNION ALL,
WHERE, the SELECT list). A node may be a query, and a query reads nodes, so both are compiled here.

joins.py          FROM with JOIN
group_by.py       GROUP BY and HAVING, with windows
top.py            ROW_NUMBER() with a bound
restrictions.py   what a SELECT must not have
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from headrace.stream import limits, physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.physical import INPUT
from headrace.stream.schema import Schema
from headrace.stream.sql import group_by, joins, restrictions, top
from headrace.stream.sql.dialect import close_matches, parse, unsupported, written
from headrace.stream.sql.expressions import Writer, conjuncts, internal
from headrace.stream.sql.relation import Item, Relation, Scope, TimeColumns, is_time, item_of, project, project_operator
from headrace.stream.sql.types import Types, Untyped, sql_type

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

    def materialised(self, relation: Relation, step: str = "") -> Relation:
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
        return Relation(self.add(physical.Read(node, schema, time)), schema, TimeColumns(time))

    def _sql(self, step: plan.SqlStep) -> Relation:
        try:
            return Query(self, step).relation()
        except UnsupportedQuery as error:
            error.step = error.step or step.name
            raise

    def _python(self, step: plan.PythonStep) -> Relation:
        below = self.materialised(self.node(step.input), step.name)
        roles = below.roles if step.kind == "filter" else _kept(below.roles, step.schema)
        place = self.add(physical.Python(below.place, step, step.schema, roles.time))
        return replace(below, place=place, schema=step.schema, roles=roles)

    def _dedup(self, step: plan.DedupStep) -> Relation:
        below = self.materialised(self.node(step.input), step.name)
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
        """Remember where a session window was written, for `resolve_modes`."""
        self.sessions[place] = (node, step)

    def resolve_modes(self) -> None:
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
                error = unsupported(
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
            raise unsupported(
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


def _kept(roles: TimeColumns, schema: Schema) -> TimeColumns:
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


# A SELECT as relations and operators: WITH, FROM, UNION ALL, WHERE, the SELECT list.
#
# joins.py       FROM with JOIN
# aggregate.py   GROUP BY and HAVING
# top.py         ROW_NUMBER() with a bound
# refusals.py    what a SELECT must not have


Named = tuple[str, exp.Expr]
"""A column of a SELECT list: its name and its expression."""


@dataclass(slots=True)
class Query:
    """One SQL step being compiled."""

    compiler: Compiler
    step: plan.SqlStep

    @property
    def python(self) -> dict[str, plan.Function]:
        return {function.name.lower(): function for function in self.step.functions}

    def relation(self) -> Relation:
        """The rows that the step gives."""
        self.compiler.types.declare(self.step.functions)
        try:
            relation = self.query(parse(self.step.text, self.step.name), {})
        except Untyped as error:
            raise UnsupportedQuery(
                "the query", f"its types do not fit: {error}", "a CAST", step=self.step.name
            ) from None
        if relation.rank is not None:
            raise top.unbounded(relation.rank)
        return relation

    def query(self, node: exp.Expr, known: dict[str, Relation]) -> Relation:
        """A SELECT, UNION ALL, or one of these in parentheses; `known`: what WITH has named."""
        if isinstance(node, exp.Subquery):
            return self.query(node.this, known)
        if not isinstance(node, exp.Select | exp.Union) or type(node) in restrictions.SET_OPERATIONS:
            raise restrictions.statement(node)
        known = {**known, **self._named(node, known)}
        return self._union(node, known) if isinstance(node, exp.Union) else self._select(node, known)

    def _named(self, node: exp.Expr, known: dict[str, Relation]) -> dict[str, Relation]:
        clause = node.args.get("with_")
        if clause is None:
            return {}
        if clause.args.get("recursive"):
            raise unsupported(clause, "WITH RECURSIVE", "a stream has no end to recurse to")
        found: dict[str, Relation] = {}
        for item in clause.expressions:
            found[item.alias.lower()] = self.query(item.this, {**known, **found})
        return found

    def table(self, node: exp.Expr, known: dict[str, Relation]) -> Relation | plan.TableRef:
        """What stands in FROM or JOIN: a query, a name of WITH, an input, a table."""
        restrictions.from_item(node)
        if isinstance(node, exp.Subquery):
            return self.query(node.this, known)
        wanted = node.name.lower()
        if wanted in known:
            return known[wanted]
        for alias, item in self.step.inputs:
            if alias.lower() == wanted:
                return item if isinstance(item, plan.TableRef) else self.compiler.node(item)
        names = [*known, *(alias for alias, _ in self.step.inputs)]
        raise unsupported(node, written(node), "there is no stream or table of this name", close_matches(wanted, names))

    def writer(self, scope: Scope) -> Writer:
        return Writer(scope, self.python)

    def materialised(self, relation: Relation) -> Relation:
        return self.compiler.materialised(relation, self.step.name)

    def _union(self, node: exp.Union, known: dict[str, Relation]) -> Relation:
        if node.args.get("distinct"):
            raise unsupported(
                node, "UNION", "removing duplicates needs every row for ever", "UNION ALL, then .dedup(key, within=…)"
            )
        restrictions.tail(node)
        sides = [self.query(side, known) for side in (node.left, node.right)]
        for side in sides:
            if side.rank is not None:
                raise top.unbounded(side.rank)
        return self._united(node, sides)

    def _united(self, node: exp.Union, sides: list[Relation]) -> Relation:
        counts = [len(side.schema.fields) for side in sides]
        if counts[0] != counts[1]:
            raise unsupported(node, "UNION ALL", f"the sides have {counts[0]} and {counts[1]} columns")
        names = sides[0].schema.names
        settled = [self.materialised(side) for side in self._alike(sides, names)]
        roles = settled[0].roles if settled[0].roles == settled[1].roles else replace(
            settled[0].roles, start=None, end=None, size_us=None, slide_us=None,
            time=settled[0].roles.time if settled[0].roles.time == settled[1].roles.time else None,
        )  # fmt: skip
        schema = settled[0].schema
        place = self.compiler.add(physical.Union(tuple(side.place for side in settled), schema, roles.time))
        return Relation(place, schema, roles, changes=any(side.changes for side in sides))

    def _alike(self, sides: list[Relation], names: list[str]) -> list[Relation]:
        """Both sides with the names of the first, and types that both fit."""
        rows = [side.schema.arrow() for side in sides]
        nulls = [
            ", ".join(f"CAST(NULL AS {sql_type(field.type)}) AS c{place}" for place, field in enumerate(row))
            for row in rows
        ]
        scope = Scope.of(sides[0], "", self.compiler.types)
        common = self.compiler.types.schema_of(f"SELECT {nulls[0]} UNION ALL SELECT {nulls[1]}", scope.relation.schema)
        found = []
        for side in sides:
            items = [
                item_of(column.name, wanted) if column.type == kind else
                Item(wanted, f"CAST({item_of(column.name).sql} AS {sql_type(kind)})")
                for column, wanted, kind in zip(side.schema.fields, names, common.types, strict=True)
            ]  # fmt: skip
            found.append(project(Scope.of(side, "", self.compiler.types), items))
        return found

    def _select(self, node: exp.Select, known: dict[str, Relation]) -> Relation:
        restrictions.select(node)
        where = node.args.get("where")
        conditions = conjuncts(where.this if where is not None else None)
        scope, conditions = joins.from_clause(self, node, known, conditions)
        named = self._names(node, scope)
        qualify = conjuncts(node.args["qualify"].this) if node.args.get("qualify") else []
        if group_by.is_aggregate_query(node):
            scope, named, conditions, qualify = group_by.compile_group_by(self, node, scope, named, conditions)
        if qualify or any(isinstance(item, exp.Window) for _, item in named):
            return top.ranked(self, scope, named, conditions, qualify)
        return self.projected(scope, named, conditions)

    def projected(
        self, scope: Scope, named: Sequence[Named], conditions: Iterable[exp.Expr], extra: Iterable[Item] = ()
    ) -> Relation:
        """SELECT named, extra FROM scope WHERE conditions."""
        writer = self.writer(scope)
        items = [Item(name, writer(node), writer.column(node)) for name, node in named]
        where = [writer.condition(node) for node in conditions]
        try:
            return project(scope, [*items, *extra], where, self.step.functions)
        except Untyped:
            for _, node in named:
                writer.typed(node)  # refuses the one that is to blame, with its place
            raise

    def _names(self, node: exp.Select, scope: Scope) -> list[Named]:
        """The SELECT list, stars spelled out, everything with a name."""
        named: list[Named] = []
        for item in node.expressions:
            named.extend(self._name(item, scope))
        seen: set[str] = set()
        for name, item in named:
            if name.lower() in seen:
                raise unsupported(
                    item if item.parent else node, name, "two columns have this name", "another name: … AS other"
                )
            seen.add(name.lower())
        return named

    def _name(self, item: exp.Expr, scope: Scope) -> list[Named]:
        if item.is_star:
            return _starred(item, scope)
        if isinstance(item, exp.Alias):
            return [(item.alias, item.this)]
        if isinstance(item, exp.Column | exp.Dot):
            return [(item.name if isinstance(item, exp.Column) else item.expression.name, item)]
        raise unsupported(item, written(item), "a computed column needs a name", f"{written(item)} AS name")


def _starred(item: exp.Expr, scope: Scope) -> list[Named]:
    star = item if isinstance(item, exp.Star) else item.this
    if any(star.args.get(key) for key in ("except_", "except", "replace", "rename")):
        raise unsupported(item, written(item), "a star has no exceptions here", "the names of the columns")
    table = item.table if isinstance(item, exp.Column) else ""
    if table and table.lower() not in {alias.lower() for alias, _ in scope.names}:
        raise unsupported(
            item, written(item), f"there is no table {table!r} here", close_matches(table, [a for a, _ in scope.names])
        )
    return [(visible, internal(column)) for visible, column in scope.columns(table)]
