"""`python -m benchmarks --mode quick|full`: measure, show tables, write benchmarks/results/*.json.

`python -m benchmarks web` measures the web server alone, `python -m benchmarks stream` streams,
`python -m benchmarks tasks` workers, `python -m benchmarks postgres` nodes on PostgreSQL, with options of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks import machine, native, others, report, servers, sqs_http
from benchmarks.plan import PLANS, Plan
from benchmarks.postgres.command import postgres
from benchmarks.report import Results
from benchmarks.runs import ROOT, now, sayer
from benchmarks.store import StoreFigures
from benchmarks.stream.command import failed as stream_failed
from benchmarks.stream.command import measure_stream, stream
from benchmarks.stream.results import PARTS as STREAM_PARTS
from benchmarks.tasks.command import tasks
from benchmarks.web.command import PARTS as WEB_PARTS
from benchmarks.web.command import measure_web, web

PARTS: Final = ("http", "store", "native", "others", "web", "stream")
TABLE_WIDTH: Final = 120


@click.group(invoke_without_command=True)
@click.option("--mode", type=click.Choice(sorted(PLANS)), default="quick", show_default=True)
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Only these parts.")
@click.option(
    "--peers",
    default="fauxqs,ministack,moto",
    show_default=True,
    help="Compare with these; '' for none. loop, thread: headrace, with every commit made there.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path), default=ROOT / ".cache/peers", help="Where peers are installed."
)
@click.option(
    "--data", type=click.Path(path_type=Path), default=ROOT / ".cache/benchmarks", help="Servers' data; on a disk."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results", help="Folder of the results."
)
@click.pass_context
def main(
    context: click.Context, mode: str, only: tuple[str, ...], peers: str, cache: Path, data: Path, out: Path
) -> None:
    """Measure headrace, alone and against other queues and web servers, on this machine."""
    if context.invoked_subcommand is not None:
        return
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    plan, parts = PLANS[mode], only or PARTS
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    results = Results(mode, now(), machine.describe(data))
    say = sayer(console, results.remarks)
    measure: dict[str, Callable[[], None]] = {
        "http": lambda: _measure_http(results, plan, peers, cache=cache, data=data, say=say),
        "store": lambda: _measure_store(results, plan, data, say),
        "native": lambda: _measure_native(results, plan, cache=cache, data=data, say=say),
        "others": lambda: results.others.extend(others.measure(data, messages=plan.native_messages, say=say)),
    }
    queue_parts = [part for part in parts if part in measure]
    failed = [part for part in queue_parts if not _succeeds(part, measure[part], say)]
    if queue_parts:
        report.show(console, results)
        console.print(f"Written to {os.path.relpath(results.save(out))}", highlight=False)
    if "web" in parts:
        measured = measure_web(console, mode, WEB_PARTS, peers=bool(peers), cache=cache, data=data / "web", out=out)
        failed += [remark for remark in measured[0].remarks if "headrace" in remark]
    if "stream" in parts:
        streams, _ = measure_stream(console, mode, STREAM_PARTS, peers=bool(peers), data=data / "stream", out=out)
        failed += streams.remarks if stream_failed(streams) else []
    sys.exit(1 if failed else 0)


main.add_command(web)
main.add_command(stream)
main.add_command(tasks)
main.add_command(postgres)


def _succeeds(part: str, measure: Callable[[], None], say: Callable[[str], None]) -> bool:
    """Whether the part was measured: one that fails must not cost the figures of the others."""
    try:
        measure()
    except (RuntimeError, OSError, subprocess.SubprocessError) as failed:
        say(f"{part} is left out: {failed}")
        return False
    return True


def _measure_http(
    results: Results, plan: Plan, peers: str, *, cache: Path, data: Path, say: Callable[[str], None]
) -> None:
    contenders = [servers.headrace()]
    for name in filter(None, peers.split(",")):
        peer = servers.PEERS[name]()
        try:
            say(f"installing {peer.name}")
            peer.install(cache)
        except servers.CannotInstall as failed:
            say(f"{peer.name} is left out: {failed}")
        else:
            contenders.append(peer)
    results.http += sqs_http.measure(contenders, plan, cache=cache, data=data, say=say)


def _measure_store(results: Results, plan: Plan, data: Path, say: Callable[[str], None]) -> None:
    cases = [(backlog, 256) for backlog in plan.store_backlogs] + [(max(plan.store_backlogs[:2]), 1_024)]
    for backlog, body_bytes in cases:
        say(f"store with a backlog of {backlog:,} messages of {body_bytes} B")
        results.store += _store_figures(data / "store", backlog, body_bytes, plan.store_messages)


def _store_figures(folder: Path, backlog: int, body_bytes: int, messages: int) -> list[StoreFigures]:
    """Fill in one process and measure in another: memory is then what an opened store needs."""
    command = [
        sys.executable, "-m", "benchmarks.store", "--data", str(folder), "--backlog", str(backlog),
        "--body-bytes", str(body_bytes), "--messages", str(messages),
    ]  # fmt: skip
    try:
        subprocess.run([*command, "--fill-only"], check=True, cwd=ROOT)
        output = subprocess.run([*command, "--filled"], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [StoreFigures(**json.loads(line)) for line in output.splitlines()]


def _measure_native(results: Results, plan: Plan, *, cache: Path, data: Path, say: Callable[[str], None]) -> None:
    say("native client")
    with servers.running(servers.headrace(), cache, data / "native") as broker:
        results.native += native.measure(broker, messages=plan.native_messages)


if __name__ == "__main__":
    main()
