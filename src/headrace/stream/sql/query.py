"""A SELECT as relations and operators: WITH, FROM, UNION ALL, WHERE, the SELECT list.

joins.py       FROM with JOIN
aggregate.py   GROUP BY and HAVING
top.py         ROW_NUMBER() with a bound
refusals.py    what a SELECT must not have
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sql import aggregate, joins, refusals, top
from headrace.stream.sql.compiler import Compiler
from headrace.stream.sql.dialect import parse, refused, written
from headrace.stream.sql.expressions import Writer, conjuncts, internal
from headrace.stream.sql.near import near
from headrace.stream.sql.relation import Item, Relation, Scope, item_of, project
from headrace.stream.sql.types import Untyped, sql_type

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
        if not isinstance(node, exp.Select | exp.Union) or type(node) in refusals.SET_OPERATIONS:
            raise refusals.statement(node)
        known = {**known, **self._named(node, known)}
        return self._union(node, known) if isinstance(node, exp.Union) else self._select(node, known)

    def _named(self, node: exp.Expr, known: dict[str, Relation]) -> dict[str, Relation]:
        clause = node.args.get("with_")
        if clause is None:
            return {}
        if clause.args.get("recursive"):
            raise refused(clause, "WITH RECURSIVE", "a stream has no end to recurse to")
        found: dict[str, Relation] = {}
        for item in clause.expressions:
            found[item.alias.lower()] = self.query(item.this, {**known, **found})
        return found

    def table(self, node: exp.Expr, known: dict[str, Relation]) -> Relation | plan.TableRef:
        """What stands in FROM or JOIN: a query, a name of WITH, an input, a table."""
        refusals.from_item(node)
        if isinstance(node, exp.Subquery):
            return self.query(node.this, known)
        wanted = node.name.lower()
        if wanted in known:
            return known[wanted]
        for alias, item in self.step.inputs:
            if alias.lower() == wanted:
                return item if isinstance(item, plan.TableRef) else self.compiler.node(item)
        names = [*known, *(alias for alias, _ in self.step.inputs)]
        raise refused(node, written(node), "there is no stream or table of this name", near(wanted, names))

    def writer(self, scope: Scope) -> Writer:
        return Writer(scope, self.python)

    def settled(self, relation: Relation) -> Relation:
        return self.compiler.settled(relation, self.step.name)

    def _union(self, node: exp.Union, known: dict[str, Relation]) -> Relation:
        if node.args.get("distinct"):
            raise refused(
                node, "UNION", "removing duplicates needs every row for ever", "UNION ALL, then .dedup(key, within=…)"
            )
        refusals.tail(node)
        sides = [self.query(side, known) for side in (node.left, node.right)]
        for side in sides:
            if side.rank is not None:
                raise top.unbounded(side.rank)
        return self._united(node, sides)

    def _united(self, node: exp.Union, sides: list[Relation]) -> Relation:
        counts = [len(side.schema.fields) for side in sides]
        if counts[0] != counts[1]:
            raise refused(node, "UNION ALL", f"the sides have {counts[0]} and {counts[1]} columns")
        names = sides[0].schema.names
        settled = [self.settled(side) for side in self._alike(sides, names)]
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
        refusals.select(node)
        where = node.args.get("where")
        conditions = conjuncts(where.this if where is not None else None)
        scope, conditions = joins.from_clause(self, node, known, conditions)
        named = self._names(node, scope)
        qualify = conjuncts(node.args["qualify"].this) if node.args.get("qualify") else []
        if aggregate.wanted(node):
            scope, named, conditions, qualify = aggregate.compile_group(self, node, scope, named, conditions)
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
                raise refused(
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
        raise refused(item, written(item), "a computed column needs a name", f"{written(item)} AS name")


def _starred(item: exp.Expr, scope: Scope) -> list[Named]:
    star = item if isinstance(item, exp.Star) else item.this
    if any(star.args.get(key) for key in ("except_", "except", "replace", "rename")):
        raise refused(item, written(item), "a star has no exceptions here", "the names of the columns")
    table = item.table if isinstance(item, exp.Column) else ""
    if table and table.lower() not in {alias.lower() for alias, _ in scope.names}:
        raise refused(
            item, written(item), f"there is no table {table!r} here", near(table, [a for a, _ in scope.names])
        )
    return [(visible, internal(column)) for visible, column in scope.columns(table)]
