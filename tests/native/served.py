"""A broker over real sockets, in a thread of the test's process; on a store without a disk, if nothing else is said."""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from headrace.clock import Clock, SteadyClock
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.http.messages import Request
from headrace.http.router import Router
from headrace.native.server import NativeService
from headrace.queue.broker import Broker
from headrace.queue.store.base import Store
from headrace.queue.store.memory import open_memory_store
from tests.patience import PATIENCE_S


def in_memory() -> tuple[Store, Clock]:
    clock = SteadyClock()
    return open_memory_store(clock, cooldowns=False), clock


class ServedBroker:
    """Broker, native service and listener, on a loop of their own until `stop`."""

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        open_store: Callable[[], tuple[Store, Clock]] = in_memory,
    ) -> None:
        self.unix_path = folder / "headrace.sock"
        self.port = port
        self.requests: list[Request] = []
        """What has arrived, newest last."""
        self.handlers: dict[str, Callable[[Request], None]] = {}
        """A test's own handler by path, instead of the service's."""
        self.grace_s = 10.0
        """How long `stop` waits for answers; 0 where a test's own handler gives none."""
        self._tls = tls
        self._open_store = open_store
        self._loop = uvloop.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def run(self, function: Callable[[Broker], Any]) -> Any:
        """Call a function on the broker's loop."""
        answer: list[Any] = []
        called = threading.Event()

        def call() -> None:
            answer.append(function(self.broker))
            called.set()

        self._loop.call_soon_threadsafe(call)
        assert called.wait(PATIENCE_S)
        return answer[0]

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        store, clock = self._open_store()
        self.broker = Broker(store, clock)
        await self.broker.start()
        service = NativeService(self.broker, clock)

        def handle(request: Request) -> None:
            self.requests.append(request)
            self.handlers.get(request.path, service.handle)(request)

        listener = Listener(Router(handle), limits=Limits(body_bytes=80_000_000), tls=self._tls)
        self.port = listener.open_tcp("127.0.0.1", self.port)
        listener.open_unix(self.unix_path)
        self._ready.set()
        await self._stopping.wait()
        self.broker.drain()
        await listener.close(self.grace_s)
        await self.broker.stop()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextmanager
def interrupted_when(holds: Callable[[], bool]) -> Iterator[None]:
    """What runs in this thread ends with KeyboardInterrupt once it holds, whatever handler other tests have left."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        eventually(holds)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
