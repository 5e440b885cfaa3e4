"""Run the pool on an event loop, to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.work.pool.parent import Parent
from headrace.work_settings import WorkSettings


def run_pool(settings: WorkSettings, *, reread: Callable[[], WorkSettings]) -> int:
    """Until a signal ends it. Returns the exit code."""

    async def main() -> int:
        return await Parent(settings, reread=reread).run()

    return asyncio.run(main())  # not uvloop: it wants SIGCHLD for itself
