"""The embedded transports: a broker in this process, over a folder that this process owns.

For threads, the broker runs on an event loop in a thread of its own; a call hops there and back (about 20 µs). For an
event loop, the broker runs on it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from pathlib import Path
from typing import Any

import uvloop

from headrace.clock import Clock
from headrace.errors import OutcomeUnknown, Unavailable
from headrace.native.protocol import BrokerStatistics
from headrace.queue.broker import HUNG, Broker
from headrace.queue.operations import Operation
from headrace.queue.polls import Poll
from headrace.queue.presence import Stay
from headrace.queue.store.base import Store


class _Host:
    """A broker and its store, from open to close, on the loop that is running."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.broker = Broker(store, clock)
        self._store = store
        self._clock = clock

    @classmethod
    async def open(cls, folder: Path, *, cooldowns: bool) -> _Host:
        from headrace.queue.store.sqlite import open_store  # noqa: PLC0415 - apsw is loaded by who needs a store

        host = cls(*open_store(folder, cooldowns=cooldowns))
        await host.broker.start()
        return host

    def statistics(self) -> BrokerStatistics:
        return BrokerStatistics(self._clock(), self._store.statistics())


class _Waiter:
    """A thread that waits for an outcome. A bare lock: a Future costs more than the hop between the threads."""

    __slots__ = ("_answered", "abandoned", "outcome", "waits")

    def __init__(self) -> None:
        self._answered = threading.Lock()
        self._answered.acquire()
        self.outcome: Any = None
        self.waits: Poll | Stay | None = None
        self.abandoned = False

    def done(self, outcome: Any) -> None:
        self.outcome = outcome
        self._answered.release()

    def wait(self) -> None:
        self._answered.acquire()

    def result(self) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def connected(self) -> bool:
        return not self.abandoned

    def abandon(self) -> None:
        """On the broker's thread: the waiting thread was interrupted."""
        if self.waits is not None:
            self.waits.cancel()


class EmbeddedTransport:
    """A broker in a thread of this process. Any number of threads may call.

    Raises:
        StoreUnusable: the folder cannot be opened, or another process has it.
        StoreDamaged: what is in it cannot be trusted.
    """

    def __init__(self, folder: Path, *, cooldowns: bool) -> None:
        self._folder = folder
        self._cooldowns = cooldowns
        self._loop = uvloop.new_event_loop()
        self._stopping = asyncio.Event()
        self._gate = threading.Lock()
        """Held while a call is handed over and while `close` begins: none is handed over after the broker's end."""
        self._closed = False
        self._process = os.getpid()
        self._host: _Host | None = None
        self._waiting: set[_Waiter] = set()
        """For answers; the broker's thread's own."""
        opened = _Waiter()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="headrace broker", daemon=True)
        self._thread.start()
        opened.wait()
        self._closed = isinstance(opened.outcome, BaseException)
        self._host = opened.result()
        atexit.register(self.close)

    def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        waiter = _Waiter()
        self._hand_over(self._submit, operation, wait_ms, waiter)
        try:
            waiter.wait()
        except BaseException:  # an interrupt, such as Ctrl-C: nobody is there any more to take messages
            waiter.abandoned = True
            self._hand_over(waiter.abandon)
            raise
        return waiter.result()

    def statistics(self) -> BrokerStatistics:
        waiter = _Waiter()
        self._hand_over(lambda: waiter.done(self._opened().statistics()))
        waiter.wait()
        statistics: BrokerStatistics = waiter.result()
        return statistics

    def close(self) -> None:
        with self._gate:
            if self._closed or self._process != os.getpid():
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        atexit.unregister(self.close)

    def _hand_over(self, function: Any, *arguments: Any) -> None:
        with self._gate:
            if self._closed:
                raise Unavailable("this client is closed")
            if self._process != os.getpid():  # its thread has stayed with the parent: nobody would ever answer
                raise Unavailable(
                    "this client was opened before the fork; let the parent serve the folder, and connect to it"
                )
            self._loop.call_soon_threadsafe(function, *arguments)

    # On the broker's thread.

    def _run(self, opened: _Waiter) -> None:
        try:
            self._loop.run_until_complete(self._serve(opened))
        finally:
            self._loop.close()

    async def _serve(self, opened: _Waiter) -> None:
        try:
            host = await _Host.open(self._folder, cooldowns=self._cooldowns)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that asked
            opened.done(error)
            return
        opened.done(host)
        await self._stopping.wait()
        await host.broker.stop()
        for waiter in self._waiting:  # only of a disk that hangs: whoever waits for it must not wait for ever
            waiter.done(OutcomeUnknown(HUNG))

    def _opened(self) -> _Host:
        assert self._host is not None
        return self._host

    def _submit(self, operation: Operation, wait_ms: int, waiter: _Waiter) -> None:
        def done(outcome: Any) -> None:
            self._waiting.discard(waiter)
            waiter.done(outcome)

        self._waiting.add(waiter)
        broker = self._opened().broker
        waiter.waits = broker.ask(operation, done, wait_ms=wait_ms, connected=waiter.connected)


class AsyncEmbeddedTransport:
    """A broker on the running event loop; one task of it at a time runs anyway, so calls need no hop."""

    def __init__(self, host: _Host) -> None:
        self._host = host
        self._closed = False

    @classmethod
    async def open(cls, folder: Path, *, cooldowns: bool) -> AsyncEmbeddedTransport:
        """Raises as EmbeddedTransport."""
        return cls(await _Host.open(folder, cooldowns=cooldowns))

    async def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        if self._closed:
            raise Unavailable("this client is closed")
        return await self._host.broker.call(operation, wait_ms=wait_ms)

    async def statistics(self) -> BrokerStatistics:
        return self._host.statistics()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._host.broker.stop()
