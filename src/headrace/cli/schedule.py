"""`headrace schedule`: what fires when; pausing, resuming, firing now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from headrace.cli import output as out
from headrace.cli.options import Command, broker_option, confirm_name, open_client, output_option, yes_option
from headrace.cli.queue import OrderedGroup

if TYPE_CHECKING:
    from headrace.work.broker_backend import BrokerBackend
    from headrace.work.schedules import Row

TRIES_MAX = 20
"""Of a change that a firing was faster than."""
COLUMNS = ("schedule", "when", "state", "next_at", "last_at", "task", "queue", "skipped")


@click.group(cls=OrderedGroup)
def schedule() -> None:
    """Look at schedules; pause, resume and fire them.

    Apps declare them (`@app.schedule`, `@app.every`); workers fire them. Every command takes --broker URL|DIR (or
    HEADRACE_BROKER) and -o table|json|jsonl.
    """


def _name_argument(command: Command) -> Command:
    return click.argument("name", metavar="SCHEDULE")(command)


@click.command("ls")
@broker_option
@output_option
def ls(target: str, output: str | None) -> None:
    """List schedules: when each fires next and fired last."""
    from headrace.work.scheduler import read_rows  # noqa: PLC0415 - help needs no tasks

    with _backend(target) as backend:
        rows = [_row(row) for row, _ in read_rows(backend)]
    out.print_rows(
        rows, output, COLUMNS, none="There are no schedules; a worker writes those of its app when it starts."
    )


@click.command("next")
@_name_argument
@click.option("-n", "--count", type=click.IntRange(1, 1_000), default=5, show_default=True, help="How many.")
@broker_option
@output_option
def next_(name: str, count: int, target: str, output: str | None) -> None:
    """Tell when it fires next, in UTC and in the schedule's own zone. Jitter comes on top."""
    from headrace.work import schedules  # noqa: PLC0415 - as in ls

    with _backend(target) as backend:
        row, _ = _stored(backend, name)
    zone = schedules.zone_of(row.definition.timing)
    times = [
        {"at": _moment(at_ms), "local": datetime.fromtimestamp(at_ms / 1_000, zone).strftime("%Y-%m-%d %H:%M:%S %Z")}
        for at_ms in schedules.upcoming(row, _now_ms(), count)
    ]
    out.print_rows(times, output, ("at", "local"), none="It never fires again.")


@click.command("pause")
@_name_argument
@broker_option
@output_option
def pause(name: str, target: str, output: str | None) -> None:
    """Let a schedule not fire until it is resumed, whatever workers start. What it sent goes on."""
    from headrace.work import schedules  # noqa: PLC0415 - as in ls

    _change(name, target, output, lambda row: schedules.paused(row, pause=True, now_ms=_now_ms()))


@click.command("resume")
@_name_argument
@broker_option
@output_option
def resume(name: str, target: str, output: str | None) -> None:
    """Let it fire again, from its next time on. Those of the pause are not made up for."""
    from headrace.work import schedules  # noqa: PLC0415 - as in ls

    _change(name, target, output, lambda row: schedules.paused(row, pause=False, now_ms=_now_ms()))


@click.command("run")
@_name_argument
@broker_option
@output_option
def run(name: str, target: str, output: str | None) -> None:
    """Send its task now, paused or not. Its times stay as they are.

    With overlap="skip", not while the one before is waiting or running.
    """
    from headrace.work import scheduler  # noqa: PLC0415 - as in ls

    with _backend(target) as backend:
        row, _ = _stored(backend, name)
        task_id = scheduler.fire_now(backend, row, now_ms=_now_ms())
    if task_id is None:
        raise click.ClickException(f"{name} was not sent: the task that it sent before has not ended")
    out.print_row({"schedule": name, "id": task_id}, output)


@click.command("rm")
@_name_argument
@yes_option
@broker_option
@output_option
def rm(name: str, yes: bool, target: str, output: str | None) -> None:
    """Remove a schedule that its app does not have any more. One that it has comes back with the next worker."""
    from headrace.work import scheduler  # noqa: PLC0415 - as in ls

    with _backend(target) as backend:
        row, stored = _stored(backend, name)
        if not row.orphaned:
            raise click.ClickException(
                f"{name} is in {row.definition.app}: remove it there, or `headrace schedule pause {name}`"
            )
        confirm_name(name, f"This removes the schedule {name}.", yes=yes)
        removed = scheduler.remove_row(backend, name, stored)
    out.print_row({"schedule": name, "removed": removed}, output)


@contextmanager
def _backend(target: str) -> Iterator[BrokerBackend]:
    from headrace.work.broker_backend import BrokerBackend  # noqa: PLC0415 - as in ls

    backend = BrokerBackend(open_client(target))
    try:
        yield backend
    finally:
        backend.close()


def _stored(backend: BrokerBackend, name: str) -> tuple[Row, bytes]:
    from headrace.work.scheduler import read_rows  # noqa: PLC0415 - as in ls

    for row, stored in read_rows(backend):
        if row.definition.name == name:
            return row, stored
    raise click.ClickException(f"there is no schedule {name!r}; `headrace schedule ls` lists them")


def _change(name: str, target: str, output: str | None, change: Callable[[Row], Row]) -> None:
    from headrace.work.scheduler import write_row  # noqa: PLC0415 - as in ls

    with _backend(target) as backend:
        for _ in range(TRIES_MAX):
            row, stored = _stored(backend, name)
            after = change(row)
            if write_row(backend, after, stored):
                out.print_row(_row(after), output)
                return
    raise click.ClickException(f"{name} fires faster than it can be changed; try again")


def _row(row: Row) -> out.Row:
    from headrace.work import schedules  # noqa: PLC0415 - as in ls

    due_ms = schedules.due_ms(row)
    return {
        "schedule": row.definition.name,
        "when": schedules.timing_text(row.definition.timing),
        "state": "orphaned" if row.orphaned else "paused" if row.paused else "active",
        "next_at": _moment(due_ms) if due_ms is not None else None,
        "last_at": _moment(row.last_ms) if row.last_ms is not None else None,
        "last_id": row.last_id,
        "task": row.definition.envelope.task,
        "queue": row.definition.queue,
        "app": row.definition.app,
        "missed": row.definition.missed,
        "overlap": row.definition.overlap,
        "skipped": row.skipped,
    }


def _moment(at_ms: int) -> str:
    return out.moment(datetime.fromtimestamp(at_ms / 1_000, UTC))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


for command in (ls, next_, pause, resume, run, rm):
    schedule.add_command(command)
