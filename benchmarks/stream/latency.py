"""How late windows come out: messages are sent on time, whatever happens to them (an open loop), and windows received.

A window is due when the first message behind its end was to be sent; it is there when it was received. So all of it
counts: a durable send, the pipeline's batch, its durable commit, and the receive.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import headrace
from benchmarks.stream import running
from benchmarks.stream.plan import LATENCY_PER_S, LATENCY_WINDOW_MS

WARM_S: Final = 2.0
"""Not counted: the pipeline starts, DuckDB loads what it needs."""
END_S: Final = 2.0
"""Waited for the last windows."""
EVERY_S: Final = 1 / LATENCY_PER_S


@dataclass
class LatencyRow:
    """Of windows, in ms; `late_ms`: the p99 of how late the generator itself was."""

    windows: int
    per_s: int
    p50_ms: float
    p99_ms: float
    late_ms: float


@dataclass
class Loop:
    """One run. Times in µs of this process's clock of the wall, which the messages carry as their event time."""

    seconds: float
    due_us: dict[int, int] = field(default_factory=dict)
    took_us: list[int] = field(default_factory=list)
    late_us: list[float] = field(default_factory=list)

    async def run(self, url: str) -> None:
        async with headrace.connect_async(url) as client:
            self._windows = await client.queue("windows", create=True)
            ticks = await client.queue("ticks")
            receiving = asyncio.create_task(self._receive())
            await self._send(ticks)
            await asyncio.sleep(END_S)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _send(self, ticks: headrace.AsyncQueue) -> None:
        loop = asyncio.get_running_loop()
        started_s, started_us = loop.time(), int(dt.datetime.now(dt.UTC).timestamp() * 1_000_000)
        self._count_from_us = started_us + int(WARM_S * 1_000_000)
        self._started_s, self._started_us = started_s, started_us
        sending = set()
        for number in range(int((WARM_S + self.seconds) * LATENCY_PER_S)):
            at_s = number * EVERY_S
            await asyncio.sleep(max(0.0, started_s + at_s - loop.time()))
            self.late_us.append((loop.time() - started_s - at_s) * 1_000_000)
            task = asyncio.create_task(self._tick(ticks, number, started_us + int(at_s * 1_000_000)))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)

    async def _tick(self, ticks: headrace.AsyncQueue, number: int, at_us: int) -> None:
        window_us = LATENCY_WINDOW_MS * 1_000
        end_us = at_us // window_us * window_us  # of the window that this message closes, if it is the first behind it
        self.due_us.setdefault(end_us, at_us)
        await ticks.send(json.dumps({"n": number, "ts": _text(at_us)}).encode())

    async def _receive(self) -> None:
        while True:
            messages = await self._windows.receive(max=100, wait=20)
            now_us = self._started_us + int((asyncio.get_running_loop().time() - self._started_s) * 1_000_000)
            for message in messages:
                end_us = _micros(json.loads(message.body)["window_end"])
                due_us = self.due_us.get(end_us)
                if due_us is not None and due_us >= self._count_from_us:
                    self.took_us.append(now_us - due_us)
            await self._windows.delete(messages)

    def row(self) -> LatencyRow:
        """Raises RuntimeError: too few windows came."""
        if len(self.took_us) < 2:
            raise RuntimeError(f"{len(self.took_us)} windows came out")
        late = statistics.quantiles(self.late_us, n=100)[98]
        took = statistics.quantiles(self.took_us, n=100)
        return LatencyRow(len(self.took_us), LATENCY_PER_S, took[49] / 1_000, took[98] / 1_000, late / 1_000)


def measure(url: str, *, seconds: float, log: Path) -> LatencyRow:
    """Raises RuntimeError: no window came out."""
    with headrace.connect(url) as client:
        client.queue("ticks", create=True)
    with running.started("through_queue", "serve", url, log=log) as process:
        assert process.stdout is not None
        process.stdout.readline()
        loop = Loop(seconds)
        asyncio.run(loop.run(url))
    return loop.row()


def _text(time_us: int) -> str:
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)).isoformat()


def _micros(text: str) -> int:
    moment = dt.datetime.fromisoformat(text)
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
