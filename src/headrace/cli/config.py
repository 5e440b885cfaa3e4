"""`headrace config`: what the settings file, the environment and the defaults come to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli.options import output_option
from headrace.cli.output import print_rows
from headrace.cli.queue import OrderedGroup
from headrace.settings import SettingsError, resolve

if TYPE_CHECKING:
    from headrace.up.plan import Plan

_CONFIG = click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml"
)


@click.group(cls=OrderedGroup)
def config() -> None:
    """Look at the settings: what is in force and where it was written, whether the file is right, what there is."""


@click.command("show")
@click.argument("names", metavar="[SERVICE]...", nargs=-1)
@click.option("--origin", is_flag=True, help="Defaults, too, and where each value was written.")
@_CONFIG
@output_option
def show(names: tuple[str, ...], origin: bool, file: Path | None, output: str | None) -> None:
    """Show the settings of the services that the file names, or of these: `web`, `stream.totals`.

    Without --origin only what differs from the default.
    """
    rows = [row for row in _rows(_plan(file), set(names)) if origin or row["origin"] != "default"]
    columns = ["service", "key", "value", *(["origin"] if origin else [])]
    print_rows(rows, output, columns, none="Every setting has its default; --origin shows them.")


@click.command("validate")
@_CONFIG
def validate(file: Path | None) -> None:
    """Check the file as `headrace up` would, without starting anything. Exit codes: 0 right, 2 wrong."""
    plan = _plan(file)
    click.echo(f"{plan.file} is right: {', '.join(service.name for service in plan.services)}")


@click.command("reference")
def reference() -> None:
    """Print every section and key, with defaults and meaning, as Markdown."""
    from headrace.up.reference import reference as text  # noqa: PLC0415 - loads the settings of all systems

    click.echo(text())


def _plan(file: Path | None) -> Plan:
    from headrace.up.plan import make_plan  # noqa: PLC0415 - as above

    try:
        return make_plan(environ=os.environ, folder=Path.cwd(), config=file)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _rows(plan: Plan, names: set[str]) -> Iterator[dict[str, Any]]:
    unknown = names - {service.name for service in plan.services}
    if unknown:
        known = ", ".join(service.name for service in plan.services)
        raise click.UsageError(f"{plan.file} names no service {min(unknown)!r}; it has {known}")
    for service in plan.services:
        if names and service.name not in names:
            continue
        found = resolve(type(service.settings), service.section, flags={}, environ=service.environ, folder=Path.cwd())
        for key, value in msgspec.to_builtins(found.settings, enc_hook=str).items():
            origin = found.origins[key]
            written = os.environ.get(origin) is not None or not origin.startswith("HEADRACE_")
            yield {"service": service.name, "key": key, "value": value, "origin": origin if written else "headrace up"}


for command in (show, validate, reference):
    config.add_command(command)
