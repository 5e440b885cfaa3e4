"""What Spark's Structured Streaming cannot run, although the embedded engine can."""

from __future__ import annotations

from headrace.stream import physical, plan
from headrace.stream.errors import UnsupportedQuery


def spark_refusals_of(pipeline: plan.Pipeline, compiled: physical.Physical) -> list[UnsupportedQuery]:
    """A refusal for each construct; empty if Spark can run all."""
    found = [_operator(operator, pipeline) for operator in compiled.operators]
    stateful = [operator for operator in compiled.operators if isinstance(operator, physical.STATEFUL)]
    if pipeline.mode == "update" and len(stateful) > 1:
        found.append(
            UnsupportedQuery(
                "mode 'update' with several steps of state",
                "Spark chains them only in mode 'append'",
                "mode='append', or the embedded engine",
            )
        )
    return [refusal for refusal in found if refusal is not None]


def _operator(operator: physical.Operator, pipeline: plan.Pipeline) -> UnsupportedQuery | None:
    if isinstance(operator, physical.Top):
        return UnsupportedQuery(
            "ROW_NUMBER()",
            "Spark's streams have no window functions over rows",
            "the embedded engine",
            step=operator.step,
        )
    if isinstance(operator, physical.Join) and pipeline.mode == "update" and operator.kind != "inner":
        return UnsupportedQuery(
            f"{operator.kind.upper()} JOIN in mode 'update'", "Spark joins so only in mode 'append'", "mode='append'",
            step=operator.step,
        )  # fmt: skip
    if isinstance(operator, physical.Project) and any(table.reload_us is not None for table in operator.tables):
        return UnsupportedQuery("reload of a table", "Spark reads it once a query", "no reload=, or the embedded engine",
                           step=operator.step)  # fmt: skip
    return None
