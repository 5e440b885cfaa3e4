"""The pipeline of `test_cluster.py`: executors unpickle its function by this module's name."""

from __future__ import annotations

from typing import Any

import headrace.stream as hs
from headrace.stream import plan as plans


def passed(row: dict[str, Any]) -> dict[str, Any]:
    return row


def plan() -> plans.Pipeline:
    rows = hs.queue("in", schema="id bigint").map(passed, schema="id bigint")
    return hs.pipeline("killed", rows, sink=hs.queue("out"), shards=2).plan
