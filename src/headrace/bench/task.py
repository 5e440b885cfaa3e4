"""`headrace worker` with one process: how many tasks that do nothing it runs, and how soon one is done."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from headrace.bench.running import Measured, Progress, broker, cpu_s, cpu_since, measured, process
from headrace.bench.task_app import make_app
from headrace.children import ending
from headrace.errors import StoreUnusable
from headrace.native.aio import connect_async
from headrace.native.aio_queue import AsyncQueue
from headrace.work.task import Task

WORKER: Final = ["worker", "headrace.bench.task_app:app", "--processes", "1"]
WARM: Final = 0.1
"""Of the tasks: not counted, so that the worker's start is not."""
LOOK_S: Final = 0.01
WITHIN_S: Final = 120.0


def measure_task(folder: Path, *, tasks: int, seconds: float, progress: Progress) -> list[Measured]:
    """Measure a worker of one process beside a broker with a new data folder in `folder`.

    Args:
        tasks: that wait when the worker starts; at least 10.
        seconds: for tasks that are sent one by one, each waited for.

    Raises:
        StoreUnusable: broker or worker did not come up, or have not run all tasks in two minutes.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=folder) as name:
        return asyncio.run(_measure(Path(name).absolute(), tasks, seconds, progress))


async def _measure(folder: Path, tasks: int, seconds: float, progress: Progress) -> list[Measured]:
    data = folder / "data"
    async with broker(data) as store, connect_async(data) as client:
        app, nothing, waited = make_app(data)
        try:
            handles = await nothing.asend_many(() for _ in range(tasks))
            queue = await client.queue(handles[0].queue)
            async with process([*WORKER, "--broker", str(data)], folder, lambda: True) as worker:
                many = await _run_all(queue, tasks, worker, store, progress)
                return [many, await _one_by_one(waited, seconds, progress)]
        finally:
            app.close()


async def _run_all(
    queue: AsyncQueue, tasks: int, worker: subprocess.Popen[bytes], store: subprocess.Popen[bytes], progress: Progress
) -> Measured:
    pids = [worker.pid, store.pid]
    began_s, before = time.perf_counter(), [cpu_s(pid) for pid in pids]
    warm = await _done(queue, int(tasks * WARM), tasks, worker, progress)
    if warm < tasks:
        began_s, before = time.perf_counter(), [cpu_s(pid) for pid in pids]
    else:  # all of them have run before it was looked: the start counts, too
        warm = 0
    done = await _done(queue, tasks, tasks, worker, progress) - warm
    passed_s = time.perf_counter() - began_s
    return measured("run", 1, done, [], passed_s, cpu_s=cpu_since(pids, before))


async def _done(queue: AsyncQueue, number: int, tasks: int, worker: subprocess.Popen[bytes], progress: Progress) -> int:
    """Until so many have run. Returns how many have."""
    deadline_s = time.monotonic() + WITHIN_S
    while (done := (await queue.counts()).deleted) < number:
        progress("tasks", done, tasks)
        code = worker.poll()
        if code is not None or time.monotonic() > deadline_s:
            why = f"not in {WITHIN_S:g} s" if code is None else f"its worker has ended: {ending(code)}"
            raise StoreUnusable(queue.name, f"{done:,} of {tasks:,} tasks were run; {why}")
        await asyncio.sleep(LOOK_S)
    progress("tasks", done, tasks)
    return done


async def _one_by_one(task: Task[[], None], seconds: float, progress: Progress) -> Measured:
    """One task at a time: sent durably, run, its result kept durably, and read."""
    progress("one by one", 0, 1)
    times: list[float] = []
    started, ended = time.perf_counter(), 0.0
    while ended < started + seconds:
        begun = time.perf_counter()
        await (await task.asend()).aresult(WITHIN_S)
        ended = time.perf_counter()
        times.append(ended - begun)
    progress("one by one", 1, 1)
    return measured("send to done", 1, len(times), times, time.perf_counter() - started)
