"""Counting what a query reads and drops, as Spark tells its listeners."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Final, Self

from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryListener

from headrace.stream.spark.batches import Counts

LISTENER_LATE_S: Final = 10.0
"""How long the last news of a query that has ended may take: they come by a bus of Spark's own."""


class Listener(StreamingQueryListener):
    """Adds what one query does to counts. Spark calls it from a thread of its own, one event after the other."""

    def __init__(self, spark: SparkSession, counts: Counts) -> None:
        self._spark = spark
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
        self._ended.setdefault(self._run, threading.Event()).wait(LISTENER_LATE_S)

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802 - Spark's names
        pass

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        progress = event.progress
        counts = self._counts
        counts.batches += progress.numInputRows > 0
        counts.rows_in += progress.numInputRows
        counts.late += sum(operator.numRowsDroppedByWatermark for operator in progress.stateOperators)

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        pass

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        self._ended.setdefault(str(event.runId), threading.Event()).set()
