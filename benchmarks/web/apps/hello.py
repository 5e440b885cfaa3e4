"""The least that a server can be asked to run, so that what is measured is the server; and the same with CPU to burn."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

BODY: Final = b"Hello, world!\n"
HEADERS: Final = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(BODY)))]
RAW_HEADERS: Final = [(name.lower().encode(), value.encode()) for name, value in HEADERS]


def wsgi(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI, without a framework."""
    start_response("200 OK", HEADERS)
    return [BODY]


async def asgi(scope: dict[str, Any], _: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
    """ASGI, without a framework and without lifespan."""
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not supported")
    await send({"type": "http.response.start", "status": 200, "headers": RAW_HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def burn(path: str) -> None:
    """Use as many milliseconds of CPU as the path says (`/5`): of this thread's, whatever else the machine does."""
    end = time.thread_time() + int(path.lstrip("/") or 0) / 1_000
    while time.thread_time() < end:
        sum(range(200))


def burning_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """In a thread of the server's."""
    burn(environ["PATH_INFO"])
    return wsgi(environ, start_response)


async def burning_asgi(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]) -> None:
    """On the server's loop, as a coroutine that computes does."""
    if scope["type"] == "http":
        burn(scope["path"])
    await asgi(scope, receive, send)
