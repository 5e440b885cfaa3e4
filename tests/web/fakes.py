"""An exchange without a client: what a test hands to a consumer, and what the consumer did with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping

import msgspec

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.parse import CHUNKED


class FakeExchange(Exchange):
    """See the module.

    The body is what the test gives with `arrive` and `end`; the answer is in `status`, `fields`, `body`, `log` and, once
    nothing more can come, `whole` or `aborted`. `block()` and `unblock()` play a client that takes nothing for a while.
    """

    def __init__(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        body: bytes | None = b"",
        length: int | None = None,
        version: str = "1.1",
        secure: bool = False,
        peer: str = "192.0.2.1",
        upgrade: bytes = b"",
        began_s: float = 0.0,
    ) -> None:
        """A request, by default with its whole body.

        Args:
            headers: a Host is added unless there is one.
            body: None if it comes later, by `arrive` and `end`.
            length: announced; by default the length of `body`, or CHUNKED if it comes later.
        """
        super().__init__()
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.headers = {name.lower().encode(): value.encode("latin-1") for name, value in pairs}
        self.headers.setdefault(b"host", b"example.org")
        self.version = version
        self.secure = secure
        self.peer = peer
        self.peer_port = 40_000
        self.server = ("127.0.0.1", 8000)
        self.upgrade = upgrade
        self.length = length if length is not None else CHUNKED if body is None else len(body)
        self.expects = self.headers.get(b"expect", b"").lower() == b"100-continue"
        self.began_s = began_s
        self._arrived = bytearray(body or b"")
        self._ended = body is not None
        self._blocked = False
        self.taken = 0
        """Body bytes that the consumer has taken."""
        self.invited = False
        """The consumer has asked for the body that `Expect: 100-continue` holds back."""
        self.fields = Fields()
        self.body = bytearray()
        """Of the answer, or what was sent in the tunnel."""
        self.log: list[str] = []
        """What the consumer called, in order: `respond 200`, `start 200`, `send 5`, `file 9`, `finish`, `abort`, …"""
        self.informed: list[tuple[int, Fields]] = []
        self.whole = False
        """The answer is complete."""
        self.aborted = False
        self.done = asyncio.Event()
        """Set when the answer is complete, aborted, or the client disconnected."""

    # The client

    def arrive(self, data: bytes) -> None:
        """More of the body, or of a tunnel."""
        self._arrived += data
        self._tell()

    def end(self) -> None:
        """The body, or the client's half of a tunnel, is complete."""
        self._ended = True
        self._tell()

    def leave(self) -> None:
        """The client goes away."""
        self.lost()
        self.done.set()

    def block(self) -> None:
        self._blocked = True

    def unblock(self) -> None:
        self._blocked = False
        self._tell()

    def _tell(self) -> None:
        if self.notify is not None:
            self.notify()

    # The answer, for assertions

    def header(self, name: str) -> str | None:
        value = self.fields.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def problem(self) -> dict[str, object]:
        """The members of an RFC 9457 answer."""
        found: dict[str, object] = msgspec.json.decode(bytes(self.body))
        return found

    # What a protocol implements

    def take(self) -> bytes:
        self.invited = True
        self.expects = False
        data = bytes(self._arrived)
        self._arrived.clear()
        self.taken += len(data)
        return data

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def writable(self) -> bool:
        return self.gone or not self._blocked

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        self.log.append(f"respond {status}")
        self.fields = fields
        self.body += body
        self._complete()

    def _start(self, status: int, fields: Fields) -> None:
        self.log.append(f"start {status}")
        self.fields = fields

    def _send(self, data: bytes) -> None:
        self.log.append(f"send {len(data)}")
        self.body += data

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        self.log.append(f"file {count}")
        try:
            self.body += os.pread(fd, count, offset)
        finally:
            os.close(fd)

    def _finish(self) -> None:
        self.log.append("finish")
        self._complete()

    def _tunnel(self, fields: Fields) -> None:
        self.log.append("tunnel")
        self.fields = fields

    def _inform(self, status: int, fields: Fields) -> None:
        self.log.append(f"inform {status}")
        self.informed.append((status, fields))

    def _abort(self) -> None:
        self.log.append("abort")
        self.aborted = True
        self.done.set()

    def _complete(self) -> None:
        self.whole = True
        self.done.set()
