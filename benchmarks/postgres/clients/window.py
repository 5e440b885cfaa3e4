"""What every client program does: work until told otherwise, and tell at the window's start and end how far it is.

Imports nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from typing import Any


def arguments() -> argparse.Namespace:
    """ADDRESS --mode send|cycle --connections N --seconds S --warmup S."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--mode", choices=("send", "cycle"), default="cycle")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--fifo", action="store_true")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--queue", default="bench")
    return parser.parse_args()


def tell(messages: int) -> None:
    """A line for who measures: how many messages are done, and the CPU seconds that it took here."""
    print(json.dumps({"at": time.monotonic(), "messages": messages, "cpu_s": time.process_time()}), flush=True)


class Counter:
    """How many messages are done, by all threads."""

    def __init__(self, workers: int) -> None:
        self.done = [0] * workers
        self.stop = threading.Event()
        self.failed: list[BaseException] = []


def in_threads(given: argparse.Namespace, work: Callable[[int, Counter], Any]) -> None:
    """Run `work(number, counter)` in a thread a connection; tell at both ends of the window. Exits with what went wrong."""
    counter = Counter(given.connections)

    def run(number: int) -> None:
        try:
            work(number, counter)
        except BaseException as error:  # noqa: BLE001 - told by who started the threads
            counter.failed.append(error)
            counter.stop.set()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(given.connections)]
    for thread in threads:
        thread.start()
    for seconds in (given.warmup, given.seconds):
        counter.stop.wait(seconds)
        tell(sum(counter.done))
    counter.stop.set()
    for thread in threads:
        thread.join(30)
    if counter.failed:
        raise SystemExit(f"{type(counter.failed[0]).__name__}: {counter.failed[0]}")
