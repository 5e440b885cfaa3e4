"""`headrace doctor`: facts, a judgement of each, and what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli.options import output_option
from headrace.cli.output import chosen, print_rows

if TYPE_CHECKING:
    from headrace.doctor.lines import Line

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Data folder, instead of the one that the settings name.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml")
@output_option
def doctor(data: Path | None, config: Path | None, output: str | None) -> int:
    """Is this machine, and what is set, fit to run headrace? Each line: what was looked at, the fact, what to do.

    Looks at the data folder, its disk and syncs (it writes some 400 KB), limits, clock, versions, the settings file,
    ports, certificates and keys, and whether a running broker answers. Exit codes: 0 no problem, 1 problems.
    """
    from headrace.doctor.disk import look_at_disk  # noqa: PLC0415 - help needs none of it
    from headrace.doctor.machine import look_at_machine  # noqa: PLC0415
    from headrace.doctor.services import Wanted, look_at_services  # noqa: PLC0415

    wanted = Wanted(os.environ, Path.cwd(), config)
    folder = (data or wanted.data()).expanduser().absolute()
    mounts = Path("/proc/self/mountinfo")
    lines = [
        *look_at_disk(folder, mounts.read_text() if mounts.exists() else ""),
        *look_at_machine(folder),
        *look_at_services(wanted, folder),
    ]
    _print(lines, output)
    return 1 if any(line.level == "problem" for line in lines) else 0


def _print(lines: list[Line], output: str | None) -> None:
    if chosen(output) != "table":
        print_rows([msgspec.to_builtins(line) for line in lines], output, (), none="")
        return
    colour = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        click.secho(f"{line.level:<8}", fg=_COLOURS[line.level], nl=False, color=colour)
        click.echo(f" {line.subject}: {line.fact}")
        if line.advice:
            click.echo(f"{'':<9}→ {line.advice}")
