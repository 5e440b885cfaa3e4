"""`headrace console`: the page where one sees, and helps."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from headrace import logs
from headrace.cli.options import key_of_environ
from headrace.cli.setting_options import setting_options
from headrace.console_settings import ConsoleSettings
from headrace.errors import HeadraceError
from headrace.settings import SettingsError, resolve

SECTION: Final = "console"


@click.command()
@setting_options(ConsoleSettings, SECTION)
@click.option(
    "--hash-password",
    is_flag=True,
    help="Ask for a password (or read a line of stdin), print what the users file has of it, and end.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml  [HEADRACE_CONFIG]"
)
def console(config: Path | None, hash_password: bool, **flags: Any) -> int:
    """Run the console: queues, dead letters, tasks, pipelines and the web server in a browser, live.

    \b
      headrace broker --data ./data
      headrace console --broker ./data       then open http://127.0.0.1:9325

    It is a client of the broker and may be started and stopped at any time. On other addresses than loopback ones it needs
    --users and TLS. Every option can also be set in the environment (the name in brackets) or in headrace.toml, table
    [console]. A broker with keys is asked with HEADRACE_ACCESS_KEY and HEADRACE_SECRET_KEY.

    TERM or Ctrl-C stops it; HUP reads users and certificates anew. Exit codes: 0 stopped, 1 failed, 2 set wrongly.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    from headrace.console import access, server  # noqa: PLC0415 - help needs neither templates nor a loop

    if hash_password:
        click.echo(access.hash_password(_password()))
        return 0
    try:
        settings = _resolve(config, flags)
        logs.configure(sys.stderr, form=settings.log_format, level=settings.log_level)
        on_ready = _greet if sys.stdout.isatty() else _say_nothing
        return server.run_console(settings, key=key_of_environ(), on_ready=on_ready)
    except (SettingsError, access.UsersUnusable) as error:
        raise click.UsageError(str(error)) from None
    except HeadraceError as error:
        raise click.ClickException(str(error)) from None


def _password() -> str:
    """Asked for twice at a terminal; elsewhere the first line of standard input, as scripts give it."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise click.UsageError("--hash-password reads the password from a terminal, or a line of standard input")
    return given


def _resolve(config: Path | None, flags: dict[str, Any]) -> ConsoleSettings:
    """HEADRACE_BROKER, which every command knows, counts where the console is told nothing else."""
    found = resolve(ConsoleSettings, SECTION, flags=flags, environ=os.environ, folder=Path.cwd(), config=config)
    common = os.environ.get("HEADRACE_BROKER")
    if common and found.origins["broker"] == "default":
        flags = {**flags, "broker": common}
        found = resolve(ConsoleSettings, SECTION, flags=flags, environ=os.environ, folder=Path.cwd(), config=config)
    return found.settings


def _say_nothing(url: str) -> None:
    """Nobody reads: the log line is enough."""


def _greet(url: str) -> None:
    bold, plain = ("\x1b[1m", "\x1b[0m") if not os.environ.get("NO_COLOR") else ("", "")
    click.echo(f"\n  The console is at {bold}{url}{plain}\n  Ctrl-C stops it; the broker goes on.\n")
