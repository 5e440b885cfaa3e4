"""Pipelines that count in tumbling windows: in memory, from a durable queue, and how late a window comes at a low rate."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

import headrace.stream as hs
from headrace.bench.running import Measured, Progress, broker, measured
from headrace.errors import StoreUnusable
from headrace.native.aio import connect_async
from headrace.native.aio_queue import AsyncQueue
from headrace.native.client import connect
from headrace.native.messages import Outgoing
from headrace.stream.formats.decoding import ARROW_TYPE
from headrace.stream.formats.encoding import arrow_streams

SCHEMA: Final = "n bigint, ts timestamp"
KEYS: Final = 100
ROWS_PER_S: Final = 10_000
"""Of event time: a window of a second has so many rows."""
BATCH_ROWS: Final = 50_000
WARM_ROWS: Final = 1_000
"""Counted beforehand: DuckDB loads what it needs."""
BODY_ROWS: Final = 10_000
BODY_BYTES_MAX: Final = 1_000_000
TICK_S: Final = 0.02
WINDOW_S: Final = 0.1
WARM: Final = 5
"""Windows not counted: the pipeline starts."""
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
COUNT: Final = "SELECT window_end, n % {keys} AS k, count(*) AS c FROM rows GROUP BY tumble(ts, '1 second'), n % {keys}"
TICKS: Final = "SELECT window_end, count(*) AS c FROM ticks GROUP BY tumble(ts, '{ms} milliseconds')"


def measure_stream(folder: Path, *, rows: int, seconds: float, progress: Progress) -> list[Measured]:
    """Measure pipelines in this process, and a broker with a new data folder in `folder`.

    Args:
        rows: counted in memory, and once more from a queue.
        seconds: of ticks, 50 a second, whose windows of 100 ms are waited for.

    Raises:
        StoreUnusable: the broker did not come up, or no window came out.
    """
    progress("cases", 0, 3)
    _in_memory(WARM_ROWS)
    found = [_in_memory(rows)]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=folder) as name:
        return found + asyncio.run(_durable(Path(name).absolute() / "data", rows, seconds, progress))


async def _durable(data: Path, rows: int, seconds: float, progress: Progress) -> list[Measured]:
    async with broker(data):
        progress("cases", 1, 3)
        counted = await asyncio.to_thread(_from_queue, data, rows)
        progress("cases", 2, 3)
        late = await _latency(data, seconds)
        progress("cases", 3, 3)
        return [counted, late]


def _in_memory(rows: int) -> Measured:
    stream = hs.memory(SCHEMA, _tables(rows), name="rows").with_watermark("ts", delay="0 seconds")
    return _timed("count in memory", _counting(stream, hs.callback(lambda _batch, _table: None)), None, rows)


def _from_queue(data: Path, rows: int) -> Measured:
    """Acknowledged, state and results in one durable commit a batch."""
    attributes = {"content-type": ARROW_TYPE}
    with connect(data) as client:
        queue = client.queue("rows", create=True)
        for table in _tables(rows):
            bodies = arrow_streams(table, rows_max=BODY_ROWS, bytes_max=BODY_BYTES_MAX)
            queue.send_many([Outgoing(body, attributes=attributes) for body in bodies])
    stream = hs.queue("rows", schema=SCHEMA, format="arrow").with_watermark("ts", delay="0 seconds")
    return _timed("count from a queue", _counting(stream, hs.queue("counts", format="arrow")), data, rows)


def _counting(rows: hs.Stream, sink: hs.Sink) -> hs.Pipeline:
    return hs.pipeline("bench", hs.sql(COUNT.format(keys=KEYS), rows=rows), sink=sink)


def _timed(what: str, pipeline: hs.Pipeline, data: Path | None, rows: int) -> Measured:
    started, cpu = time.perf_counter(), time.process_time()
    pipeline.run(data, until="end", batch_rows=BATCH_ROWS)
    return measured(what, 1, rows, [], time.perf_counter() - started, cpu_s=time.process_time() - cpu)


def _tables(rows: int) -> Iterator[pa.Table]:
    for first in range(0, rows, BATCH_ROWS):
        numbers = np.arange(first, min(first + BATCH_ROWS, rows), dtype=np.int64)
        times = pa.array(numbers * (1_000_000 // ROWS_PER_S)).cast(pa.timestamp("us", tz="UTC"))
        yield pa.table({"n": pa.array(numbers), "ts": times})


async def _latency(data: Path, seconds: float) -> Measured:
    """From when a window's end has passed, by the first tick behind it, to when its row is received."""
    async with connect_async(data) as client:
        ticks, windows = [await client.queue(name, create=True) for name in ("ticks", "windows")]
        async with _pipeline(data):
            due: dict[int, float] = {}
            receiving = asyncio.create_task(_receive(windows, due, int(seconds / WINDOW_S)))
            started = time.perf_counter()
            await _send(ticks, due, receiving)
            took = (await receiving)[WARM:]
    return measured("window at 50 rows/s", 1, len(took), took, time.perf_counter() - started)


@asynccontextmanager
async def _pipeline(data: Path) -> AsyncIterator[None]:
    source = hs.queue("ticks", schema=SCHEMA).with_watermark("ts", delay="0 seconds")
    text = TICKS.format(ms=int(WINDOW_S * 1e3))
    pipeline = hs.pipeline("bench-ticks", hs.sql(text, ticks=source), sink=hs.queue("windows"))
    stop = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(pipeline.run, data, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def _send(ticks: AsyncQueue, due: dict[int, float], receiving: asyncio.Task[list[float]]) -> None:
    """A tick each 20 ms, until all windows have come. Event time is counted from 0: a window's end is its key in `due`."""
    started, number, window_us = time.perf_counter(), 0, int(WINDOW_S * 1e6)
    while not receiving.done():
        await asyncio.sleep(max(0.0, started + number * TICK_S - time.perf_counter()))
        at_us = round(number * TICK_S * 1e6)
        due.setdefault(at_us // window_us * window_us, started + number * TICK_S)
        time_text = (EPOCH + dt.timedelta(microseconds=at_us)).isoformat()
        await ticks.send(json.dumps({"n": number, "ts": time_text}).encode())
        number += 1


async def _receive(windows: AsyncQueue, due: dict[int, float], count: int) -> list[float]:
    """How late each window came, in seconds, until there are `count` beside the first ones."""
    took: list[float] = []
    while len(took) < count + WARM:
        messages = await windows.receive(100, wait=20)
        if not messages:
            raise StoreUnusable("windows", f"no window came in 20 s, behind the {len(took)} that did")
        now = time.perf_counter()
        ends = [dt.datetime.fromisoformat(json.loads(message.body)["window_end"]) for message in messages]
        took += [now - due[(end - EPOCH) // dt.timedelta(microseconds=1)] for end in ends]
        await windows.delete(messages)
    return took
