"""When a pipeline has met too many rows that cannot be processed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.stream import plan
from headrace.stream.errors import TooManyFailures
from headrace.stream.runner.progress import Progress
from headrace.stream.sources.base import Dead


def check_failures(pipeline: plan.Pipeline, progress: Progress, dead: Sequence[Dead]) -> None:
    """Raises TooManyFailures if a commit that makes `progress` is one too many.

    Args:
        dead: what is new. A pipeline without a queue for dead rows does not bear one.
    """
    if not dead:
        return
    many = progress.dead > pipeline.failures_max and progress.dead > pipeline.failures_share * progress.rows_in
    if pipeline.dead_letter_queue is None or many:
        raise TooManyFailures(
            pipeline.name, progress.dead, progress.rows_in, _text(dead[-1]), pipeline.dead_letter_queue is not None
        )


def _text(dead: Dead) -> str:
    places = [
        f"source {dead.source!r}" if dead.source else "",
        dead.message_id,
        f"step {dead.step!r}" if dead.step else "",
    ]
    return f"{dead.reason} ({', '.join(place for place in places if place)})"
