"""`headrace bench`: what this machine does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from headrace.cli.options import duration, output_option
from headrace.cli.output import print_rows
from headrace.cli.progress import stage_progress
from headrace.cli.queue import OrderedGroup

if TYPE_CHECKING:
    from headrace.bench.running import Measured, Progress

Command = TypeVar("Command", bound=Callable[..., Any])
CALLS: Final = ("what", "clients", "a_second", "p50_ms", "p99_ms", "max_ms")


@click.group(cls=OrderedGroup)
def bench() -> None:
    """Measure this machine in some twenty seconds, with processes and folders of its own. Nothing is left behind."""


def folder_option(command: Command) -> Command:
    return click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        default=Path(),
        envvar="HEADRACE_BENCH_FOLDER",
        show_envvar=True,
        help="Where the temporary data folder is made: on the disk that is to be measured. Default: here.",
    )(command)


def time_option(default: str, what: str) -> Callable[[Command], Command]:
    return click.option(
        "--time",
        "seconds",
        type=duration,
        default=default,
        show_default=True,
        envvar="HEADRACE_BENCH_TIME",
        show_envvar=True,
        help=what,
    )


def count_option(flag: str, least: int, most: int, default: int, what: str) -> Callable[[Command], Command]:
    return click.option(
        flag,
        type=click.IntRange(least, most),
        default=default,
        show_default=True,
        envvar=f"HEADRACE_BENCH_{flag.lstrip('-').upper()}",
        show_envvar=True,
        help=what,
    )


@click.command("queue")
@folder_option
@time_option("6s", "For each kind of call.")
@count_option("--clients", 1, 1_000, 32, "That call at once.")
@output_option
def queue(folder: Path, seconds: float, clients: int, output: str | None) -> None:
    """Measure a broker: syncs of the disk, durable sends, sends of 100, and the whole life of a message.

    Messages have 256 bytes. The clients share one process, so at many clients the figure may be theirs.
    """
    from headrace.bench.queue import measure_queue  # noqa: PLC0415 - help needs none of it

    _print(lambda progress: measure_queue(folder, seconds=seconds, clients=clients, progress=progress), CALLS, output)


@click.command("http")
@time_option("3s", "For each of the four cases.")
@count_option("--clients", 1, 1_000, 32, "Keep-alive connections, each with one request at a time.")
@count_option("--processes", 1, 16, 1, "Client processes that hold them.")
@output_option
def http(seconds: float, clients: int, processes: int, output: str | None) -> None:
    """Measure `headrace serve`: WSGI and ASGI, behind the edge and with --direct, one worker process.

    The app answers 12 bytes. cpu_us is the CPU of all the server's processes for a request: unlike requests a second, it does
    not depend on how many cores the clients leave.
    """
    from headrace.bench.http import measure_http  # noqa: PLC0415 - as above

    _print(
        lambda progress: measure_http(seconds=seconds, clients=clients, processes=processes, progress=progress),
        (*CALLS, "cpu_us"),
        output,
    )


@click.command("task")
@folder_option
@count_option("--tasks", 10, 1_000_000, 20_000, "That wait when the worker starts.")
@time_option("4s", "For tasks sent one by one.")
@output_option
def task(folder: Path, tasks: int, seconds: float, output: str | None) -> None:
    """Measure `headrace worker` with one process: tasks that do nothing, and how long one takes from send to done.

    cpu_us is the CPU of worker and broker for a task. Done is: its result is on the disk, and here.
    """
    from headrace.bench.task import measure_task  # noqa: PLC0415 - as above

    _print(
        lambda progress: measure_task(folder, tasks=tasks, seconds=seconds, progress=progress),
        (*CALLS, "cpu_us"),
        output,
    )


@click.command("stream")
@folder_option
@count_option("--rows", 1, 100_000_000, 500_000, "Counted in memory, and once more from a durable queue.")
@time_option("4s", "For the latency of windows at a low rate.")
@output_option
def stream(folder: Path, rows: int, seconds: float, output: str | None) -> None:
    """Measure pipelines: a count in tumbling windows of a second, in memory and from a queue, and how late a window comes.

    Bodies in the queue are Arrow. cpu_us is the CPU of the pipeline for a row. The last line is of windows of 100 ms at 50
    rows a second: from when one is over to when its row was received. Needs headrace[stream].
    """
    import_module("headrace.stream")  # says what to install if the extra is missing
    from headrace.bench.stream import measure_stream  # noqa: PLC0415 - as above

    _print(
        lambda progress: measure_stream(folder, rows=rows, seconds=seconds, progress=progress),
        (*CALLS, "cpu_us"),
        output,
    )


def _print(measure: Callable[[Progress], list[Measured]], columns: Sequence[str], output: str | None) -> None:
    from headrace.bench.running import term_ends_in_order  # noqa: PLC0415 - as above

    with term_ends_in_order(), stage_progress() as progress:
        found = measure(progress)
    print_rows([msgspec.to_builtins(one) for one in found], output, columns, none="")


for _command in (queue, http, task, stream):
    bench.add_command(_command)
