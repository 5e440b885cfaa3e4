"""A broker on a loop for tests: stores that are slow, or fail, or only take notes; and few words to drive it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec

from headrace.clock import Clock, ManualClock, SteadyClock
from headrace.errors import StoreError, StoreFailed, Unavailable
from headrace.queue import operations as ops
from headrace.queue.broker import Broker
from headrace.queue.model import QueueInfo, arn_of
from headrace.queue.store.base import Offload, Ready, Request, Store
from headrace.queue.store.disk import Batch
from headrace.queue.store.local.store import LocalStore
from headrace.queue.store.memory import MemoryDisk, open_memory_store
from headrace.testing import entry
from tests.patience import PATIENCE_S

P = ParamSpec("P")

WAIT_MS = 20_000
"""How long polls wait that are to be answered by something else than their time."""


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Let a coroutine be a test. A broker that forgets somebody fails it and does not hang it."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_S))

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until a condition holds that another thread brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let everything that is ready on the loop run, without letting time pass."""
    for _ in range(count):
        await asyncio.sleep(0)


class SlowDisk(MemoryDisk):
    """A disk whose commits run in a thread, and stay there until `gate` is open. `fails`: what the next one raises."""

    sync_seconds = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.fails: StoreError | None = None
        self.batches: list[Batch] = []

    def prepare(self, batch: Batch) -> None:
        self.batches.append(batch)
        if isinstance(self.fails, Unavailable):
            raise self.fails
        super().prepare(batch)

    def commit(self) -> None:
        assert self.gate.wait(PATIENCE_S)
        if self.fails is not None:
            raise self.fails


class NotesStore:
    """A store that only takes notes: no rules, and an answer by `answer`, which may be put off."""

    durable = False
    shared = False

    def __init__(self) -> None:
        self.batches: list[list[ops.Operation]] = []
        self.answer: Callable[[Request], None] = lambda request: request.done("done")
        self.next_ms: int | None = None
        self.ready: set[Ready] = set()
        self.is_busy = False
        self.failure: StoreFailed | None = None
        self.advances = self.closes = 0
        self.offload: Offload | None = None

    def attach(self, offload: Offload | None) -> None:
        self.offload = offload

    def execute(self, requests: Sequence[Request]) -> None:
        if requests:
            self.batches.append([request.operation for request in requests])
        for request in requests:
            self.answer(request)

    def advance(self) -> int | None:
        self.advances += 1
        return self.next_ms

    def take_ready(self) -> set[Ready]:
        ready, self.ready = self.ready, set()
        return ready

    def find(self, queue: str) -> QueueInfo | None:
        return None

    def busy(self) -> bool:
        return self.is_busy

    def failed(self) -> StoreFailed | None:
        return self.failure

    def away(self) -> str | None:
        return None

    def statistics(self) -> Any:
        raise AssertionError("the broker has no use for them")

    def close(self) -> None:
        self.closes += 1


@asynccontextmanager
async def running(store: Store | None = None, clock: Clock | None = None) -> AsyncIterator[Broker]:
    """A broker that has started, on a memory store unless one is given; stopped in the end."""
    clock = clock or SteadyClock()
    broker = Broker(store or open_memory_store(clock), clock)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@asynccontextmanager
async def slow() -> AsyncIterator[tuple[Broker, SlowDisk]]:
    """A broker on a slow disk, which is open again in the end."""
    disk, clock = SlowDisk(), ManualClock()
    async with running(LocalStore(disk, clock), clock) as broker:
        try:
            yield broker, disk
        finally:
            disk.gate.set()


async def create(broker: Broker, name: str = "q", **settings: Any) -> str:
    """Create a queue; a name in `.fifo` makes it a FIFO queue that deduplicates by content."""
    if name.endswith(".fifo"):
        settings = {"fifo": True, "content_dedup": True, **settings}
    await broker.call(ops.CreateQueue(arn_of(name), settings))
    return arn_of(name)


async def send(broker: Broker, queue: str, *bodies: str, **fields: Any) -> None:
    await broker.call(ops.Send(queue, [entry(body, **fields) for body in bodies]))


class Waiter:
    """A poll and what it was answered: the bodies of its messages, or an error."""

    def __init__(self, broker: Broker, queue: str, limit: int = 1, *, wait_ms: int = WAIT_MS, **fields: Any) -> None:
        self._ask(broker, ops.Receive(queue, limit, **fields), wait_ms)

    def _ask(self, broker: Broker, operation: ops.Polling, wait_ms: int) -> None:
        self.outcomes: list[Any] = []
        self.connected = True
        self.poll = broker.receive(operation, self.outcomes.append, wait_ms=wait_ms, connected=lambda: self.connected)

    def leave(self) -> None:
        """As a listener does when the client's connection is closed."""
        self.connected = False
        assert self.poll is not None
        self.poll.cancel()

    @property
    def answered(self) -> bool:
        return bool(self.outcomes)

    @property
    def bodies(self) -> list[str]:
        (outcome,) = self.outcomes
        return [delivery.message.body.decode() for delivery in outcome]


class Claimer(Waiter):
    """A claim that waits, of one reader."""

    def __init__(self, broker: Broker, queue: str, number: int, *, wait_ms: int = WAIT_MS) -> None:
        self._ask(broker, ops.Claim(queue, "reader", number), wait_ms)

    @property
    def bodies(self) -> list[str]:
        (outcome,) = self.outcomes
        return [message.body.decode() for message in outcome]
