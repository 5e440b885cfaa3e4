"""Procrastinate: jobs that do nothing, deferred ten at a time and run by its worker, both in this process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import Any, Final

from benchmarks.postgres.clients import window

BATCH: Final = 10
AHEAD: Final = 500  # deferred and not yet run: more only makes the table longer


async def main() -> None:
    given = window.arguments()
    procrastinate: Any = importlib.import_module("procrastinate")
    connector = procrastinate.PsycopgConnector(conninfo=given.address, min_size=2, max_size=20)
    app = procrastinate.App(connector=connector)
    counts = {"sent": 0, "run": 0}

    @app.task(name="nothing", pass_context=False)  # type: ignore[untyped-decorator]
    async def nothing(text: str) -> None:
        counts["run"] += len(text) > 0

    async def defer() -> None:
        while True:
            if given.mode == "cycle" and counts["sent"] - counts["run"] > AHEAD:
                await asyncio.sleep(0.001)
                continue
            await nothing.batch_defer_async(*[{"text": "x" * 256}] * BATCH)
            counts["sent"] += BATCH

    async with app.open_async():
        if not await app.check_connection_async():  # the tables are not there yet
            await app.schema_manager.apply_schema_async()
        tasks = [asyncio.create_task(defer()) for _ in range(4)]
        if given.mode == "cycle":
            running = app.run_worker_async(
                concurrency=given.connections, delete_jobs="always", install_signal_handlers=False
            )
            tasks.append(asyncio.create_task(running))
        for seconds in (given.warmup, given.seconds):
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            window.tell(counts["run" if given.mode == "cycle" else "sent"])
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    asyncio.run(main())
