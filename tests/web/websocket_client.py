"""A WebSocket client on an exchange without one; wsproto plays it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event
from wsproto.extensions import PerMessageDeflate

from headrace.web.apps.app_call import App, Message, Receive, Scope, Send
from headrace.web.apps.websocket import WebSocketLimits
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
LIMITS = WebSocketLimits(message_bytes=100_000, inbox_bytes=10_000)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), PATIENCE_S)

    asyncio.run(limited())


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def handshake(version: str = "1.1", **headers: str) -> FakeExchange:
    given = {"Sec-WebSocket-Version": "13"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if version == "1.1":
        given.setdefault("Sec-WebSocket-Key", KEY)
    return FakeExchange(headers=given, upgrade=b"websocket", version=version, body=None, length=0)


class Client:
    """The other end of the tunnel."""

    def __init__(self, exchange: FakeExchange, *, compress: bool = False) -> None:
        self.exchange = exchange
        extension = PerMessageDeflate()
        if compress:
            extension.finalize("permessage-deflate")
        self.wire = Connection(ConnectionType.CLIENT, [extension] if compress else [])
        self.read = 0

    def send(self, *events: Event) -> None:
        self.exchange.arrive(b"".join(self.wire.send(event) for event in events))

    def events(self) -> list[Event]:
        data = bytes(self.exchange.body[self.read :])
        self.read += len(data)
        if data:
            self.wire.receive_data(data)
        return list(self.wire.events())

    async def close(self, code: int = 1000) -> None:
        self.send(CloseConnection(code=code))
        await self.exchange.done.wait()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def recorder(got: list[Message], *, read: bool = True) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await receive())
        await send({"type": "websocket.accept"})
        while read:
            got.append(await receive())
            if got[-1]["type"] == "websocket.disconnect":
                break
        if not read:
            await asyncio.Event().wait()

    return app
