"""`headrace broker`: run the broker."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from headrace import logs
from headrace.broker_settings import BrokerSettings
from headrace.cli.setting_options import setting_options
from headrace.errors import HeadraceError
from headrace.node import Endpoint, run_broker
from headrace.settings import SettingsError, resolve
from headrace.sqs.keys import KeysUnusable

SECTION = "broker"


@click.command()
@setting_options(BrokerSettings, SECTION)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml  [HEADRACE_CONFIG]"
)
def broker(config: Path | None, **flags: Any) -> int:
    """Run the broker: a durable queue server that speaks the SQS API.

    \b
      headrace broker --data ./data
      aws sqs create-queue --queue-name hello --endpoint-url http://127.0.0.1:9324

    Every option can also be set in the environment (the name in brackets) or in headrace.toml, table [broker]. Flags
    win over the environment, the environment over the file.

    TERM or Ctrl-C stops in order: what was accepted is answered, long polls end empty, the store is closed. HUP reads
    keys and certificates anew. Exit codes: 0 stopped, 1 failed, 2 set wrongly.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    try:
        found = resolve(BrokerSettings, SECTION, flags=flags, environ=os.environ, folder=Path.cwd(), config=config)
        settings = found.settings
        logs.configure(sys.stderr, form=settings.log_format, level=settings.log_level)
        on_ready = _greet if sys.stdout.isatty() else _say_nothing
        return run_broker(settings, on_ready=on_ready, origins=found.origins)
    except (SettingsError, KeysUnusable) as error:
        raise click.UsageError(str(error)) from None
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None


def _say_nothing(endpoint: Endpoint) -> None:
    """Nobody reads: the log line is enough."""


def _greet(endpoint: Endpoint) -> None:
    url = endpoint.url
    bold, plain = ("\x1b[1m", "\x1b[0m") if not os.environ.get("NO_COLOR") else ("", "")
    lines = (
        "",
        f"  {bold}headrace{plain} serves SQS at {bold}{url}{plain}",
        f"  a queue's URL     {url}/000000000000/QUEUE",
        f"  with the aws CLI  aws sqs list-queues --endpoint-url {url}",
        f"  with headrace     headrace queue ls --broker {url}",
        f"  Unix socket       {endpoint.socket or 'none'}",
        "  Ctrl-C stops; nothing that was accepted is lost.",
        "",
    )
    click.echo("\n".join(lines))
