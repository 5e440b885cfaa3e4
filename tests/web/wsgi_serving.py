"""A WSGI application behind a real listener, in both placements: what a test asks by a real client."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.web.apps.wsgi_target import WsgiTarget
from headrace.web.dispatch.dispatcher import Dispatcher
from headrace.web.dispatch.local_dispatcher import LocalDispatcher
from headrace.web.ipc.frames import Hello
from headrace.web.ipc.link_server import LinkServer
from headrace.web.ipc.wsgi_link_threads import WsgiLinkThreads
from tests.patience import PATIENCE_S

THREADS = 3


class _Loop:
    """A loop in a thread: a listener, and what is behind it."""

    def __init__(self, make_target: Callable[[AsyncExitStack], Any]) -> None:
        self._make_target = make_target
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            listener = Listener(target=self._make_target(stack), limits=Limits(body_bytes=2**30))
            self.port = listener.open_tcp("127.0.0.1", 0)
            stack.push_async_callback(listener.close, 0.1)
            self._ready.set()
            await self._stop.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@contextmanager
def by_edge(app: Any, folder: Path) -> Iterator[str]:
    """An edge, and a worker whose threads happen to be in the same process."""

    def target(stack: AsyncExitStack) -> Any:
        dispatcher = Dispatcher()
        server = LinkServer(folder / "link", dispatcher)
        stack.push_async_callback(server.close, PATIENCE_S)
        return dispatcher

    loop = _Loop(target)
    hello = Hello(os.getpid(), 1, "wsgi", 1)
    worker = WsgiLinkThreads(app, edges=[folder / "link"], threads=THREADS, hello=hello)
    try:
        yield f"http://127.0.0.1:{loop.port}"
    finally:
        worker.leave()
        assert worker.join(PATIENCE_S)
        loop.stop()


@contextmanager
def direct(app: Any, folder: Path) -> Iterator[str]:
    """The application's threads beside the loop that has the connections."""

    def target(stack: AsyncExitStack) -> Any:
        threads = WsgiTarget(app, threads=THREADS)
        stack.push_async_callback(threads.close, PATIENCE_S)
        return LocalDispatcher(threads, capacity=THREADS)

    loop = _Loop(target)
    try:
        yield f"http://127.0.0.1:{loop.port}"
    finally:
        loop.stop()


PLACEMENTS = {"edge": by_edge, "direct": direct}
