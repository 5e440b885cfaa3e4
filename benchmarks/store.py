"""The store in this process, without HTTP: messages through their whole life, durable, at a given number a commit.

    python -m benchmarks.store --backlog 1000000 --messages 300000

Whole life: sent, received, deleted. The sends of a step and the deletes of the step before share a commit, as they do
in a broker under load; the receive writes its leases. `single` makes each message an operation of its own (a commit
of 100 sends and 100 deletes), `batch` one operation a step.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.http_load import BODY_BYTES
from benchmarks.machine import read
from benchmarks.sqs_wire import bodies
from headrace.errors import HeadraceError
from headrace.queue.model import Delivery, Entry, arn_of
from headrace.queue.operations import CreateQueue, Delete, Operation, Receive, Send
from headrace.queue.store.base import Request, Store

QUEUE: Final = arn_of("benchmark")
ANSWER_TIMEOUT_S: Final = 60
FILL_BATCH: Final = 1_000


@dataclass(frozen=True)
class StoreFigures:
    """One measurement. `open_s` and `first_receive_ms` are of a store that is opened with the backlog in it."""

    shape: str
    per_commit: int
    backlog: int
    body_bytes: int
    messages: int
    messages_per_s: float
    cpu_us: float
    open_s: float
    first_receive_ms: float
    memory_mib: float
    disk_bytes_a_message: float


class Runner:
    """Runs operations against a store, and waits for their outcomes."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def run(self, operations: Sequence[Operation]) -> list[Any]:
        """Their outcomes, in order; they share a commit.

        Raises:
            HeadraceError: an operation, or an entry of a batch, was refused.
        """
        outcomes: list[Any] = []
        self.store.execute([Request(operation, outcomes.append) for operation in operations])
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while len(outcomes) < len(operations):
            self.store.advance()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(operations) - len(outcomes)} operations were not answered")
        for outcome in outcomes:
            _raise_if_refused(outcome)
        return outcomes


def _raise_if_refused(outcome: Any) -> None:
    parts = outcome if isinstance(outcome, list) else [outcome]
    for part in parts:
        if isinstance(part, HeadraceError):
            raise part


def lifecycle(runner: Runner, texts: list[bytes], *, messages: int, per_commit: int, shape: str) -> None:
    """Take `messages` messages through their whole life."""
    done: list[bytes] = []
    for start in range(0, messages, per_commit):
        entries = [Entry(texts[(start + place) % len(texts)]) for place in range(per_commit)]
        runner.run([*_sends(entries, shape), *_deletes(done, shape)])
        (deliveries,) = runner.run([Receive(QUEUE, limit=per_commit)])
        done = _receipts(deliveries, per_commit)
    runner.run(_deletes(done, shape))


def _sends(entries: list[Entry], shape: str) -> list[Operation]:
    return [Send(QUEUE, entries)] if shape == "batch" else [Send(QUEUE, [entry]) for entry in entries]


def _deletes(receipts: list[bytes], shape: str) -> list[Operation]:
    if not receipts:
        return []
    return [Delete(QUEUE, receipts)] if shape == "batch" else [Delete(QUEUE, [receipt]) for receipt in receipts]


def _receipts(deliveries: list[Delivery], expected: int) -> list[bytes]:
    if len(deliveries) != expected:
        raise RuntimeError(f"received {len(deliveries)} messages, not {expected}: the benchmark would not be true")
    return [delivery.receipt for delivery in deliveries]


def open_store(folder: Path) -> Store:
    from headrace.queue.store.sqlite import open_store as open_sqlite  # noqa: PLC0415 - imports count in open times

    store, _ = open_sqlite(folder, cooldowns=False)
    return store


def fill(folder: Path, backlog: int, body_bytes: int) -> None:
    """Store a backlog and close."""
    store = open_store(folder)
    runner = Runner(store)
    runner.run([CreateQueue(QUEUE, {"visibility_ms": 600_000})])
    texts = [text.encode() for text in bodies(64, body_bytes)]
    entries = [Entry(texts[place % len(texts)]) for place in range(FILL_BATCH)]
    for start in range(0, backlog, FILL_BATCH):
        runner.run([Send(QUEUE, entries[: backlog - start])])
    store.close()


def measure(folder: Path, *, backlog: int, messages: int, body_bytes: int, per_commit: int) -> Iterator[StoreFigures]:
    """Open the filled folder, take its times, and measure both shapes."""
    started = time.perf_counter()
    store = open_store(folder)
    open_s = time.perf_counter() - started
    size = store.statistics().size_bytes / backlog if backlog else 0.0
    runner = Runner(store)
    started = time.perf_counter()
    runner.run([Receive(QUEUE, limit=1, visibility_ms=0)])
    first_ms = (time.perf_counter() - started) * 1_000
    texts = [text.encode() for text in bodies(64, body_bytes)]
    for shape in ("single", "batch"):
        lifecycle(runner, texts, messages=min(messages, 20 * per_commit), per_commit=per_commit, shape=shape)
        started, cpu = time.perf_counter(), time.process_time()
        lifecycle(runner, texts, messages=messages, per_commit=per_commit, shape=shape)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        yield StoreFigures(
            shape=shape,
            per_commit=per_commit,
            backlog=backlog,
            body_bytes=body_bytes,
            messages=messages,
            messages_per_s=messages / took,
            cpu_us=cpu / messages * 1e6,
            open_s=open_s,
            first_receive_ms=first_ms,
            memory_mib=resident_mib(),
            disk_bytes_a_message=size,
        )
    store.close()


def resident_mib() -> float:
    """This process's resident memory at its highest."""
    for line in read(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the store in process; prints a JSON line a measurement.")
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--per-commit", type=int, default=100)
    parser.add_argument("--data", type=Path, default=None, help="an empty folder; by default one that is removed again")
    parser.add_argument("--fill-only", action="store_true", help="only store the backlog in --data")
    parser.add_argument("--filled", action="store_true", help="--data holds the backlog already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-benchmark-", dir=".") as scratch:
        folder = arguments.data or Path(scratch) / "store"
        if not arguments.filled:
            fill(folder, arguments.backlog, arguments.body_bytes)
        if arguments.fill_only:
            sys.exit(0)
        for figures in measure(
            folder,
            backlog=arguments.backlog,
            messages=arguments.messages,
            body_bytes=arguments.body_bytes,
            per_commit=arguments.per_commit,
        ):
            print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
