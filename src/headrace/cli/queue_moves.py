"""`headrace queue redrive|move-status`: dead letters on their way back."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from headrace.cli import output as out
from headrace.cli.options import broker_option, open_client, output_option, queue_argument

if TYPE_CHECKING:
    from headrace.native.queue import Queue
    from headrace.queue.model import MoveTask

LOOK_EVERY_S = 0.25
RUNNING = ("RUNNING", "CANCELLING")
COLUMNS = ("status", "moved", "to_move", "source", "target", "rate_max", "failure")


@click.command()
@queue_argument
@click.option("--to", metavar="QUEUE", help="Where to; by default each message to the queue that it came from.")
@click.option("--rate", type=click.IntRange(1, 500), help="Messages a second; by default as fast as it goes.")
@click.option("--no-wait", is_flag=True, help="Return at once; the broker goes on, `move-status` tells how far it is.")
@click.option("--cancel", is_flag=True, help="Stop the redrive that is running; what has moved stays moved.")
@broker_option
@output_option
def redrive(
    name: str, to: str | None, rate: int | None, no_wait: bool, cancel: bool, target: str, output: str | None
) -> None:
    """Move dead letters back to where they came from.

    QUEUE is the dead-letter queue. The broker does it; interrupting this command does not stop it.
    """
    with open_client(target) as client:
        queue = client.queue(name)
        if cancel:
            task = client.cancel_move(_running(queue))
        else:
            task = queue.redrive(to, rate=rate)
            if not no_wait:
                task = _watch(queue, task)
    out.print_row(_row(task), output)


@click.command("move-status")
@queue_argument
@click.option(
    "-n", "--max", "limit", type=click.IntRange(1, 10), default=10, show_default=True, help="At most so many."
)
@broker_option
@output_option
def move_status(name: str, limit: int, target: str, output: str | None) -> None:
    """Show the redrives of a queue, newest first."""
    with open_client(target) as client:
        tasks = client.queue(name).moves(limit)
    out.print_rows([_row(task) for task in tasks], output, COLUMNS, none=f"Nothing was ever moved from {name}.")


def _running(queue: Queue) -> MoveTask:
    task = next(iter(queue.moves()), None)
    if task is None or task.status != "RUNNING":
        raise click.ClickException(f"no redrive of {queue.name} is running")
    return task


def _watch(queue: Queue, task: MoveTask) -> MoveTask:
    """Follow the task to its end."""
    from headrace.cli.progress import count_progress  # noqa: PLC0415 - only here

    with count_progress(f"moving from {queue.name}") as show:
        while task.status in RUNNING:
            show(task.moved, task.to_move)
            time.sleep(LOOK_EVERY_S)
            task = next(seen for seen in queue.moves(10) if seen.started_ms == task.started_ms)
        show(task.moved, task.to_move)
    return task


def _row(task: MoveTask) -> out.Row:
    from headrace.queue.model import short_name  # noqa: PLC0415 - help needs no client

    return {
        "status": task.status,
        "moved": task.moved,
        "to_move": task.to_move,
        "source": short_name(task.source),
        "target": short_name(task.target) if task.target is not None else None,
        "rate_max": task.rate_max,
        "failure": task.failure,
        "handle": task.handle,
        "started_at": out.moment(datetime.fromtimestamp(task.started_ms / 1000, UTC)),
    }
