"""The broker: the shell around a store. It gathers requests into commits and lets polls wait.

It only sequences. Rules are in `queue/`, SQL in the store, parsing in the systems.

Group commit: requests that arrive within one turn of the event loop, or while a commit is on its way, form the next
one. No timer; the batch adapts to the load, from 1 to thousands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from headrace.clock import Clock
from headrace.errors import HeadraceError, Unavailable
from headrace.queue.model import QueueInfo
from headrace.queue.operations import Operation, Receive
from headrace.queue.store.base import Done, Request, Store


class Poll:
    """A receive that waits for messages. `cancel()` once its client has gone: it takes nothing and answers nothing."""

    __slots__ = ("connected", "deadline_ms", "done", "operation", "timer")

    def __init__(self, operation: Receive, done: Done, connected: Callable[[], bool], deadline_ms: int) -> None:
        self.operation = operation
        self.done: Done | None = done
        self.connected = connected
        self.deadline_ms = deadline_ms
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        self.done = None
        if self.timer is not None:
            self.timer.cancel()


class Broker:
    """One owner of one store, on one event loop.

    Invariant: a request submitted is answered exactly once, unless its poll is cancelled.
    """

    def __init__(self, store: Store, clock: Clock) -> None: ...

    async def start(self) -> None:
        """Begin to serve: run what is due, and go on doing so."""

    async def stop(self) -> None:
        """Answer waiting polls with nothing, refuse new requests with Unavailable, finish commits, close the store."""

    def submit(self, operation: Operation, done: Done) -> None:
        """Ask for `operation`; `done` gets the outcome (a value or a HeadraceError), on the loop, maybe at once."""

    async def call(self, operation: Operation) -> Any:
        """The outcome of `operation`; a HeadraceError is raised."""

    def receive(
        self, operation: Receive, done: Done, *, wait_ms: int, connected: Callable[[], bool] = lambda: True
    ) -> Poll | None:
        """Receive, waiting up to `wait_ms` (0 to 20,000) for the first message; polls of a queue are served in turn.

        `connected` is asked right before messages are leased: a client that left is not handed any. Returns the poll
        to cancel when the client leaves, or None when it was answered or will be without waiting.
        """

    def find(self, queue: str) -> QueueInfo | None:
        """The queue's info, at once, without I/O."""
