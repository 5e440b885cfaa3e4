"""The broker as a process of its own, over its Unix socket: sends, batches, and the whole life of a message."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace.children import spawn, wait_ready
from headrace.doctor.disk import percentile, sync_times
from headrace.errors import StoreUnusable
from headrace.native.aio import connect_async
from headrace.native.aio_queue import AsyncQueue
from headrace.native.endpoint import is_served

BODY: Final = b"x" * 256
BATCH: Final = 100
START_S: Final = 30.0
STOP_S: Final = 20.0
Progress = Callable[[str, int, int], None]
Step = Callable[[AsyncQueue], Awaitable[int]]


class Measured(msgspec.Struct, frozen=True):
    """What one kind of call did.

    Attributes:
        clients: how many called at once.
        a_second: messages; syncs, for the disk.
        p50_ms, p99_ms, max_ms: how long a call took.
    """

    what: str
    clients: int
    a_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float


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
        disk = _measured("sync 4 KiB", 1, len(syncs), syncs, time.perf_counter() - started)
        return [disk, *asyncio.run(_measure(Path(data) / "data", seconds, clients, progress))]


async def _measure(data: Path, seconds: float, clients: int, progress: Progress) -> list[Measured]:
    steps: dict[str, Step] = {"send": _send, f"send {BATCH}": _send_batch, "send, receive, delete": _cycle}
    found = []
    async with _broker(data), connect_async(data) as client:
        for index, (what, step) in enumerate(steps.items()):
            progress("calls", index, len(steps))
            queue = await client.queue(f"bench-{index}", create=True)
            found.append(await _run(what, step, queue, seconds, clients))
        progress("calls", len(steps), len(steps))
    return found


@asynccontextmanager
async def _broker(data: Path) -> AsyncIterator[None]:
    process = spawn(["broker", "--data", str(data), "--port", "0", "--log-level", "error"])
    try:
        await wait_ready(lambda: is_served(data), process, within_s=START_S)
        if not is_served(data):
            raise StoreUnusable(
                str(data), f"its broker did not answer in {START_S:g} s; is the path too long for a socket?"
            )
        yield
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _run(what: str, step: Step, queue: AsyncQueue, seconds: float, clients: int) -> Measured:
    """So many clients, each one call after another, for so long."""
    times: list[float] = []
    started = time.perf_counter()

    async def one() -> int:
        messages = 0
        while (begun := time.perf_counter()) < started + seconds:
            messages += await step(queue)
            times.append(time.perf_counter() - begun)
        return messages

    messages = sum(await asyncio.gather(*[one() for _ in range(clients)]))
    return _measured(what, clients, messages, sorted(times), time.perf_counter() - started)


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


def _measured(what: str, clients: int, count: int, ordered: list[float], passed_s: float) -> Measured:
    p50, p99, most = (round(percentile(ordered, part) * 1e3, 3) for part in (0.5, 0.99, 1.0))
    return Measured(what, clients, round(count / passed_s, 1), p50, p99, most)
