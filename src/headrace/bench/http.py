"""`headrace serve` with an app that does nothing: WSGI and ASGI, through the edge and direct."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from headrace.bench.http_client import Load
from headrace.bench.running import Measured, Progress, cpu_s, cpu_since, measured, process
from headrace.children import end_group, spawn
from headrace.errors import StoreUnusable

HOST: Final = "127.0.0.1"
LOOK_S: Final = 1.0
LATE_S: Final = 30.0
"""A client may start, and print what it saw, for so long beside its load."""
APP: Final = '''\
"""Answers all requests alike."""

BODY = b"hello, world"
HEAD = [("content-type", "text/plain"), ("content-length", str(len(BODY)))]


def wsgi(environ, start_response):
    start_response("200 OK", HEAD)
    return [BODY]


async def asgi(scope, receive, send):
    head = [(name.encode(), value.encode()) for name, value in HEAD]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": BODY})
'''
CASES: Final = {
    "WSGI": ("wsgi", []),
    "WSGI, direct": ("wsgi", ["--direct"]),
    "ASGI": ("asgi", []),
    "ASGI, direct": ("asgi", ["--direct"]),
}


def measure_http(*, seconds: float, clients: int, processes: int, progress: Progress) -> list[Measured]:
    """Measure one worker process under keep-alive connections over the loopback, each one request at a time.

    Args:
        seconds: for each of the four cases.
        clients: connections in all, at least one for each of `processes`.
        processes: that hold the connections.

    Raises:
        StoreUnusable: a server did not come up, or a client failed.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        (folder / "bench_app.py").write_text(APP)
        return asyncio.run(_measure(folder, seconds, max(clients, processes), processes, progress))


async def _measure(folder: Path, seconds: float, clients: int, processes: int, progress: Progress) -> list[Measured]:
    found = []
    for index, (what, (app, flags)) in enumerate(CASES.items()):
        progress("cases", index, len(CASES))
        port = _free_port()
        arguments = ["serve", f"bench_app:{app}", "--interface", app, "--port", str(port), "--workers", "1", *flags]
        async with process([*arguments, "--access-log", "off"], folder, lambda port=port: _answers(port)) as server:  # type: ignore[misc]
            before = cpu_s(server.pid)
            loads = await _load(port, seconds, _shares(clients, processes))
            cpu = cpu_since([server.pid], [before])
        times = [time_s for load in loads for time_s in load.times_s]
        found.append(measured(what, clients, len(times), times, max(load.passed_s for load in loads), cpu_s=cpu))
    progress("cases", len(CASES), len(CASES))
    return found


async def _load(port: int, seconds: float, shares: Sequence[int]) -> list[Load]:
    """Let client processes load the server, with so many connections each."""
    started = [
        spawn([str(port), str(share), str(seconds)], module="headrace.bench.http_client", own_group=True, stdout=subprocess.PIPE)
        for share in shares
    ]  # fmt: skip
    try:
        said = await asyncio.gather(
            *[asyncio.to_thread(client.communicate, timeout=seconds + LATE_S) for client in started]
        )
    finally:
        for client in started:
            end_group(client.pid)
            client.wait()
    if any(client.returncode for client in started):
        raise StoreUnusable(f"{HOST}:{port}", "a client of it failed; what it says is above")
    return [msgspec.json.decode(out, type=Load) for out, _ in said]


def _shares(clients: int, processes: int) -> list[int]:
    """How many connections each process holds: all of them, as evenly as can be."""
    return [clients // processes + (index < clients % processes) for index in range(processes)]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=LOOK_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
