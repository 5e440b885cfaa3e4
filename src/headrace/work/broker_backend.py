"""The backend over headrace's own broker: the native client, with queues that are made when they are first used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from headrace.errors import CallerError, QueueExists, QueueNotFound
from headrace.native import calls
from headrace.native.aio import connect_async
from headrace.native.client import connect
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Peeked, Sent, arn_of, short_name
from headrace.queue.operations import Operation, Transact, TransactOutcome
from headrace.work import keys, limits, names
from headrace.work.backend import Capabilities

T = TypeVar("T")

_THREADS: Final = 8
"""Of async senders: each holds one for as long as a commit takes."""
_WAITERS_MAX: Final = 200
"""Results that are waited for in the broker at a time, on a loop: each has a connection."""
_CREATES_MAX: Final = 200
"""Queues that one call may find missing: a transaction names a few."""


class Caller(Protocol):
    """What is needed of a Client."""

    def call(self, operation: Operation, *, wait: float = 0) -> Any: ...
    def close(self) -> None: ...


class BrokerBackend:
    """See Backend. Async calls run in a few threads of its own: the client is the one for threads."""

    name = "headrace"
    capabilities = Capabilities()

    def __init__(self, target: str | Path | Caller) -> None:
        """Raises as `headrace.connect`."""
        self.client: Caller = connect(target) if isinstance(target, str | Path) else target
        self._url = str(target) if isinstance(target, str | Path) and "://" in str(target) else None
        self._waiters = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="headrace send")

    def prepare(self, queue: str) -> None:
        arn = arn_of(queue)
        try:
            self.client.call(ops.GetQueue(arn))
        except QueueNotFound:
            self._create(arn)

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Sent | CallerError]:
        outcomes: list[Sent | CallerError] = []
        for operation in calls.sends(arn_of(queue), entries):
            outcomes += self._call(operation)
        return outcomes

    async def asend(self, queue: str, entries: Sequence[Entry]) -> list[Sent | CallerError]:
        return await self._aside(lambda: self.send(queue, entries))

    def receive(
        self, queues: Sequence[str], limit: int, *, visibility_ms: int, wait_s: float, holder: str | None = None
    ) -> list[tuple[str, list[Delivery]]]:
        operation = ops.ReceiveAny([arn_of(queue) for queue in queues], limit, visibility_ms, holder)
        return [(short_name(arn), deliveries) for arn, deliveries in self._call(operation, wait_s)]

    def message_state(self, queue: str, seq: int) -> str | None:
        peeked: list[Peeked] = self._call(ops.Peek(arn_of(queue), 1, seq - 1))
        return peeked[0].state if peeked and peeked[0].message.seq == seq else None

    def take(self, queue: str, seqs: Sequence[int], *, visibility_ms: int) -> list[Delivery | CallerError]:
        taken: list[Delivery | CallerError] = self._call(ops.Take(arn_of(queue), list(seqs), visibility_ms))
        return taken

    def change_visibility(
        self, queue: str, changes: Sequence[tuple[bytes, int]], *, holder: str | None = None
    ) -> list[CallerError | None]:
        operation = ops.ChangeVisibility(arn_of(queue), list(changes), holder, strict=True)
        outcomes: list[CallerError | None] = self._call(operation)
        return outcomes

    def transact(self, operation: Transact) -> TransactOutcome:
        outcome: TransactOutcome = self._call(operation)
        return outcome

    async def atransact(self, operation: Transact) -> TransactOutcome:
        return await self._aside(lambda: self.transact(operation))

    def state(self, prefix: bytes, *, limit: int = 10_000, after: bytes = b"") -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = self._call(ops.GetState(keys.NAME, prefix, limit, after))
        return rows

    def read(self, key: bytes) -> bytes | None:
        return self.wait_state(key, 0)

    async def aread(self, key: bytes) -> bytes | None:
        return await self._aside(lambda: self.read(key))

    def wait_state(self, key: bytes, wait_s: float) -> bytes | None:
        rows: list[tuple[bytes, bytes]] = self._call(ops.GetState(keys.NAME, key, 1), wait_s)
        return rows[0][1] if rows and rows[0][0] == key else None

    async def await_state(self, key: bytes, wait_s: float) -> bytes | None:
        if self._url is None or self._waiters >= _WAITERS_MAX:
            return await self._looked_again(key, wait_s)
        self._waiters += 1
        try:
            async with connect_async(self._url) as client:
                rows: list[tuple[bytes, bytes]] = await client.call(ops.GetState(keys.NAME, key, 1), wait=wait_s)
        finally:
            self._waiters -= 1
        return rows[0][1] if rows and rows[0][0] == key else None

    async def _looked_again(self, key: bytes, wait_s: float) -> bytes | None:
        """For a folder of this process's own, and for those that wait beyond what one broker should keep connections for."""
        until_s = asyncio.get_running_loop().time() + wait_s
        pause_s = limits.POLL_S
        while True:
            row = await self.aread(key)
            left_s = until_s - asyncio.get_running_loop().time()
            if row is not None or left_s <= 0:
                return row
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(limits.POLL_MAX_S, 1.5 * pause_s)

    def hold(self, holder: str, kind: str, facts: dict[str, Any], *, wait_s: float) -> bool:
        came: bool = self._call(ops.Hold(holder, kind, facts), wait_s)
        return came

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.client.close()

    def _call(self, operation: Operation, wait_s: float = 0) -> Any:
        """The outcome; a queue that it misses is made, and the operation asked again."""
        for _ in range(_CREATES_MAX):
            try:
                return self.client.call(operation, wait=wait_s)
            except QueueNotFound as missing:
                self._create(missing.queue)
        return self.client.call(operation, wait=wait_s)

    def _create(self, arn: str) -> None:
        """Make a queue, after the one for its dead letters: that they can be moved back by `headrace queue redrive`."""
        name = short_name(arn)
        settings: dict[str, Any] = {"retention_ms": limits.RETENTION_MS, "visibility_ms": limits.VISIBILITY_MS}
        if name.endswith(".fifo"):
            settings["fifo"] = True
        if not names.is_dead(name):
            target = arn_of(names.dead(name))
            self._create(target)
            settings["redrive"] = {"target": target, "receives_max": limits.RECEIVES_MAX}
        try:
            self.client.call(ops.CreateQueue(arn, settings))
        except QueueExists:  # made in another way, by somebody else: it keeps its settings
            return

    async def _aside(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
