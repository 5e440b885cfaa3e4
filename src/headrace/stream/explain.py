"""What a pipeline is, for people: as text."""

from __future__ import annotations

from headrace.stream import plan
from headrace.stream.sql import compile as compile_plan


def explain(pipeline: plan.Pipeline) -> str:
    """The operators of a pipeline."""
    physical = compile_plan(pipeline)
    return "\n".join(f"{place}: {type(operator).__name__}" for place, operator in enumerate(physical.operators))


def picture(pipeline: plan.Pipeline) -> str:
    """A picture."""
    return f"<pre>{explain(pipeline)}</pre>"
