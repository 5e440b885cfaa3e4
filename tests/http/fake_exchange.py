"""An exchange without a connection: records what is answered; the test says what the client takes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from headrace.http.exchange import DONE, Exchange
from headrace.http.fields import Fields


class FakeExchange(Exchange):
    """Takes everything, unless `room` is set: then so many sends until `take_more`."""

    __slots__ = ("block", "body", "done", "informed", "received", "room", "sends", "shown_length")

    def __init__(
        self, path: str = "/", headers: Mapping[bytes, bytes] = {}, *, method: str = "GET", room: int = 1 << 60
    ) -> None:
        super().__init__()
        self.method = method
        self.target = path
        self.path, _, self.query = path.partition("?")
        self.headers = dict(headers)
        self.version = "1.1"
        self.secure = False
        self.peer, self.peer_port, self.server = "127.0.0.1", 1, ("127.0.0.1", 80)
        self.upgrade = b""
        self.length = 0
        self.expects = False
        self.began_s = 0.0
        self.received = b""
        self.block = Fields()
        self.shown_length: int | None = None
        self.body = b""
        self.sends: list[bytes] = []
        self.done = False
        self.room = room
        self.informed: list[int] = []

    def take(self) -> bytes:
        data, self.received = self.received, b""
        return data

    @property
    def ended(self) -> bool:
        return True

    @property
    def writable(self) -> bool:
        return self.gone or self.room > 0

    def take_more(self, room: int = 1) -> None:
        self.room = room
        if self.notify is not None:
            self.notify()

    async def wait_done(self) -> None:
        """Let the loop turn until the answer is complete."""
        for _ in range(1_000):
            if self.done:
                return
            await asyncio.sleep(0)
        raise AssertionError("the answer never ends")

    @property
    def answer(self) -> dict[bytes, bytes]:
        return dict(self.block.pairs())

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        self.block, self.body, self.done = fields, body, True
        self.shown_length = length if fields.length is None else fields.length
        if body:
            self.sends.append(body)

    def _start(self, status: int, fields: Fields) -> None:
        self.block = fields
        self.shown_length = fields.length

    def _send(self, data: bytes) -> None:
        self.room -= 1
        self.sends.append(data)
        self.body += data

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self.room -= 1
        data = os.pread(fd, count, offset)
        os.close(fd)
        self.sends.append(data)
        self.body += data
        if len(data) < count:
            self.abort()

    def _finish(self) -> None:
        assert self.stage is DONE
        self.done = True

    def _tunnel(self, fields: Fields) -> None:
        self.block = fields

    def _inform(self, status: int, fields: Fields) -> None:
        self.informed.append(status)

    def _abort(self) -> None:
        pass
