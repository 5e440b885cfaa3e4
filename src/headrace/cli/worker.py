"""`headrace worker`: run the worker pool."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from headrace import logs
from headrace.cli.setting_options import setting_options
from headrace.errors import HeadraceError
from headrace.settings import SettingsError, resolve
from headrace.worker_settings import WorkerSettings

SECTION: Final = "worker"

_SHORT: Final = {"processes": ("-p",), "threads": ("-t",), "queues": ("-Q",), "app_dir": ("--chdir",)}


@click.command()
@click.argument("app", metavar="MODULE:APP", required=False)
@setting_options(WorkerSettings, SECTION, without=("app",), short=_SHORT)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml  [HEADRACE_CONFIG]"
)
def worker(config: Path | None, **flags: Any) -> int:
    """Run an app's tasks and consumers in worker processes.

    \b
      headrace worker shop.tasks:app                             one process, 8 threads
      headrace worker shop.tasks:app --processes 4 --queues mail,tasks
      headrace worker shop.tasks:app --broker ./data             starts a broker there if none runs

    A process takes from the broker only what it can begin: everything else waits there, for whoever is free. Tasks of a
    process that dies are given to others at once.

    TERM or Ctrl-C stops in order: nothing is fetched any more, what runs may finish within --drain, the rest is given
    back. HUP loads new code and settings, process by process; TTIN and TTOU add and remove a process. Exit codes: 0
    stopped, 1 failed, 2 set wrongly.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    folder = Path.cwd()
    flags["queues"] = tuple(name for names in flags["queues"] or () for name in names.split(",") if name)

    def read() -> WorkerSettings:
        return resolve(WorkerSettings, SECTION, flags=flags, environ=os.environ, folder=folder, config=config).settings

    try:
        settings = read()
        if not settings.app:
            raise click.UsageError(
                "name the app: headrace worker module:app (or `app` in headrace.toml, table [worker])"
            )
        from headrace.managed_broker import check_broker  # noqa: PLC0415 - help and completion need no pool
        from headrace.work.pool.run import run_pool  # noqa: PLC0415

        check_broker(settings.broker)
        logs.configure(sys.stderr, form=settings.log_format, level=settings.log_level)

        return run_pool(settings, reread=read)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None
