"""`headrace broker`: run the broker."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headrace import logs
from headrace.broker_settings import BrokerSettings
from headrace.errors import HeadraceError
from headrace.node import Endpoint, run_broker
from headrace.settings import Setting, SettingsError, describe, resolve
from headrace.sqs.keys import KeysUnusable

SECTION = "broker"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each setting. Values stay text: `settings.resolve` checks them, wherever they come from."""
    for setting in reversed(describe(BrokerSettings, SECTION)):
        command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = f"{setting.help}  [{setting.variable}]"
    if setting.switch:
        return click.option(setting.flag, setting.name, is_flag=True, default=None, help=text)
    default = f"  [default: {setting.default}]" if setting.default else ""
    choices = click.Choice(setting.kind.split("|")) if "|" in setting.kind else click.STRING
    metavar = None if "|" in setting.kind else setting.kind.upper()
    multiple = setting.repeated
    return click.option(
        setting.flag, setting.name, type=choices, metavar=metavar, multiple=multiple, default=None, help=text + default
    )


@click.command()
@_options
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
        settings = resolve(
            BrokerSettings, SECTION, flags=flags, environ=os.environ, folder=Path.cwd(), config=config
        ).settings
        logs.configure(sys.stderr, form=settings.log_format, level=settings.log_level)
        return run_broker(settings, on_ready=_greet if sys.stdout.isatty() else _say_nothing)
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
