"""Clients that come at a fixed rate, whatever the server does, and give up after a deadline: an open loop.

    python -m benchmarks.web.open_loop --port 8000 --rate 300 --seconds 5 --path /0 --slow-path /50 --slow-share 0.05

A closed loop (wrk) slows down with the server and so never overloads it. Here a client comes each 1/rate seconds, takes
the kept connection that has been idle longest or opens one, and leaves after the deadline by closing it. Latency counts
from when the client should have come: a generator that is late does not flatter the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from benchmarks.http_load import percentile_ms
from benchmarks.sqs_wire import BadAnswer, split_answer
from benchmarks.web.plan import DEADLINE_S

ROOT: Final = Path(__file__).parent.parent.parent
HANGS: Final = 0
"""Status of a request that nothing was answered to within the deadline."""
CUT: Final = -1
"""Status of a request whose connection was refused or closed without an answer."""


@dataclass(frozen=True)
class Outcome:
    """What became of one request."""

    came_s: float
    slow: bool
    status: int
    took_s: float


@dataclass(frozen=True)
class Outcomes:
    """What became of the requests that came after the warm-up. Shares are of all of them; latencies are of those
    answered 200, of the fast ones among them where there are slow ones."""

    sent: int
    seconds: float
    answered_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answered: float
    refused: float
    refused_p99_ms: float
    cut: float
    hang: float
    late_ms: float
    generator_cpu_share: float


class Client(asyncio.Protocol):
    """A connection, and the request on it that waits for its answer."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._buffer = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._came_s = 0.0
        self._slow = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses

    def expect(self, came_s: float, *, slow: bool) -> None:
        """A client has come: it waits until its deadline, which runs while it connects, too."""
        self._came_s, self._slow = came_s, slow
        self._deadline = self._crowd.loop.call_later(came_s + DEADLINE_S - time.monotonic(), self._end, HANGS)

    @property
    def waits(self) -> bool:
        return self._deadline is not None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            answer = split_answer(self._buffer)
        except BadAnswer:
            self._end(CUT)
            return
        if answer is None:
            return
        status, _, alive = answer
        self._buffer = b""
        self._end(status, alive=alive)

    def connection_lost(self, _: Exception | None) -> None:
        self._crowd.forget(self)
        self._end(CUT)

    def failed(self) -> None:
        """It could not connect."""
        self._end(CUT)

    def _end(self, status: int, *, alive: bool = False) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            took_s = time.monotonic() - self._came_s
            # An answer beside the deadline, that a busy generator reads late, is one that nobody waits for.
            status = status if took_s <= DEADLINE_S else HANGS
            self._crowd.outcomes.append(Outcome(self._came_s, self._slow, status, took_s))
        if self.transport is None or self.transport.is_closing():
            return
        if alive:
            self._crowd.idle.append(self)
        else:
            self.transport.abort()


class Crowd:
    """All clients of a run."""

    def __init__(self, port: int, *, path: str, slow_path: str, slow_share: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.outcomes: list[Outcome] = []
        self.idle: deque[Client] = deque()
        self._port = port
        self._requests = [f"GET {each} HTTP/1.1\r\nHost: bench\r\n\r\n".encode() for each in (path, slow_path)]
        self._share = slow_share
        self._random = random.Random(7)
        self._connecting: set[asyncio.Task[None]] = set()
        self.late_s = 0.0

    async def run(self, *, rate: float, seconds: float) -> float:
        """Send for so long, then wait until all have their answer or have left. Returns when the first came."""
        started_s = time.monotonic() + 0.05
        for number in range(int(rate * seconds)):
            due_s = started_s + number / rate
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)  # wakes up some µs early at most: latency counts from due_s
            self.late_s = max(self.late_s, -wait_s)
            self._come(due_s)
            if number % 64 == 0:
                await asyncio.sleep(0)  # a generator that is late must read answers nevertheless
        await asyncio.sleep(DEADLINE_S + 0.1)
        for client in list(self.idle):
            if client.transport is not None:
                client.transport.abort()
        return started_s

    def _come(self, due_s: float) -> None:
        slow = self._random.random() < self._share
        request = self._requests[slow]
        while self.idle:
            client = self.idle.popleft()
            if client.transport is not None and not client.transport.is_closing():
                client.expect(due_s, slow=slow)
                client.transport.write(request)
                return
        client = Client(self)
        client.expect(due_s, slow=slow)
        task = self.loop.create_task(self._connect(client, request))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: Client, request: bytes) -> None:
        try:
            transport, _ = await self.loop.create_connection(lambda: client, "127.0.0.1", self._port)
        except OSError:
            client.failed()
            return
        if client.waits:
            transport.write(request)
        else:
            transport.abort()

    def forget(self, client: Client) -> None:
        """The connection is closed."""
        if client in self.idle:
            self.idle.remove(client)


def summarise(
    outcomes: Sequence[Outcome], *, since_s: float, seconds: float, late_s: float, cpu_share: float
) -> Outcomes:
    """Count those that came in the window that begins at `since_s`."""
    counted = [each for each in outcomes if each.came_s >= since_s]
    good = [each for each in counted if each.status == 200]
    fast = sorted(each.took_s for each in good if not each.slow)
    refused = sorted(each.took_s for each in counted if each.status >= 400)
    total = max(1, len(counted))
    return Outcomes(
        sent=len(counted),
        seconds=seconds,
        answered_per_s=len(good) / seconds,
        p50_ms=percentile_ms(fast, 0.5),
        p95_ms=percentile_ms(fast, 0.95),
        p99_ms=percentile_ms(fast, 0.99),
        answered=len(good) / total,
        refused=len(refused) / total,
        refused_p99_ms=percentile_ms(refused, 0.99),
        cut=sum(each.status == CUT for each in counted) / total,
        hang=sum(each.status == HANGS for each in counted) / total,
        late_ms=late_s * 1e3,
        generator_cpu_share=cpu_share,
    )


async def _run(arguments: argparse.Namespace) -> Outcomes:
    asyncio.get_running_loop().set_exception_handler(_give_up)
    crowd = Crowd(arguments.port, path=arguments.path, slow_path=arguments.slow_path, slow_share=arguments.slow_share)
    gc.disable()
    _hurry()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    seconds = arguments.warmup + arguments.seconds
    started_s = await crowd.run(rate=arguments.rate, seconds=seconds)
    share = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
    since_s = started_s + arguments.warmup
    return summarise(crowd.outcomes, since_s=since_s, seconds=arguments.seconds, late_s=crowd.late_s, cpu_share=share)


def _hurry() -> None:
    """Go before the server where we may: who measures late sees latencies that are none."""
    with contextlib.suppress(PermissionError):
        os.nice(-15)


def _give_up(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A mistake in a callback would look like a server that hangs."""
    print(context, file=sys.stderr, flush=True)
    os._exit(1)


def open_loop(
    port: int,
    *,
    rate: float,
    seconds: float,
    warmup_s: float = 0.0,
    path: str = "/",
    slow_path: str = "/",
    slow_share: float = 0.0,
) -> Outcomes:
    """Run it in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [
        sys.executable, "-m", "benchmarks.web.open_loop", "--port", str(port), "--rate", str(rate),
        "--seconds", str(seconds), "--warmup", str(warmup_s), "--path", path, "--slow-path", slow_path,
        "--slow-share", str(slow_share),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds + warmup_s + 60
    )
    if done.returncode != 0:
        raise RuntimeError(f"the open loop failed: {done.stderr[-500:]}")
    return Outcomes(**json.loads(done.stdout))


def main() -> None:
    """Print the outcomes as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=0.0, help="seconds before, that are not counted")
    parser.add_argument("--path", default="/")
    parser.add_argument("--slow-path", default="/")
    parser.add_argument("--slow-share", type=float, default=0.0, help="of the requests that go to --slow-path")
    print(json.dumps(asdict(uvloop.run(_run(parser.parse_args())))))


if __name__ == "__main__":
    main()
