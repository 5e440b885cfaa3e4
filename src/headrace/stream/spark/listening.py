"""Counting what a query reads and drops, as Spark tells its listeners."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryListener

from headrace.stream.engine.operator import END, NEVER
from headrace.stream.spark import limits
from headrace.stream.spark.batches import Counts

FAR_SEEN_US: Final = 253_000_000_000_000_000  # no delay brings a far row's watermark below


class Listener(StreamingQueryListener):
    """Adds what the query `name` does to counts. Spark calls it from a thread of its own, one event after the other, with
    the news of all queries of a session."""

    def __init__(self, spark: SparkSession, name: str, counts: Counts) -> None:
        self._spark = spark
        self._name = name
        self._counts = counts
        self._ended: dict[str, threading.Event] = {}
        self._run = ""

    def __enter__(self) -> Self:
        self._spark.streams.addListener(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spark.streams.removeListener(self)

    def follow(self, run: str) -> None:
        self._run = run

    def wait_end(self) -> None:
        """Until all news of the query have come."""
        self._ended.setdefault(self._run, threading.Event()).wait(limits.LISTENER_LATE_S)

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802 - Spark's names
        pass

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        progress, counts = event.progress, self._counts
        if progress.name != self._name:
            return
        counts.batches += progress.numInputRows > 0
        counts.rows_in += progress.numInputRows
        counts.watermark_us = max(counts.watermark_us, _micros(progress.eventTime.get("watermark")))
        counts.late += sum(operator.numRowsDroppedByWatermark for operator in progress.stateOperators)

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        pass

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        self._ended.setdefault(str(event.runId), threading.Event()).set()


def _micros(watermark: str | None) -> int:
    """A watermark as Spark writes it: before any row it is 1970; the flush of finite sources puts it far."""
    if watermark is None:
        return NEVER
    moment = (datetime.fromisoformat(watermark) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return NEVER if moment == 0 else END if moment > FAR_SEEN_US else moment
