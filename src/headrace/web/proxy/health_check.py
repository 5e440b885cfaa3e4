"""Asking an upstream whether it is well: one GET of `health_path`, on a connection of its own."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from headrace.web.proxy.address import Address
from headrace.web.proxy.limits import ANSWER_HEAD_BYTES_MAX
from headrace.web.proxy.response_reader import InvalidResponse, ResponseReader

_READ_BYTES: Final = 4_096


async def check_health(address: Address, path: str, *, tls: ssl.SSLContext | None, within_s: float) -> str:
    """What is wrong; empty if it answers 200 to 399 in time."""
    try:
        async with asyncio.timeout(within_s):
            status = await _get(address, path, tls)
    except TimeoutError:
        return f"no answer within {within_s:g} s"
    except (OSError, ValueError, InvalidResponse) as error:
        return str(error) or type(error).__name__
    return "" if status < 400 else f"status {status}"


async def _get(address: Address, path: str, tls: ssl.SSLContext | None) -> int:
    if address.socket:
        source, sink = await asyncio.open_unix_connection(address.socket, limit=ANSWER_HEAD_BYTES_MAX)
    else:
        source, sink = await asyncio.open_connection(address.host, address.port, ssl=tls, limit=ANSWER_HEAD_BYTES_MAX)
    try:
        sink.write(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: headrace-health\r\nConnection: close\r\n\r\n"
            % (path.encode(), address.authority)
        )
        return await _read_status(source)
    finally:
        sink.transport.abort()


async def _read_status(source: asyncio.StreamReader) -> int:
    reader = ResponseReader()
    while data := await source.read(_READ_BYTES):
        reader.feed(data)
        while (answer := reader.next_head(mute=True)) is not None:
            if answer.status >= 200:
                return answer.status
    raise InvalidResponse("it closed without an answer")
