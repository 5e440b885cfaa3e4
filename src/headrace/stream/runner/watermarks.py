"""The watermarks of sources. Pure: time is an argument.

A source's watermark follows its rows. A source without input for its idle timeout must not hold up the others: it advances
to the watermark of the active sources; if all are idle, to the watermark at which all open windows close.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream import plan
from headrace.stream.runner.progress import SourceProgress
from headrace.stream.sources.base import Chunk


def of_rows(rows: pa.Table, time: plan.EventTime | None, before: int) -> int:
    """The watermark after these rows: the greatest event time less the delay, never less than before."""
    if time is None or rows.num_rows == 0:
        return before
    latest = pc.max(rows.column(time.column).cast(pa.int64())).as_py()
    return before if latest is None else max(before, latest - time.delay_us)


def of_chunks(chunks: Iterable[Chunk], time: plan.EventTime | None, before: int) -> int:
    """The watermark after all of these."""
    for chunk in chunks:
        before = of_rows(chunk.rows, time, before)
    return before


def idle_sources(
    sources: Mapping[str, SourceProgress], times: Mapping[str, plan.EventTime | None], now_ms: int
) -> frozenset[str]:
    """The sources whose idle timeout has passed."""
    return frozenset(
        name
        for name, source in sources.items()
        if (time := times.get(name)) is not None
        and time.idle_us is not None
        and (now_ms - source.heard_ms) * 1_000 >= time.idle_us
    )


def idle_watermarks(
    sources: Mapping[str, SourceProgress],
    times: Mapping[str, plan.EventTime | None],
    idle: Collection[str],
    pending: int | None,
) -> dict[str, int]:
    """The new watermarks of idle sources, for those that move.

    Args:
        pending: the watermark at which all open windows close; None: none is open.
    """
    timed = [name for name, time in times.items() if time is not None and not sources[name].ended]
    heard = [sources[name].watermark for name in timed if name not in idle]
    goal = min(heard) if heard else pending
    if goal is None:
        return {}
    return {name: goal for name in timed if name in idle and sources[name].watermark < goal}


def next_deadline_ms(
    sources: Mapping[str, SourceProgress], times: Mapping[str, plan.EventTime | None], now_ms: int
) -> int | None:
    """When the next idle timeout ends, steady ms; None: none will, by time alone. What has ended was assign_shards with."""
    ends = [
        sources[name].heard_ms + time.idle_us // 1_000
        for name, time in times.items()
        if time is not None and time.idle_us is not None and name in sources and not sources[name].ended
    ]
    return min((end for end in ends if end > now_ms), default=None)
