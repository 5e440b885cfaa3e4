"""`headrace stream ls`: all pipelines, once or live. By their state alone, and without the extra that running them needs."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from headrace.cli import output as out
from headrace.cli.options import broker_option, duration, open_client, output_option
from headrace.cli.watching import watch

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.native.client import Client
    from headrace.stream_state import PipelineState, Process

COLUMNS = ("pipeline", "state", "lag", "rows_in", "late", "dead", "watermark", "last_commit_seconds")
LIVE_COLUMNS = ("pipeline", "state", "lag", "in_rate", "out_rate", "late", "dead", "watermark", "last_commit_seconds")
NONE = "No pipeline has state here yet; `headrace stream run FILE.py` runs one."


class Sample(NamedTuple):
    """The pipelines at one moment. `waiting`: queue → messages that wait in it."""

    now_ms: int
    pipelines: dict[str, PipelineState]
    waiting: dict[str, int]


@click.command("ls")
@click.option("--watch", "live", is_flag=True, help="Show it live, with rates, until Ctrl-C.")
@click.option("--every", type=duration, default=1, show_default=True, help="How often to look with --watch.")
@broker_option
@output_option
def ls(live: bool, every: float, target: str, output: str | None) -> None:
    """List the pipelines that have state in the broker: whether they run, what waits for them, how far they are.

    With --watch and -o json or jsonl it prints them once an interval.
    """
    if every < 0.1:
        raise click.UsageError("--every: 100ms is the shortest")
    with open_client(target) as client:
        if live and out.chosen(output) == "table":
            watch(every, lambda: sample(client), lambda before, now: _screen(before, now, target))
            return
        before = sample(client)
        if not live:
            out.print_rows(rows(before, before), output, COLUMNS, none=NONE)
        while live:
            time.sleep(every)
            now = sample(client)
            out.print_rows(rows(before, now), output, LIVE_COLUMNS, none=NONE)
            before = now


def sample(client: Client) -> Sample:
    from headrace import stream_state  # noqa: PLC0415 - help needs none of it

    found = {}
    for key in client.state(stream_state.DIRECTORY):
        name = key.decode(errors="replace")
        values: dict[bytes, bytes] = {}
        for prefix in stream_state.PREFIXES:
            values |= client.state(stream_state.PREFIX + name, prefix)
        state = stream_state.decode(name, values)
        if state is not None:
            found[name] = state
    waiting = {queue.name: queue.counts.visible for queue in client.queues()} if found else {}
    return Sample(client.statistics().now_ms, found, waiting)


def rows(before: Sample, now: Sample) -> list[out.Row]:
    """A row for each pipeline; rates are those between the two looks, if they are two."""
    seconds = (now.now_ms - before.now_ms) / 1_000
    return [_row(before.pipelines.get(name, state), state, now, seconds) for name, state in now.pipelines.items()]


def _row(before: PipelineState, state: PipelineState, now: Sample, seconds: float) -> out.Row:
    rates = {}
    if seconds > 0:  # one that was reset counts from zero again
        rates = {
            "in_rate": round(max(0, state.rows_in - before.rows_in) / seconds, 1),
            "out_rate": round(max(0, state.rows_out - before.rows_out) / seconds, 1),
        }
    queues = [source.queue for source in state.sources if source.queue in now.waiting]
    return {
        "pipeline": state.name,
        "state": standing(state),
        "run_by": ", ".join(f"{process.host.partition('/')[0]}:{process.pid}" for process in state.processes) or None,
        "lag": sum(now.waiting[queue] for queue in queues) if queues else None,
        **rates,
        "rows_in": state.rows_in,
        "rows_out": state.rows_out,
        "late": state.late,
        "dead": state.dead,
        "watermark": _moment(state.watermark_us),
        "last_commit_seconds": (now.now_ms - state.committed_ms) / 1_000 if state.committed_ms else None,
    }


def standing(state: PipelineState) -> str:
    """`paused`, `running`, `lost` (all its processes were killed: on this machine that can be seen), `stopped`."""
    if not state.processes:
        return "stopped"
    if not any(_lives(process) for process in state.processes):
        return "lost"
    return "paused" if state.paused else "running"


def _lives(process: Process) -> bool:
    """Whether it is there; of another machine nobody knows, so it is."""
    from headrace.clock import boot_id  # noqa: PLC0415
    from headrace.process import is_running  # noqa: PLC0415

    if process.host != f"{socket.gethostname()}/{boot_id()[:8]}":
        return True
    return is_running(process.pid, process.started)


def _moment(us: int | None) -> str | None:
    """A watermark, in UTC."""
    if us is None:
        return None
    moment = datetime.fromtimestamp(us / 1_000_000, UTC).replace(tzinfo=None)
    return moment.isoformat(sep=" ", timespec="milliseconds" if moment.microsecond else "seconds")


def _screen(before: Sample, now: Sample, target: str) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    found = rows(before, now)
    line = f"headrace {target}   {len(found)} pipelines   {sum(row['lag'] or 0 for row in found):,} messages wait"
    return Group(
        Text(line, style="bold"), out.table(found, LIVE_COLUMNS if found and "in_rate" in found[0] else COLUMNS)
    )
