"""A client that sends so many requests a second, as users behave, though never too many at once; every outcome is kept.

Each request asks for something of its own and knows the answer, so that a wrong one, or another's, is a failure, too.
Half of them use connections that are kept, half connections of their own.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from tests.patience import PATIENCE_S

RATE = 200
AT_ONCE_MAX = 16
"""More than are under way at that rate on a machine that has nothing else to do. A busy one cannot do it, and what is shed
then says nothing of what the test does: sixteen that share three threads wait for less than eight times as long as one runs."""

APP = """
import os, time
time.sleep(float(os.environ.get("IMPORT_S", "0")))
def app(environ, start_response):
    path, length = environ["PATH_INFO"], int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if path.startswith("/slow") or body:
        time.sleep(0.1)
    answer = b"VERSION %s %s" % (path.encode(), body)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""
"""One in five requests takes 100 ms, so that some are in flight whenever something dies."""

ASYNC = """
import asyncio, os, time
time.sleep(float(os.environ.get("IMPORT_S", "0")))
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"].startswith("/slow") or body:
        await asyncio.sleep(0.1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"VERSION %s %s" % (scope["path"].encode(), body)})
"""

APPS = {"wsgi": APP, "asgi": ASYNC}


@dataclass(slots=True)
class Outcome:
    """Of one request. `status` 0: no answer; then `error` says why, and `sent_s` when it had been sent that was cut: later than
    it began, if its connection was made first."""

    method: str
    path: str
    began_s: float
    ended_s: float = 0.0
    status: int = 0
    version: str = ""
    error: str = ""
    sent_s: float = math.inf

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


class Cut(Exception):
    """The connection has ended before, or within, an answer. `raced`: a kept one, before any of it."""

    def __init__(self, *, raced: bool) -> None:
        super().__init__("cut")
        self.raced = raced


class Connection:
    """HTTP/1.1, as much as the apps above need."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._used = False
        self.closing = False
        self.sent_s = math.inf

    async def ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        begun = False
        try:
            self._writer.write(head.encode() + body)
            self.sent_s = time.monotonic()
            line = await self._reader.readuntil(b"\r\n\r\n")
            begun = True
            fields = line.decode("latin-1").lower()
            self.closing = "connection: close" in fields
            self._used, status = True, int(fields.split(" ", 2)[1])
            return status, await self._body(fields)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            raise Cut(raced=self._used and not begun) from None

    async def _body(self, fields: str) -> bytes:
        for field in fields.split("\r\n"):
            name, _, value = field.partition(":")
            if name == "content-length":
                return await self._reader.readexactly(int(value))
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body

    def close(self) -> None:
        self._writer.transport.abort()


class Traffic:
    """See the module. Runs on a thread of its own from `start` to `stop`."""

    def __init__(self, port: int, *, rate: int = RATE, posts: float = 0.05) -> None:
        self._port = port
        self._gap_s = 1 / rate
        self._every = round(1 / posts) if posts else 0
        self._idle: list[Connection] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._stop = threading.Event()
        self.outcomes: list[Outcome] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more requests; wait for the answers."""
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        running: set[asyncio.Task[None]] = set()
        number, due_s = 0, time.monotonic()
        while not self._stop.is_set():
            if len(running) >= AT_ONCE_MAX:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                continue
            number, due_s = number + 1, due_s + self._gap_s
            task = asyncio.create_task(self._one(number))
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(due_s - time.monotonic())
        await asyncio.gather(*running)
        for connection in self._idle:
            connection.close()

    async def _one(self, number: int) -> None:
        method = "POST" if self._every and number % self._every == 0 else "GET"
        path = f"/{'slow' if number % 5 == 1 else 'fast'}/{number}"
        outcome = Outcome(method, path, time.monotonic())
        self.outcomes.append(outcome)
        try:
            await asyncio.wait_for(self._ask(outcome, keep=number % 2 == 0), PATIENCE_S)
        except Cut:
            outcome.error = "cut"
        except (OSError, ValueError) as error:
            outcome.error = f"{type(error).__name__}: {error}"
        outcome.ended_s = time.monotonic()

    async def _ask(self, outcome: Outcome, *, keep: bool) -> None:
        sent = b"%d" % len(outcome.path) if outcome.method == "POST" else b""
        connection = self._idle.pop() if keep and self._idle else await self._open()
        try:
            outcome.status, body = await connection.ask(outcome.method, outcome.path, sent)
        except Cut as cut:
            connection.close()
            if not cut.raced:
                outcome.sent_s = connection.sent_s
                raise
            connection = await self._open()  # RFC 9110 9.2.2: what clients do when a kept one turns out closed
            outcome.status, body = await connection.ask(outcome.method, outcome.path, sent)
        if keep and not connection.closing:
            self._idle.append(connection)
        else:
            connection.close()
        if outcome.status == 200:
            outcome.version, _, rest = body.decode().partition(" ")
            if rest != f"{outcome.path} {sent.decode()}":
                raise ValueError(f"{outcome.method} {outcome.path} was answered {body!r}")

    async def _open(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self._port))

    # What came of it

    def failed(self) -> list[Outcome]:
        """Everything but 200; of POSTs, 502 is none: they were in flight when something died."""
        return [one for one in self.outcomes if one.status != 200 and (one.method, one.status) != ("POST", 502)]

    def lost_posts(self) -> int:
        return sum((one.method, one.status) == ("POST", 502) for one in self.outcomes)

    def versions(self) -> Counter[str]:
        return Counter(one.version for one in self.outcomes)

    def gap_s(self) -> float:
        """The longest time without an answer."""
        ends = sorted(one.ended_s for one in self.outcomes if one.ended_s)
        return max((b - a for a, b in pairwise(ends)), default=0.0)

    def report(self) -> str:
        took = sorted(one.took_s for one in self.outcomes if one.path.startswith("/fast") and one.method == "GET")
        return (
            f"{len(self.outcomes)} requests, {len(self.failed())} failed, {self.lost_posts()} POSTs answered 502; "
            f"the fast: p50 {took[len(took) // 2] * 1000:.1f} ms, p99 {took[len(took) * 99 // 100] * 1000:.0f} ms, "
            f"longest {took[-1] * 1000:.0f} ms; longest gap {self.gap_s() * 1000:.0f} ms"
        )

    def answered_since(self, count: int) -> bool:
        """Whether so many more requests are over than had begun at some point."""
        return sum(bool(one.ended_s) for one in self.outcomes) >= count


@contextmanager
def traffic(port: int, *, rate: int = RATE, posts: float = 0.05) -> Iterator[Traffic]:
    """Traffic as long as the block runs."""
    running = Traffic(port, rate=rate, posts=posts)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        print(running.report())
