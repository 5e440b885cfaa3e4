"""A process that loads a web server: python -m headrace.bench.http_client PORT CONNECTIONS SECONDS

Each connection is kept and has one request at a time. Prints a `Load` as JSON.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import Final

import msgspec

HOST: Final = "127.0.0.1"
REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_HEAD: Final = re.compile(rb"HTTP/1\.1 200 .*?\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE | re.DOTALL)


class Load(msgspec.Struct, frozen=True):
    """What one process saw: each request's time, and how long all of it took, in seconds."""

    passed_s: float
    times_s: list[float]


async def load(port: int, connections: int, seconds: float) -> Load:
    """Raises RuntimeError: an answer other than 200, or without a length. OSError, EOFError: the connection was cut."""
    opened = [await asyncio.open_connection(HOST, port) for _ in range(connections)]
    started = time.perf_counter()
    times = await asyncio.gather(*[_ask(*connection, started + seconds) for connection in opened])
    passed_s = time.perf_counter() - started
    for _, writer in opened:
        writer.close()
    return Load(passed_s, [one for each in times for one in each])


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: float) -> list[float]:
    times, ended = [], 0.0
    while ended < until:
        begun = time.perf_counter()
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        found = _HEAD.match(head)
        if found is None:
            raise RuntimeError(f"the server answered {head[:100]!r}")
        await reader.readexactly(int(found[1]))
        ended = time.perf_counter()
        times.append(ended - begun)
    return times


def main(port: str, connections: str, seconds: str) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(load(int(port), int(connections), float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
