"""A pipeline from a durable queue, in a process of its own, beside the broker's.

python -m benchmarks.stream.through_queue fill URL arrow|json EVENTS     fills the queue `bid`
python -m benchmarks.stream.through_queue run URL arrow|json q1          reads it until it is empty
python -m benchmarks.stream.through_queue serve URL                      the windows of `latency.py`, until it is stopped
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

import pyarrow as pa

import headrace
import headrace.stream as hs
from benchmarks.nexmark import generator, queries
from benchmarks.stream.measuring import Stopwatch
from benchmarks.stream.plan import DISORDER_US, LATENCY_WINDOW_MS, PART_EVENTS
from headrace.stream import arrow_memory, runner  # noqa: F401 - loaded before the clock runs
from headrace.stream.formats.decoding import ARROW_TYPE
from headrace.stream.formats.encoding import arrow_streams

BODY_BYTES_MAX: Final = 1_000_000
CALL_BYTES_MAX: Final = 6_000_000
"""A broker's default bound of a request is 8 MiB."""
JSON_CALL_MESSAGES: Final = 5_000


def fill(url: str, form: str, events: int) -> dict[str, int]:
    """The bids among so many events into the queue `bid`. Returns how many, and in how many messages."""
    filled = {"events": 0, "messages": 0}
    with headrace.connect(url) as client:
        queue = client.queue("bid", create=True)
        for first in range(0, events, PART_EVENTS):
            part = generator.generate(min(PART_EVENTS, events - first), first=first, disorder_us=DISORDER_US)
            filled["events"] += len(part.bids)
            for call in _calls(part.bids, form):
                filled["messages"] += len(queue.send_many(call))
    return filled


def _calls(rows: pa.Table, form: str) -> Iterator[list[headrace.Outgoing | bytes]]:
    if form == "json":
        bodies = generator.messages(rows)
        for start in range(0, len(bodies), JSON_CALL_MESSAGES):
            yield list(bodies[start : start + JSON_CALL_MESSAGES])
        return
    attributes = {"content-type": ARROW_TYPE}
    streams = arrow_streams(rows, rows_max=10_000, bytes_max=BODY_BYTES_MAX)
    at_once = CALL_BYTES_MAX // BODY_BYTES_MAX
    for start in range(0, len(streams), at_once):
        yield [headrace.Outgoing(body, attributes=attributes) for body in streams[start : start + at_once]]


def run(url: str, form: str, query: str, spawned_s: float) -> None:
    """Everything exactly once: acknowledged, state, and rows into a queue of the same format, in one commit a batch."""
    sink = hs.queue(f"{query}-out", format="arrow" if form == "arrow" else "json")
    pipeline = queries.pipeline(query, sink=sink)
    watch = Stopwatch(spawned_s)
    result = pipeline.run(url, until="end", batch_rows=PART_EVENTS)
    watch.stop(result.rows_out).print()


def serve(url: str) -> None:
    """Windows of the queue `ticks` into the queue `windows`."""
    ticks = hs.queue("ticks", schema="n bigint, ts timestamp").with_watermark("ts", delay="0 seconds")
    text = f"SELECT window_end, count(*) AS n FROM ticks GROUP BY tumble(ts, '{LATENCY_WINDOW_MS} milliseconds')"
    pipeline = hs.pipeline("latency", hs.sql(text, ticks=ticks), sink=hs.queue("windows"))
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    print(json.dumps("begins"), flush=True)
    pipeline.run(url, stop=stop)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("fill", "run", "serve"))
    parser.add_argument("url")
    parser.add_argument("form", nargs="?", default="json")
    parser.add_argument("which", nargs="?", default="")
    parser.add_argument("--spawned-s", type=float, default=time.monotonic())
    given = parser.parse_args()
    arrow_memory.choose_allocator()  # as `headrace stream run` does
    if given.what == "fill":
        print(json.dumps(fill(given.url, given.form, int(given.which))))
    elif given.what == "run":
        run(given.url, given.form, given.which, given.spawned_s)
    else:
        serve(given.url)


if __name__ == "__main__":
    main()
