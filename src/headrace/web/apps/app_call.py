"""The base of one call of an ASGI application, for HTTP and WebSocket.

An answer's head is held until the first piece of its body, as ASGI allows: a whole answer is then one call and one write.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote

from headrace.http.exchange import ANSWERING, WAITING, Exchange
from headrace.http.fields import Fields, check_status

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_ASGI_VERSION: Final = "3.0"


class AppCall(ABC):
    """One call of the application. It ends with the application's coroutine; `AsgiTarget` keeps it until then.

    `exchange.notify` is set only while a coroutine waits for it: most requests never need it.
    """

    __slots__ = ("_head", "_loop", "_waiters", "exchange", "task")

    task: asyncio.Task[None]

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self.exchange = exchange
        self._loop = loop
        self._head: tuple[int, Fields] | None = None
        """Of the answer, given by the application and not sent yet."""
        self._waiters: list[asyncio.Future[None]] = []

    @abstractmethod
    async def receive(self) -> Message: ...

    @abstractmethod
    async def send(self, message: Message) -> None: ...

    @abstractmethod
    async def conclude(self, error: BaseException | None) -> str:
        """The application has returned, or raised `error`: end what it left open. Returns what it did wrong, or ""."""

    @property
    def left(self) -> bool:
        """Whether the client disconnected, so that what fails now probably fails because of that."""
        return self.exchange.gone

    def leave(self) -> None:  # noqa: B027  # nothing to do, for most
        """The worker would like to stop: end soon, if that is possible at all."""

    # Waiting

    async def _changed(self) -> None:
        """Wait until the exchange changes in any way; callers check again."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        self.exchange.notify = self._notified
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def _notified(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _room(self) -> None:
        """Wait until the exchange is writable."""
        while not self.exchange.writable:
            await self._changed()

    # The answer

    def _answer_start(self, message: Message) -> None:
        if self._head is not None or self.exchange.stage is not WAITING:
            raise RuntimeError(f"{message['type']} was sent twice")
        self._head = check_status(message["status"]), Fields.of(message.get("headers", ()))

    async def _answer_body(self, message: Message) -> None:
        body = message.get("body", b"")
        if body.__class__ is not bytes:
            body = _to_bytes(body)
        head = self._head
        if message.get("more_body", False):
            self._begin(message["type"])
            self.exchange.send(body)
            if not self.exchange.writable:
                await self._room()
            return
        if head is not None:
            self._head = None
            self.exchange.respond(head[0], head[1], body)
        else:
            self._begin(message["type"])
            self.exchange.send(body)
            self.exchange.finish()
        self._notified()  # whoever waits in receive: it is over

    async def _answer_file(self, message: Message) -> None:
        """`http.response.pathsend`: the whole body is a file."""
        fd, size = _open_file(Path(message["path"]))
        try:
            if self._head is not None and self._head[1].length is None:
                self._head = self._head[0], self._head[1].replace(add=[(b"content-length", b"%d" % size)])
            self._begin(message["type"])
        except BaseException:
            os.close(fd)
            raise
        self.exchange.send_file(fd, 0, size)
        await self._room()
        self.exchange.finish()
        self._notified()

    def _begin(self, kind: str) -> None:
        """Send the head that is held, if it is: a piece of the body follows."""
        if self._head is not None:
            head, self._head = self._head, None
            self.exchange.start(*head)
        elif self.exchange.stage is not ANSWERING and not self.exchange.gone:
            state = (
                "before the answer was started" if self.exchange.stage is WAITING else "after the answer was complete"
            )
            raise RuntimeError(f"{kind} was sent {state}")


def scope_of(exchange: Exchange, kind: str, scheme: str) -> dict[str, Any]:
    """The part of the scope that HTTP and WebSocket share. `path` includes `root_path`, as ASGI wants."""
    whole, root_path = exchange.path, exchange.root_path
    if root_path:
        whole = root_path + whole
        root_path = unquote(root_path)
    host, port = exchange.server
    return {
        "type": kind,
        "asgi": {"version": _ASGI_VERSION, "spec_version": "2.3"},
        "http_version": exchange.version,
        "scheme": scheme,
        "path": unquote(whole) if "%" in whole else whole,
        "raw_path": whole.encode("latin-1"),
        "query_string": exchange.query.encode("latin-1"),
        "root_path": root_path,
        "headers": list(exchange.headers.items()),
        "client": None if exchange.peer == "unix" else (exchange.peer, exchange.peer_port),
        "server": (host, port or None),
    }


def _to_bytes(body: Any) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise TypeError(f"body must be bytes, not {type(body).__name__}")


def _open_file(path: Path) -> tuple[int, int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would block without
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(f"{path} is not a regular file")
    return fd, found.st_size


def single_callable(app: Callable[..., Any]) -> App:
    """`app` as ASGI 3; ASGI 2 is a callable of the scope alone, that returns one of receive and send."""
    if not _takes_scope_only(app):
        return cast("App", app)

    async def single(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return single


def _takes_scope_only(app: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return False
    return sum(parameter.kind in positional for parameter in parameters) == 1
