"""The demo's web app, plain ASGI: POST /departures takes an hour of an airport, GET /delays tells the latest windows.

A POST has an Idempotency-Key. It is answered 202 once its task is on the disk; a client whose connection was cut, or that was
told to come again, repeats it, and it still is one task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

import msgspec

import headrace
from demo.shapes import RESULTS, Departures
from demo.tasks import app as tasks
from demo.tasks import file_departures
from headrace.errors import CallerError, StoreError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LATEST: Final = 30  # windows that GET /delays tells: ten days of three airports
KEPT_FOR: Final = "1 hour"  # an Idempotency-Key

_departures = msgspec.json.Decoder(Departures)


class Answer(NamedTuple):
    status: int
    body: object
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The ASGI app. Lifespan is not there: the server goes on without."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    answer = await respond(scope["method"], scope["path"], dict(scope["headers"]), receive)
    headers = [(b"content-type", b"application/json"), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(answer.body)})


async def respond(method: str, path: str, headers: dict[bytes, bytes], receive: Receive) -> Answer:
    """What a request gets."""
    try:
        match method, path:
            case "POST", "/departures":
                return await take(headers.get(b"idempotency-key", b"").decode(), await read(receive))
            case "GET", "/delays":
                return Answer(200, await latest())
    except (msgspec.ValidationError, msgspec.DecodeError, CallerError) as error:
        return Answer(400, {"error": str(error)})
    except StoreError as error:  # the broker has just died: whether it has stored the task is not known, so come again
        return Answer(503, {"error": str(error)}, ((b"retry-after", b"1"),))
    return Answer(404, {"error": f"there is no {method} {path}; there are POST /departures and GET /delays"})


async def take(key: str, body: bytes) -> Answer:
    """Send the task, once for each key."""
    if not key:
        return Answer(400, {"error": "Idempotency-Key is missing: without it, a repeated request would count twice"})
    departures = _departures.decode(body)
    once = file_departures.options(unique=key, unique_until="ttl", unique_ttl=KEPT_FOR)
    handle = await once.asend(key, departures.flights)
    return Answer(202, {"task": handle.id, "repeated": handle.duplicate})


async def read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


_latest: deque[Any] = deque(maxlen=LATEST)
_seen = 0


async def latest() -> list[Any]:
    """The latest windows, newest last: what the pipeline has published since the last look is added."""
    global _seen
    async with headrace.connect_async(tasks.broker or "data/store") as client:
        topic = await client.topic(RESULTS)
        while page := await topic.read_log(_seen):
            _seen = page[-1].sequence
            _latest.extend(message.json() for message in page)
    return list(_latest)
