"""Static files: requests a second of a small one, throughput of a large one, against nginx with as many processes."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.web import nginx, wrk
from benchmarks.web.plan import Plan
from benchmarks.web.running import Running, launched
from benchmarks.web.speed import Say
from headrace.testing.ports import free_port

SMALL: Final = ("small.bin", 1_024, 64)
LARGE: Final = ("large.bin", 10 * 2**20, 8)
CASES: Final = (SMALL, LARGE)
"""(file, bytes, connections)."""


@dataclass(frozen=True)
class FileRow:
    """The medians of one server with one file."""

    server: str
    processes: int
    file_bytes: int
    requests_per_s: float
    mib_per_s: float
    cpu_us: float
    p99_ms: float
    failed: int


def measure(plan: Plan, *, programs: Path, folder: Path, peers: bool, say: Say) -> Iterator[FileRow]:
    """headrace with one edge against nginx with one worker process."""
    root = folder / "files"
    root.mkdir(parents=True)
    for name, size, _ in CASES:
        (root / name).write_bytes(os.urandom(size))
    with ExitStack() as stack:
        servers = list(_servers(stack, root, programs=programs, folder=folder, peers=peers, say=say))
        for name, size, connections in CASES:
            say(f"files of {size:,} B")
            loads: dict[str, list[wrk.Load]] = {server.name: [] for server in servers}
            for _ in range(plan.rounds):
                for server in servers:
                    loads[server.name].append(
                        wrk.load(server, f"/{name}", seconds=plan.seconds, connections=connections)
                    )
            yield from (_row(server, size, loads[server.name]) for server in servers)


def _servers(stack: ExitStack, root: Path, *, programs: Path, folder: Path, peers: bool, say: Say) -> Iterator[Running]:
    commands: dict[str, Callable[[int], list[str]]] = {
        "headrace": lambda port: [
            str(programs / "headrace"), "serve", str(root), "--port", str(port), "--access-log", "off",
            "--log-level", "warning",
        ],
    }  # fmt: skip
    if peers and shutil.which("nginx"):
        commands["nginx"] = lambda port: nginx.files(folder / "nginx", port=port, root=root, workers=1)
    for name, command in commands.items():
        port = free_port()
        try:
            running = launched(
                name, [command(port)], port=port, path=f"/{SMALL[0]}", folder=folder / f"serves-files-{name}"
            )
            yield stack.enter_context(running)
        except RuntimeError as failed:
            say(f"{name} is left out with files: {failed}")


def _row(server: Running, size: int, loads: list[wrk.Load]) -> FileRow:
    rate = statistics.median(load.requests_per_s for load in loads)
    return FileRow(
        server=server.name,
        processes=1,
        file_bytes=size,
        requests_per_s=rate,
        mib_per_s=rate * size / 2**20,
        cpu_us=statistics.median(load.cpu_us for load in loads),
        p99_ms=statistics.median(load.p99_ms for load in loads),
        failed=sum(load.failed for load in loads),
    )
