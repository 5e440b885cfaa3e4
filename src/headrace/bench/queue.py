"""The broker as a process of its own, over its Unix socket: sends, batches, and the whole life of a message."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from headrace.bench.running import Measured, Progress, broker, measured
from headrace.doctor.disk import sync_times
from headrace.native.aio import connect_async
from headrace.native.aio_queue import AsyncQueue

BODY: Final = b"x" * 256
BATCH: Final = 100
Step = Callable[[AsyncQueue], Awaitable[int]]


def measure_queue(folder: Path, *, seconds: float, clients: int, progress: Progress) -> list[Measured]:
    """Measure the disk of `folder`, and a broker with a new data folder in there.

    Args:
        seconds: for each of the three kinds of call.
        clients: tasks that call at once, each one call at a time.

    Raises:
        StoreUnusable: the broker did not come up.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=folder) as data:
        started = time.perf_counter()
        syncs = sync_times(Path(data), progress=lambda done, total: progress("syncs", done, total))
        disk = measured("sync 4 KiB", 1, len(syncs), syncs, time.perf_counter() - started)
        return [disk, *asyncio.run(_measure(Path(data).absolute() / "data", seconds, clients, progress))]


async def _measure(data: Path, seconds: float, clients: int, progress: Progress) -> list[Measured]:
    steps: dict[str, Step] = {"send": _send, f"send {BATCH}": _send_batch, "send, receive, delete": _cycle}
    found = []
    async with broker(data), connect_async(data) as client:
        for index, (what, step) in enumerate(steps.items()):
            progress("calls", index, len(steps))
            queue = await client.queue(f"bench-{index}", create=True)
            found.append(await _run(what, step, queue, seconds, clients))
        progress("calls", len(steps), len(steps))
    return found


async def _run(what: str, step: Step, queue: AsyncQueue, seconds: float, clients: int) -> Measured:
    """So many clients, each one call after another, for so long; one at least."""
    times: list[float] = []
    started = time.perf_counter()

    async def one() -> int:
        messages, ended = 0, 0.0
        while ended < started + seconds:
            begun = time.perf_counter()
            messages += await step(queue)
            ended = time.perf_counter()
            times.append(ended - begun)
        return messages

    messages = sum(await asyncio.gather(*[one() for _ in range(clients)]))
    return measured(what, clients, messages, times, time.perf_counter() - started)


async def _send(queue: AsyncQueue) -> int:
    await queue.send(BODY)
    return 1


async def _send_batch(queue: AsyncQueue) -> int:
    return len(await queue.send_many([BODY] * BATCH))


async def _cycle(queue: AsyncQueue) -> int:
    await queue.send(BODY)
    received = await queue.receive(1, wait=0)
    await queue.delete(received)
    return len(received)
