from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa

from headrace.stream.result import Collector
from headrace.stream.spark.batches import Counts
from headrace.stream.spark.run import ProgressListener


def progress(name: str) -> Any:
    return SimpleNamespace(progress=SimpleNamespace(name=name, numInputRows=5, eventTime={}, stateOperators=[]))


def test_other_queries_of_the_session_are_not_counted() -> None:
    counts = Counts(Collector(pa.schema([]), everything=False))
    listener = ProgressListener(cast("Any", None), "headrace-p", counts)
    for name in ("headrace-p", "headrace-q", "headrace-p"):
        listener.onQueryProgress(progress(name))
    assert (counts.batches, counts.rows_in) == (2, 10)
