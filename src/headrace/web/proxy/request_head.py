"""The head of a request, as an upstream gets it: with new framing, without hop-by-hop headers, with the client's address.

Nothing that frames or routes is copied: Content-Length, Transfer-Encoding, Connection, Host and the request line are
written from what the exchange says. Copied fields are checked once more, so that no line can end early.
"""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from typing import Final

from headrace.errors import CallerError
from headrace.http.exchange import Exchange
from headrace.http.fields import HOP_BY_HOP
from headrace.http.parse import CHUNKED
from headrace.web import forwarded

_OURS: Final = forwarded.HEADERS | HOP_BY_HOP | {b"expect", b"content-length", b"host"}
"""Set by the proxy, or ours to answer (Expect), or true of the client's connection only."""
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAME_BYTES_CACHED_MAX: Final = 64
"""Longer names are looked at each time: 1,024 of 32 KiB would be too much to remember."""
_REQUEST: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ /[\x21-\x7e]*", re.ASCII)
_VALUES: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_USUAL: Final = frozenset({b"close", b"keep-alive", b"upgrade"})
_BODIED: Final = frozenset({"POST", "PUT", "PATCH"})
_KEPT: Final = frozenset({b"authorization", b"cookie"})
"""What no client may have taken out by naming it in Connection: it would reach the upstream as another client's request.
(An honest one never does; and X-Forwarded-* is put in afterwards.)"""


class InvalidRequestHead(CallerError):
    """The request cannot be said in HTTP/1.1 without changing its meaning."""


def render(exchange: Exchange, *, host: bytes, length: int, key: bytes = b"") -> bytes:
    """The head, up to and with its empty line.

    Args:
        host: for Host.
        length: of the body; CHUNKED if unknown.
        key: Sec-WebSocket-Key, if the client has sent none since it speaks HTTP/2.

    Raises: HeadInvalid.
    """
    headers = exchange.headers
    request = f"{exchange.method} {exchange.target}"
    if _REQUEST.fullmatch(request) is None:
        raise InvalidRequestHead("this request target cannot be passed on")
    if _VALUES.fullmatch(b"".join(headers.values())) is None:  # all at once: a tenth of the time
        raise InvalidRequestHead("a header of this request has characters that no header may have")
    asked = headers.get(b"host", b"")
    lines = [
        b"%b HTTP/1.1\r\nHost: %b\r\n" % (request.encode(), host),
        _forwarded_lines(exchange.peer, exchange.secure, asked, exchange.root_path),
        _framing(exchange, length),
    ]
    dropped = _named(headers[b"connection"]) if b"connection" in headers else None
    for name, value in headers.items():
        label = _label(name) if len(name) <= _NAME_BYTES_CACHED_MAX else _label.__wrapped__(name)
        if label and (dropped is None or name not in dropped):
            lines.append(b"%b%b\r\n" % (label, value))
    if exchange.upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % exchange.upgrade)
        if key:
            lines.append(b"Sec-WebSocket-Key: %b\r\n" % b64encode(key))
    lines.append(b"\r\n")
    return b"".join(lines)


def _framing(exchange: Exchange, length: int) -> bytes:
    if length == CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    if length or exchange.method in _BODIED:
        return b"Content-Length: %d\r\n" % length
    return b""


@lru_cache(maxsize=1024)
def _label(name: bytes) -> bytes:
    """The begin of a header's line; empty if it is not passed on. Bounded: clients invent names.

    `X_Forwarded_For` is `X-Forwarded-For` to a WSGI or CGI application, so it is left out with it.
    """
    if name.replace(b"_", b"-") in _OURS:
        return b""
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestHead("a header of this request has a name that no header may have")
    return name + b": "


def _named(connection: bytes) -> frozenset[bytes] | None:
    """The headers that Connection declares hop-by-hop; None if it names none, as mostly."""
    options = {option.strip() for option in connection.lower().split(b",")} - _USUAL
    return frozenset(options - _KEPT) or None


@lru_cache(maxsize=1024)
def _forwarded_lines(peer: str, secure: bool, host: bytes, prefix: str) -> bytes:
    """The forwarding headers, in both families."""
    scheme = b"https" if secure else b"http"
    known = peer != "unix"
    node = (f'"[{peer}]"' if ":" in peer else peer) if known else "unknown"
    address, client = peer.partition("%")[0].encode(), node.encode()
    lines = [b"X-Forwarded-For: %b\r\n" % address] if known else []
    lines.append(b"X-Forwarded-Proto: %b\r\n" % scheme)
    element = b"for=%b;proto=%b" % (client, scheme)
    if host:
        lines.append(b"X-Forwarded-Host: %b\r\n" % host)
        element += b';host="%b"' % host.replace(b"\\", b"").replace(b'"', b"")
    if prefix:
        lines.append(b"X-Forwarded-Prefix: %b\r\n" % prefix.encode())
    lines.append(b"Forwarded: %b\r\n" % element)
    return b"".join(lines)
