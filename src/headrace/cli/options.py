"""Options and argument types that several commands share, so that sister commands name things alike."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from headrace.native.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

BROKER_DEFAULT: Final = "http://127.0.0.1:9324"

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def duration(value: str | float) -> float:
    """Seconds: a number, or a number with ms, s, m, h or d. An argument type."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", str(value), re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is no time; write 30, 30s, 5m, 12h or 4d")
    return float(match[1]) * _UNITS[match[2]]


def pair(value: str) -> tuple[str, str]:
    """NAME=VALUE. An argument type."""
    name, equals, text = value.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE")
    return name, text


def broker_option(command: Command) -> Command:
    return click.option(
        "--broker",
        "target",
        metavar="URL|DIR",
        envvar="HEADRACE_BROKER",
        default=BROKER_DEFAULT,
        show_default=True,
        show_envvar=True,
        help="The broker: http://HOST:PORT, unix:///PATH, or its data folder.",
    )(command)


def output_option(command: Command) -> Command:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "jsonl"]),
        help="How to print. By default a table on a terminal, JSON elsewhere.",
    )(command)


def yes_option(command: Command) -> Command:
    return click.option("--yes", is_flag=True, help="Do not ask for its name.")(command)


def queue_argument(command: Command) -> Command:
    return click.argument("name", metavar="QUEUE", shell_complete=complete_queues)(command)


def open_client(target: str) -> Client:
    """A client that tries once: a person waits for it. Keys come from the environment, never from the command line.

    Raises:
        UsageError: a folder that is none, or empty. Opening it would make a store there, by a slip of the pen.
    """
    from headrace.native.client import connect  # noqa: PLC0415 - help and completion need no client

    if "://" not in target and not (Path(target).is_dir() and any(Path(target).iterdir())):
        raise click.UsageError(f"--broker {target}: this is neither a URL nor a folder with a store in it")
    return connect(target, patience=0, key=key_of_environ())


def key_of_environ() -> tuple[str, str] | None:
    """Access key and secret key, for a broker that has keys."""
    access_key, secret_key = os.environ.get("HEADRACE_ACCESS_KEY"), os.environ.get("HEADRACE_SECRET_KEY")
    return (access_key, secret_key) if access_key and secret_key else None


def complete_queues(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the broker's queues, for the shell; none if it cannot be asked."""
    from headrace.errors import HeadraceError  # noqa: PLC0415 - as in open_client

    try:
        with open_client(ctx.params.get("target") or BROKER_DEFAULT) as client:
            return [queue.name for queue in client.queues(incomplete)]
    except (HeadraceError, click.ClickException):
        return []


def confirm_name(name: str, consequence: str, *, yes: bool) -> None:
    """Ask for a name before something that cannot be undone.

    Raises:
        UsageError: nobody can be asked.
        Abort: another name was typed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{consequence} Pass --yes to do it without being asked.")
    click.secho(consequence, fg="yellow", err=True)
    if click.prompt("Type its name to go on", err=True) != name:
        click.echo("That is another name; nothing was done.", err=True)
        raise click.Abort
