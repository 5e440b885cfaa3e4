"""ASGI applications behind real connections: in the process of the connections, or behind a link. One loop runs it all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.web.apps.asgi import AsgiTarget
from headrace.web.apps.lifespan import Lifespan
from headrace.web.apps.websocket import WebSocketLimits
from headrace.web.dispatch.dispatcher import Dispatcher
from headrace.web.ipc.asgi_link import AsgiLinkClient
from headrace.web.ipc.frames import Hello
from headrace.web.ipc.link_server import LinkServer
from tests.patience import PATIENCE_S

MODES = ("direct", "edge")


@dataclass
class Served:
    port: int
    target: AsgiTarget
    link: AsgiLinkClient | None
    dispatcher: Dispatcher | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    app: Callable[..., Any], mode: str, folder: Path, *, websocket: WebSocketLimits | None = None
) -> AsyncIterator[Served]:
    """The application, served until the end of the block; then it must end cleanly."""
    async with AsyncExitStack() as stack:
        lifespan = Lifespan(app)
        await lifespan.startup()
        stack.push_async_callback(lifespan.shutdown)
        target = AsgiTarget(app, lifespan=lifespan, websocket=websocket)
        stack.push_async_callback(target.close, 2.0)
        dispatcher, link = None, None
        if mode == "edge":
            dispatcher, link = await _link(stack, target, folder)
        listener = Listener(target=dispatcher or target, limits=Limits(body_bytes=2**30))
        stack.push_async_callback(listener.close, 2.0)
        yield Served(listener.open_tcp("127.0.0.1", 0), target, link, dispatcher)


async def _link(stack: AsyncExitStack, target: AsgiTarget, folder: Path) -> tuple[Dispatcher, AsgiLinkClient]:
    dispatcher = Dispatcher(spool_folder=folder)
    server = LinkServer(folder / "links", dispatcher)
    stack.push_async_callback(server.close)
    hello = Hello(pid=os.getpid(), generation=1, interface="asgi", capacity=100)
    link = AsgiLinkClient(folder / "links", target, hello=hello)
    await link.connect()
    stack.push_async_callback(_leave, link)
    return dispatcher, link


async def _leave(link: AsgiLinkClient) -> None:
    link.leave()
    async with asyncio.timeout(PATIENCE_S):
        await link.closed()
