"""The SQL of pipelines: Spark's dialect, parsed by sqlglot, checked against what streams can do, and compiled.

    analyse(step)       its output's schema and event time; raises UnsupportedQuery
    compile(pipeline)   the physical plan for the embedded engine
    to_spark(step)      the text for Spark

The same check stands before both engines, so what one refuses the other does, too.
"""

from __future__ import annotations

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.sql.compiler import Compiler, pruned
from headrace.stream.sql.relation import Analysis, TimeColumns
from headrace.stream.sql.restrictions import spark_restrictions_of
from headrace.stream.sql.spark_sql import WINDOW_TIME, SparkQuery, rewritten
from headrace.stream.sql.types import Types


def analyse(step: plan.SqlStep) -> Analysis:
    """A SQL step's output. Raises UnsupportedQuery for what the subset does not have."""
    return analyse_node(step)


def analyse_node(node: plan.Node) -> Analysis:
    """Any node's output. Raises UnsupportedQuery."""
    with Types() as types:
        compiler = Compiler(types)
        relation = compiler.materialised(compiler.node(node))
        return Analysis(relation.schema, relation.roles)


def compile(pipeline: plan.Pipeline) -> physical.PhysicalPlan:  # noqa: A001 # what it does
    """The operators of a pipeline for the embedded engine. Raises UnsupportedQuery."""
    with Types() as types:
        compiler = Compiler(types, pipeline.mode)
        relation = compiler.materialised(compiler.node(pipeline.output))
        compiler.resolve_modes()
        operators = pruned(compiler.operators, relation.place)
        return physical.PhysicalPlan(operators, tuple(compiler.warnings))


def to_spark(step: plan.SqlStep) -> SparkQuery:
    """A SQL step for Spark. Raises UnsupportedQuery, as `analyse` does."""
    found = analyse(step)
    text, windowed = rewritten(step)
    views = tuple(alias for alias, _ in step.inputs)
    return SparkQuery(text, views, tuple(found.schema.names), found.time, step.functions, windowed)


def spark_restrictions(pipeline: plan.Pipeline) -> list[UnsupportedQuery]:
    """What only the embedded engine can run. Raises UnsupportedQuery for what neither can."""
    return spark_restrictions_of(pipeline, compile(pipeline))


__all__ = [
    "WINDOW_TIME",
    "Analysis",
    "SparkQuery",
    "TimeColumns",
    "analyse",
    "analyse_node",
    "compile",
    "spark_restrictions",
    "to_spark",
]
