"""A running pipeline shows itself to the broker: its last report, as facts for the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.native.endpoint import Endpoint, parse
from headrace.native.presence import Presence
from headrace.presence import Recent, SourceFacts, StreamFacts, about_me, holder_name, write
from headrace.process import rss_bytes

if TYPE_CHECKING:
    from headrace.stream.plan import Pipeline
    from headrace.stream.result import Report


@contextmanager
def shown(target: str, plan: Pipeline) -> Iterator[Callable[[Report], None]]:
    """Present as a `stream` within the block. Gives a function to call with each report.

    A folder that this process has opened itself is nobody else's: there is nobody to show it to.
    """
    place = parse(target) if target != "none" else None
    if not isinstance(place, Endpoint):
        yield lambda _: None
        return
    from headrace.cli.stream import connected  # noqa: PLC0415 - which imports this module

    showing = Showing(plan.name, queues=_queues(plan), produces=_produces(plan))
    with connected(target, patience=0) as client:
        presence = Presence(client, holder=holder_name("stream"), kind="stream", facts=showing.facts)
        presence.start()
        try:
            yield showing.note
        finally:
            presence.stop()


class Showing:
    """The last report as facts. `note` by the thread that runs the pipeline, `facts` by the one that shows it."""

    def __init__(
        self,
        pipeline: str,
        *,
        queues: Sequence[str] = (),
        produces: Sequence[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._named = {"pipeline": pipeline, "queues": list(queues), "produces": list(produces)}
        self._monotonic = monotonic
        self._report: Report | None = None
        self._rows_out = Recent()

    def note(self, report: Report) -> None:
        self._report = report

    def facts(self) -> dict[str, Any]:
        report = self._report
        me = {**about_me(), **self._named, "rss_bytes": rss_bytes()}
        if report is None:
            return write(StreamFacts(**me))
        self._rows_out.note(self._monotonic(), {"out": report.rows_out})
        return write(
            StreamFacts(
                **me,
                batches=report.batches,
                rows_in=report.rows_in,
                rows_out=report.rows_out,
                rows_in_s=report.rows_in_s,
                rows_out_s=self._rows_out.rate_s("out"),
                late=report.late,
                dead=report.dead,
                watermark_ms=_watermark_ms(report.watermark),
                state_bytes=report.state_bytes,
                sources=[
                    SourceFacts(name=name, done=source.done, lag=source.lag, unit=source.unit)
                    for name, source in report.sources.items()
                ],
                undelivered=report.undelivered,
                standby=report.standby,
                paused=report.paused,
            )
        )


def _queues(plan: Pipeline) -> list[str]:
    from headrace.stream.plan import QueueSource, TopicSource, sources_of  # noqa: PLC0415 - needs the extra

    sources = [source for source in sources_of(plan.output) if isinstance(source, QueueSource | TopicSource)]
    return [source.queue if isinstance(source, QueueSource) else source.topic for source in sources]


def _produces(plan: Pipeline) -> list[str]:
    from headrace.stream.plan import QueueSink  # noqa: PLC0415 - needs the extra

    sinks = [sink.queue for sink in plan.sinks if isinstance(sink, QueueSink)]
    return sinks + [queue for queue in (plan.late_queue, plan.dead_letter_queue) if queue is not None]


def _watermark_ms(watermark: int) -> int | None:
    from headrace.stream.engine.operator import END, NEVER  # noqa: PLC0415 - needs the extra

    return watermark // 1_000 if NEVER < watermark < END else None
