"""headrace's own client, from other processes: messages through their whole life over HTTP, in larger batches.

python -m benchmarks.native http://127.0.0.1:9324 --batch 100 --messages 200000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import headrace
from benchmarks.http_load import BODY_BYTES
from benchmarks.servers import Running
from benchmarks.sqs_wire import bodies

CLIENT_TIMEOUT_S: Final = 600
SHAPES: Final = ((1, 100), (1, 1_000), (2, 100), (2, 1_000))
"""(client processes, messages a call)"""


@dataclass(frozen=True)
class NativeFigures:
    """One measurement: all clients together."""

    clients: int
    batch: int
    messages: int
    messages_per_s: float
    broker_cpu_us: float


def cycle(endpoint: str, queue_name: str, *, messages: int, batch: int) -> tuple[float, float]:
    """Send, receive, delete, batch by batch; (start, end) on the machine's monotonic clock."""
    texts = [text.encode() for text in bodies(batch, BODY_BYTES)]
    with headrace.connect(endpoint) as client:
        queue = client.queue(queue_name, create=True, visibility_timeout=600)
        started = time.monotonic()
        done = 0
        while done < messages:
            queue.send_many(texts)
            received = queue.receive(max=batch, wait=0)
            queue.delete(received)
            done += len(received)
        return started, time.monotonic()


def measure(broker: Running, *, messages: int, shapes: Sequence[tuple[int, int]] = SHAPES) -> Iterator[NativeFigures]:
    """Every shape in turn, each client in a process and on a queue of its own."""
    for clients, batch in shapes:
        used = broker.cpu_s()
        spans = _run_clients(broker.endpoint, clients=clients, batch=batch, messages=messages // clients)
        took = max(end for _, end in spans) - min(start for start, _ in spans)
        total = messages // clients * clients
        yield NativeFigures(
            clients=clients,
            batch=batch,
            messages=total,
            messages_per_s=total / took,
            broker_cpu_us=(broker.cpu_s() - used) / total * 1e6,
        )


def _run_clients(endpoint: str, *, clients: int, batch: int, messages: int) -> list[tuple[float, float]]:
    command = [sys.executable, "-m", "benchmarks.native", endpoint, "--batch", str(batch), "--messages", str(messages)]
    root = Path(__file__).parent.parent
    running = [
        subprocess.Popen([*command, "--queue", f"native-{batch}-{number}"], stdout=subprocess.PIPE, cwd=root)
        for number in range(clients)
    ]
    spans: list[tuple[float, float]] = []
    for process in running:
        output, _ = process.communicate(timeout=CLIENT_TIMEOUT_S)
        if process.returncode != 0:
            raise RuntimeError(f"a native client ended with exit code {process.returncode}")
        start, end = json.loads(output)
        spans.append((start, end))
    return spans


def main() -> None:
    parser = argparse.ArgumentParser(description="Drive a broker by the native client; prints [start, end] in seconds.")
    parser.add_argument("endpoint")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--queue", default="native")
    arguments = parser.parse_args()
    print(json.dumps(cycle(arguments.endpoint, arguments.queue, messages=arguments.messages, batch=arguments.batch)))


if __name__ == "__main__":
    main()
