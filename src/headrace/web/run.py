"""Run the web server until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.process import raise_descriptor_limit
from headrace.web.settings import WebSettings
from headrace.web.stats_aggregator import Ready
from headrace.web.supervisor import Supervisor


def run_web(
    settings: WebSettings, *, reread: Callable[[], WebSettings], on_ready: Callable[[Ready], None] = lambda _: None
) -> int:
    """Returns the exit code.

    Args:
        settings: checked by `headrace.web.check`.
        reread: reads them anew, for HUP. Raises SettingsError.
        on_ready: called once, when requests are served.

    Raises: AddressUnusable, StartFailed, SettingsError: it cannot start.
    """
    raise_descriptor_limit()
    return asyncio.run(_run(settings, reread, on_ready))


async def _run(settings: WebSettings, reread: Callable[[], WebSettings], on_ready: Callable[[Ready], None]) -> int:
    supervisor = Supervisor(settings, reread=reread)
    try:
        on_ready(await supervisor.start())
        return await supervisor.run()
    except BaseException:
        supervisor.kill()
        raise
    finally:
        await supervisor.close()
