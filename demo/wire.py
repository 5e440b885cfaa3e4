"""HTTP as a client speaks it: connections that are kept, POST, and what came back. As small as it can be, since the demo's
machine has to carry clients and servers at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

ANSWER_WITHIN_S: Final = 20.0
CONNECTIONS_MAX: Final = 300
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    retry_after_s: float
    body: bytes


class Wire:
    """Connections to one server; for one event loop."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)

    async def post(self, path: str, key: str, body: bytes) -> Answer | None:
        """One try. None: the connection broke, or nothing came; whether it was done is not known."""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\nidempotency-key: {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        async with self._free:
            connection = None
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    connection = self._idle.pop() if self._idle else await self._open()
                    connection[1].write(head.encode() + body)
                    answer, keep = await _read(connection[0])
            except (OSError, EOFError, TimeoutError):
                if connection is not None:
                    connection[1].close()
                return None
            if keep:
                self._idle.append(connection)
            else:
                connection[1].close()
            return answer

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    async def _open(self) -> _Connection:
        return await asyncio.open_connection(self._host, self._port)


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """An answer with a length, and whether the connection stays. Raises EOFError: it ended."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    body = await reader.readexactly(int(_field(head, b"content-length") or 0))
    answer = Answer(status, float(_field(head, b"retry-after") or 1), body)
    return answer, _field(head, b"connection") != b"close"


def _field(head: bytes, name: bytes) -> bytes:
    """A header's value, or nothing. The head is in lower case."""
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""
