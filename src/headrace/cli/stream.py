"""`headrace stream`: run pipelines, plan and test them; `stream_state.py` looks at those that run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from headrace import logs
from headrace.cli.options import BROKER_DEFAULT, key_of_environ
from headrace.cli.queue import OrderedGroup
from headrace.cli.setting_options import setting_options
from headrace.cli.stream_list import ls
from headrace.cli.stream_state import lag, pause, reset, resume, show, state
from headrace.process import notify_systemd
from headrace.settings import SettingsError, resolve
from headrace.stream_settings import StreamSettings

if TYPE_CHECKING:
    from headrace.native.client import Client
    from headrace.stream.pipelines import Pipeline
    from headrace.stream.result import Report, Result

SECTION: Final = "stream"
NOWHERE: Final = "none"


@click.group(cls=OrderedGroup)
def stream() -> None:
    """Run SQL and Python pipelines over queues, exactly once.

    A pipeline is defined in a Python file; `headrace stream run FILE.py` runs it, `headrace stream plan FILE.py` shows
    what it does. Its state is in the broker: the other commands need no file.
    """


@click.command("run")
@click.argument("file", metavar="FILE.py[:NAME]", required=False)
@click.option(
    "--until",
    type=click.Choice(["idle", "end"]),
    help="End by itself: idle: when what is there is processed; end: then, and every window is closed.",
)
@click.option("--reset", is_flag=True, help="Drop the pipeline's state first, and give back what it has claimed.")
@setting_options(StreamSettings, SECTION, without=("file",))
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file instead of ./headrace.toml  [HEADRACE_CONFIG]"
)
def run(until: str | None, reset: bool, config: Path | None, **flags: Any) -> int:
    """Run a pipeline: of the file, or the one that NAME names.

    Each batch is one commit: what was read is acknowledged, state and output are written. It goes on where it was,
    whatever happened. Started twice, both share the work by key; where the plan does not allow it, the second stands by.

    TERM or Ctrl-C finishes the batch and leaves. Exit codes: 0 ended, 1 failed, 2 called wrongly.
    """
    try:
        settings = resolve(
            StreamSettings, SECTION, flags=flags, environ=os.environ, folder=Path.cwd(), config=config
        ).settings
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    if not settings.file:
        raise click.UsageError("name the pipeline: headrace stream run FILE.py (or `file` in headrace.toml)")
    logs.configure(sys.stderr, form=settings.log_format, level=settings.log_level)
    from headrace.cli.stream_file import load  # noqa: PLC0415 - heavy, as all below

    pipeline = load(settings.file)
    if settings.name:
        pipeline = renamed(pipeline, settings.name)
    stop = threading.Event()
    with _stopped_by_signals(stop):
        run_it = _run_on_spark if settings.engine == "spark" else _run
        result = run_it(pipeline, until, settings, stop, reset=reset)
    click.echo(str(result), err=True)
    return 0


def broker_of(settings: StreamSettings) -> str:
    """Where the broker is: as said, as everywhere on the command line, or the default."""
    return settings.broker or os.environ.get("HEADRACE_BROKER") or BROKER_DEFAULT


def renamed(pipeline: Pipeline, name: str) -> Pipeline:
    """The same pipeline under another name, checked as if it had been written so."""
    from dataclasses import replace  # noqa: PLC0415

    from headrace.stream.pipelines import check  # noqa: PLC0415

    plan = replace(pipeline.plan, name=name)
    check(plan)
    return replace(pipeline, plan=plan)


def _run(pipeline: Pipeline, until: Any, settings: StreamSettings, stop: threading.Event, *, reset: bool) -> Result:
    from headrace.cli.stream_live import watcher  # noqa: PLC0415
    from headrace.cli.stream_presence import shown  # noqa: PLC0415
    from headrace.stream import arrow_memory  # noqa: PLC0415
    from headrace.stream.runner import run as run_pipeline  # noqa: PLC0415

    arrow_memory.choose_allocator()
    target = broker_of(settings)
    broker = nullcontext() if target == NOWHERE else connected(target)
    with broker as client, watcher(pipeline.name) as watch, shown(target, pipeline.plan) as tell:

        def on_progress(report: Report) -> None:
            watch(report)
            tell(report)

        notify_systemd("READY=1")
        return run_pipeline(
            pipeline.plan,
            client,
            until=until,
            batch_rows=settings.batch_rows,
            batch_ms=settings.batch_ms,
            memory_bytes=settings.memory,
            state_memory_bytes=settings.state_memory,
            threads=settings.threads,
            retry_timeout_s=settings.retry_timeout,
            reset=reset,
            backfill=settings.backfill or None,
            on_progress=on_progress,
            stop=stop,
            text=pipeline.explain(),
            compiled=pipeline.physical,
        )


def _run_on_spark(
    pipeline: Pipeline, until: Any, settings: StreamSettings, stop: threading.Event, *, reset: bool
) -> Result:
    if reset or settings.backfill:
        raise click.UsageError(
            "--reset and --backfill are for the embedded engine; on Spark, name another --checkpoint"
        )
    from headrace.stream.spark.run import run_on_spark  # noqa: PLC0415

    notify_systemd("READY=1")
    target = broker_of(settings)
    result: Result = run_on_spark(
        pipeline.plan, target, master=settings.master, checkpoint=settings.checkpoint, until=until, stop=stop
    )
    return result


def connected(target: str, *, patience: float = 10.0) -> Client:
    """A client of the broker. Keys come from the environment, never from the command line."""
    from headrace.native.client import connect  # noqa: PLC0415

    return connect(target, patience=patience, key=key_of_environ())


class _stopped_by_signals:  # noqa: N801 - reads as a verb
    """Within it TERM and INT set the event; a second INT ends the process at once."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        if self._stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop.set()


@click.command("plan")
@click.argument("place", metavar="FILE.py[:NAME]")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture of it to this file, too.")
def plan(place: str, svg: Path | None) -> None:
    """Show what a pipeline does: steps, operators and their state, the SQL of both engines, what to know about it."""
    from headrace.cli.stream_file import load  # noqa: PLC0415

    pipeline = load(place)
    click.echo(pipeline.explain(sql=True))
    if svg is not None:
        from headrace.stream.explain import picture  # noqa: PLC0415

        svg.write_text(picture(pipeline.plan))
        click.echo(f"The picture is in {svg}.", err=True)


@click.command("test")
@click.argument("place", metavar="FILE.py")
def test(place: str) -> int:
    """Test the pipelines of a file: its functions test_…, each called with a harness of the pipeline that it names.

    \b
      def test_delays_are_averaged(pipeline):         # the variable's name
          pipeline.send("flights", [{"origin": "JFK", "dep_delay": 4.0, "ts": "2013-01-01T05:17"}])
          assert pipeline.end() == [{"origin": "JFK", …}]

    Without such functions it is checked that the pipelines can be built, started and ended without a row. Exit codes: 0 all
    is well, 1 something failed, 2 called wrongly.
    """  # noqa: D301 (click's mark for lines that are not to be filled)
    from headrace.cli.stream_tests import run_tests  # noqa: PLC0415

    return run_tests(Path(place))


for command in (run, plan, test, ls, show, lag, state, pause, resume, reset):
    stream.add_command(command)
