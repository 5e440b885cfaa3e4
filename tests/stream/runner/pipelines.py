"""Small pipelines, and a broker for them, for the runner's tests."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import headrace
import headrace.stream as hs
from headrace.stream.pipelines import Pipeline

BASE = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - UTC without zone, as inside
SCHEMA = "k string, v bigint, ts timestamp"


def counts(name: str = "counts", *, sink: hs.Sink | Sequence[hs.Sink] | None = None, **more: Any) -> Pipeline:
    """Rows of `events` counted by key in windows of 10 s, into `out`."""
    return _made(name, _counted(more.pop("idle", None)), sink, more)


def copied(
    name: str = "copied", *, where: str = "true", sink: hs.Sink | Sequence[hs.Sink] | None = None, **more: Any
) -> Pipeline:
    """Rows of `events` as they are, into `out`."""
    return _made(name, _copied(where), sink, more)


@cache
def _counted(idle: str | None) -> hs.Stream:
    events = hs.queue("events", schema=SCHEMA).with_watermark("ts", delay="2 seconds", idle=idle)
    return hs.sql(
        "SELECT window_start, k, count(*) AS n, sum(v) AS s FROM events GROUP BY tumble(ts, '10 seconds'), k",
        events=events,
    )


@cache
def _copied(where: str) -> hs.Stream:
    return hs.sql(f"SELECT k, v FROM events WHERE {where}", events=hs.queue("events", schema=SCHEMA))


def _made(name: str, stream: hs.Stream, sink: hs.Sink | Sequence[hs.Sink] | None, more: dict[str, Any]) -> Pipeline:
    return hs.pipeline(name, stream, sink=hs.queue("out") if sink is None else sink, **more)


def event(number: int, *, step_ms: int = 100) -> dict[str, Any]:
    return {"k": "abc"[number % 3], "v": number, "ts": (BASE + dt.timedelta(milliseconds=step_ms * number)).isoformat()}


def send(client: headrace.Client, rows: Iterable[Any], queue: str = "events") -> None:
    client.queue(queue, create=True).send_many(
        row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows
    )


def taken(client: headrace.Client, queue: str) -> list[dict[str, Any]]:
    """All messages of a queue, as JSON; they stay."""
    return [message.json() for message in client.queue(queue).peek(10_000)]


def expected_counts(rows: Iterable[dict[str, Any]]) -> Counter[tuple[str, str, int, int]]:
    """What `counts` gives for these rows, none of which is late, once every window has closed."""
    groups: dict[tuple[dt.datetime, str], list[int]] = {}
    for row in rows:
        ts = dt.datetime.fromisoformat(row["ts"])
        start = ts - dt.timedelta(seconds=ts.second % 10, microseconds=ts.microsecond)
        groups.setdefault((start, row["k"]), []).append(row["v"])
    return Counter(
        (start.isoformat(timespec="microseconds") + "Z", k, len(values), sum(values))
        for (start, k), values in groups.items()
    )


def counted(messages: Iterable[dict[str, Any]]) -> Counter[tuple[str, str, int, int]]:
    return Counter((row["window_start"], row["k"], row["n"], row["s"]) for row in messages)
