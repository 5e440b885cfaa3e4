"""`headrace top`: all queues, live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from headrace.cli import output as out
from headrace.cli.options import broker_option, duration, open_client, output_option
from headrace.cli.watching import watch
from headrace.presence import BrokerFacts, read

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.native.client import Client
    from headrace.native.protocol import BrokerStatistics
    from headrace.native.summary import QueueSummary
    from headrace.queue.model import HolderState

COLUMNS = ("queue", "visible", "in_flight", "delayed", "oldest_seconds", "in_rate", "out_rate", "dead_lettered")
NODE_COLUMNS = (
    "node", "host", "since_seconds", "heard_seconds", "requests_rate", "send_rate", "receive_rate", "settle_rate"
)  # fmt: skip


class Sample(NamedTuple):
    """The broker at one moment."""

    queues: dict[str, QueueSummary]
    broker: BrokerStatistics
    nodes: list[HolderState] = []  # noqa: RUF012 - a NamedTuple's default


@click.command()
@click.option(
    "--every", type=duration, default=1, show_default=True, help="How often to look, and over what to average."
)
@click.option("--once", is_flag=True, help="Look once (rates over one interval), print, and end.")
@broker_option
@output_option
def top(every: float, once: bool, target: str, output: str | None) -> None:
    """Watch all queues: depth, oldest message, rates, commits; and the nodes of a store that is shared. Ctrl-C ends it.

    With -o json or jsonl it prints one JSON a look; with --once it is for scripts.
    """
    if every < 0.1:
        raise click.UsageError("--every: 100ms is the shortest")
    with open_client(target) as client:
        if out.chosen(output) == "table" and not once:
            watch(every, lambda: sample(client), lambda before, now: _screen(compare(before, now), target))
            return
        before = sample(client)
        while True:
            time.sleep(every)
            now = sample(client)
            report = compare(before, now)
            before = now
            if out.chosen(output) == "table":
                out.make_console().print(_screen(report, target))
            else:
                out.print_row(report, output)
            if once:
                return


def sample(client: Client) -> Sample:
    return Sample({summary.arn: summary for summary in client.queues()}, client.statistics(), client.holders("broker"))


def compare(before: Sample, now: Sample) -> dict[str, Any]:
    """What the broker is, and what it did between the samples, a second. Pure."""
    seconds = max(0.001, (now.broker.now_ms - before.broker.now_ms) / 1000)
    rows = [
        _queue_row(before.queues.get(arn), summary, now.broker.now_ms, seconds) for arn, summary in now.queues.items()
    ]
    return {
        "seconds": seconds,
        "queues": rows,
        "commits": _commits(before.broker, now.broker, seconds),
        "nodes": [_node(holder, now.broker.now_ms) for holder in now.nodes],
    }


def _node(holder: HolderState, now_ms: int) -> out.Row:
    """A broker of a store that several share, as it tells of itself."""
    told = read(holder.kind, holder.facts)
    lanes = told.lanes if isinstance(told, BrokerFacts) else []
    return {
        "node": told.url if isinstance(told, BrokerFacts) and told.url else holder.holder,
        "host": told.host,
        "since_seconds": (now_ms - holder.since_ms) / 1000,
        "heard_seconds": max(0.0, (now_ms - holder.seen_ms) / 1000),
        "requests_rate": round(told.requests_s, 1) if isinstance(told, BrokerFacts) else None,
        **{f"{lane.lane}_rate": round(lane.operations_s, 1) for lane in lanes},
    }


def _queue_row(before: QueueSummary | None, now: QueueSummary, now_ms: int, seconds: float) -> out.Row:
    counts = now.counts
    # A queue that is new, or a broker that was restarted, counts from zero.
    same = before is not None and before.counts.sent <= counts.sent and before.counts.deleted <= counts.deleted
    sent_before = before.counts.sent if same and before is not None else 0
    deleted_before = before.counts.deleted if same and before is not None else 0
    return {
        "queue": now.name,
        "visible": counts.visible,
        "in_flight": counts.in_flight,
        "delayed": counts.delayed,
        "oldest_seconds": (now_ms - counts.oldest_ms) / 1000 if counts.oldest_ms is not None else None,
        "in_rate": round((counts.sent - sent_before) / seconds, 1),
        "out_rate": round((counts.deleted - deleted_before) / seconds, 1),
        "dead_lettered": counts.dead_lettered,
        "damaged": counts.damaged,
    }


def _commits(before: BrokerStatistics, now: BrokerStatistics, seconds: float) -> out.Row:
    """Commits a second, operations in each, and their latency; all since its start for a broker that was restarted."""
    old, new = before.store, now.store
    if new.commits < old.commits:
        old = msgspec.structs.replace(old, commits=0, commit_operations=0, commit_seconds=0.0)
    commits = new.commits - old.commits
    return {
        "rate": round(commits / seconds, 1),
        "operations_each": round((new.commit_operations - old.commit_operations) / max(1, commits), 1),
        "latency_ms": round((new.commit_seconds - old.commit_seconds) / max(1, commits) * 1000, 3),
        "store_bytes": new.size_bytes,
    }


def _screen(report: dict[str, Any], target: str) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = sorted(report["queues"], key=lambda row: (-row["in_rate"] - row["out_rate"], row["queue"]))
    commits = report["commits"]
    line = f"headrace {target}   {len(rows)} queue{'' if len(rows) == 1 else 's'}   {sum(row['visible'] for row in rows):,} visible"
    line += (
        f"   commits {commits['rate']:,}/s × {commits['operations_each']:,}, {commits['latency_ms']} ms"
        f"   store {commits['store_bytes'] / 1_048_576:,.1f} MiB"
    )
    nodes = [out.table(report["nodes"], NODE_COLUMNS)] if report["nodes"] else []
    return Group(Text(line, style="bold"), out.table(rows, COLUMNS), *nodes)
