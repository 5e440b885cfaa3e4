"""Run the pool on an event loop, to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.work.pool.parent import Parent
from headrace.worker_settings import WorkerSettings


def run_pool(settings: WorkerSettings, *, reread: Callable[[], WorkerSettings]) -> int:
    """Until a signal ends it. Returns the exit code."""

    async def main() -> int:
        return await Parent(settings, reread=reread).run()

    return asyncio.run(main())  # not uvloop: it wants SIGCHLD for itself
