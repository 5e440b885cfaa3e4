"""`headrace bench`: what this machine does."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from headrace.cli.options import duration, output_option
from headrace.cli.output import print_rows
from headrace.cli.progress import stage_progress
from headrace.cli.queue import OrderedGroup


@click.group(cls=OrderedGroup)
def bench() -> None:
    """Measure this machine in some twenty seconds, with processes and folders of its own. Nothing is left behind."""


@click.command("queue")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Where the temporary data folder is made: on the disk that is to be measured. Default: here.",
)
@click.option("--time", "seconds", type=duration, default="6s", show_default=True, help="For each kind of call.")
@click.option("--clients", type=click.IntRange(1, 1_000), default=32, show_default=True, help="That call at once.")
@output_option
def queue(folder: Path, seconds: float, clients: int, output: str | None) -> None:
    """Measure a broker: syncs of the disk, durable sends, sends of 100, and the whole life of a message.

    Messages have 256 bytes. The clients share one process, so at many clients the figure may be theirs.
    """
    from headrace.bench.queue import measure_queue  # noqa: PLC0415 - help needs none of it

    with stage_progress() as progress:
        found = measure_queue(folder, seconds=seconds, clients=clients, progress=progress)
    columns = ("what", "clients", "a_second", "p50_ms", "p99_ms", "max_ms")
    print_rows([msgspec.to_builtins(one) for one in found], output, columns, none="")


bench.add_command(queue)
