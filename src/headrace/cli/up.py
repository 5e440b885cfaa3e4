"""`headrace up`: run everything that headrace.toml names."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from headrace.cli.setting_options import setting_options
from headrace.errors import HeadraceError
from headrace.settings import SettingsError
from headrace.up_settings import UpSettings

if TYPE_CHECKING:
    from headrace.up.plan import Plan
    from headrace.up.supervisor import Supervisor

SECTION: Final = "up"


@click.command()
@setting_options(UpSettings, SECTION)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml  [HEADRACE_CONFIG]"
)
def up(config: Path | None, **flags: Any) -> int:
    """Run everything that headrace.toml names: broker, web, work, streams, console.

    \b
      headrace init shop && cd shop && headrace up

    Each service is a process of its own with the settings that its command would have: [broker] is `headrace broker`, [web]
    `headrace serve`, [worker] `headrace worker`, [stream.NAME] `headrace stream run`, [console] `headrace console`. One that
    ends is started again; one that keeps ending does not hinder the others. One log, with the service's name in front.

    TERM or Ctrl-C stops in order, web servers first and the broker last; a second one at once. HUP reads the file anew:
    services that it changes are restarted, without a failed request where that is possible. kill -9 is safe, too. Exit codes:
    0 stopped, 1 failed, 2 set wrongly.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    from headrace.up.plan import make_plan  # noqa: PLC0415 - help and completion need none of it
    from headrace.up.supervisor import InvalidServiceSettings  # noqa: PLC0415

    def read() -> Plan:
        return make_plan(environ=os.environ, folder=Path.cwd(), config=config, flags=flags)

    try:
        return asyncio.run(_run(read(), read))
    except (SettingsError, InvalidServiceSettings) as error:
        raise click.UsageError(str(error)) from None
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None


async def _run(plan: Plan, reread: Callable[[], Plan]) -> int:
    from headrace.up.banner import greet  # noqa: PLC0415 - as in up
    from headrace.up.lines import Handler, Lines  # noqa: PLC0415
    from headrace.up.supervisor import Supervisor  # noqa: PLC0415

    text = plan.up.log_format == "text" or (plan.up.log_format == "auto" and sys.stderr.isatty())
    lines = Lines(sys.stderr, text=text)
    logger = logging.getLogger("headrace")
    logger.handlers[:] = [Handler(lines)]
    logger.setLevel(plan.up.log_level.upper())
    logger.propagate = False
    on_ready: Callable[[Supervisor], None] = greet if sys.stdout.isatty() else lambda _: None
    return await Supervisor(plan, reread=reread, lines=lines, on_ready=on_ready).run()
