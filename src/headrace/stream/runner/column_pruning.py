"""Column pruning: which columns of a source a plan reads, so that readers can skip the others."""

from __future__ import annotations

from sqlglot import exp

from headrace.stream import physical, plan
from headrace.stream.engine.project import ORIGIN_MARK, parsed


def pruned_columns(pipeline: plan.Pipeline, compiled: physical.PhysicalPlan, source: str) -> frozenset[str] | None:
    """The names of the columns that are looked at; None: all.

    Rows that may go to a queue, late or dead, go there whole.
    """
    if pipeline.late_queue is not None or pipeline.dead_letter_queue is not None:
        return None
    used: set[str] = set()
    names: set[str] = set()
    for place, read in enumerate(compiled.operators):
        if not isinstance(read, physical.Read) or read.source.name != source:
            continue
        readers = [node for node in compiled.operators if place in physical.inputs_of(node)]
        found = [_used_by(node) for node in readers]
        if not found or None in found:
            return None
        used.update(*(names for names in found if names is not None))
        used |= {read.time.lower()} if read.time else set()
        names |= {name for name in read.schema.names if name.lower() in used}
    return frozenset(names) or None


def _used_by(node: physical.Operator) -> set[str] | None:
    """Names in lower case, perhaps more than there are; None: all."""
    if isinstance(node, physical.Project):
        query = parsed(node.sql.replace(ORIGIN_MARK, ""))
        if query is None or query.find(exp.Star):
            return None
        # Every name, not only columns': a.b may be the field b of a column a.
        return {name.name.lower() for name in query.find_all(exp.Identifier)}
    if isinstance(node, physical.Aggregate):
        arguments = [column for it in node.aggregations for column in (*it.arguments, it.where) if column]
        return {name.lower() for name in (*node.keys, *arguments, *([node.time] if node.time else []))}
    return None
