"""Header fields in HTTP/2: a request's are checked as strictly as HTTP/1.1's, an answer's are put in order. Pure. RFC = RFC 9113.

The checks are ours and not the `h2` library's, which knows fewer and ends the connection where its stream is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from hpack import NeverIndexedHeaderTuple

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.h2_frames import Code, StreamFault
from headrace.http.limits import Limits
from headrace.http.messages import Headers
from headrace.http.parse import CHUNKED, SINGLE, Refusal, accept_host, read_length

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # upper case is malformed (RFC 8.2.1)
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_CONNECTION_SPECIFIC: Final = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade http2-settings".split()
)
_SPECIAL: Final = _CONNECTION_SPECIFIC | {b"te"}
_CACHED_BYTES_MAX: Final = 1_024  # 512 blocks of them: what an application makes up stays below 1 MiB

Pairs = Iterable[tuple[bytes, bytes]]


def read_request(exchange: Exchange, pairs: Pairs, limits: Limits, *, ended: bool) -> None:
    """Fill the exchange's request from a decoded header block.

    Args:
        ended: no body follows.

    Raises: StreamFault: malformed. Refusal: to be answered with its status.
    """
    pseudo: Headers = {}
    headers: Headers = {}
    size = count = 0
    for name, value in pairs:
        size += len(name) + len(value) + 4
        if name.startswith(b":"):
            _take_pseudo(pseudo, name, value, late=bool(headers))
            continue
        count += 1
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise _malformed("a header name or value has characters that it may not have")
        if name in _SPECIAL:
            _check_special(name, value)
        headers[name] = value if name not in headers else _join(headers, name, value)
    exchange.headers = headers
    _read_line(
        exchange, pseudo, limits
    )  # first of all: whether it is HEAD decides about the answer to all that follows
    if count > limits.headers_max:
        raise Refusal(431, f"the request has {count} headers; at most {limits.headers_max} are read")
    if size > limits.header_bytes:
        raise Refusal(431, f"the headers are longer than {limits.header_bytes} bytes")
    _check_host(headers, pseudo.get(b":authority"))
    exchange.expects = b"expect" in headers and _expects(headers, ended=ended)
    exchange.length = _frame(headers, ended=ended)
    if exchange.length > limits.body_bytes:
        raise Refusal(413, f"the body has {exchange.length} bytes; at most {limits.body_bytes} are read")


def check_trailers(pairs: Pairs) -> None:
    """Trailers are dropped; what may not be one is malformed (RFC 8.1).

    Raises: StreamFault.
    """
    for name, value in pairs:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None or name in _CONNECTION_SPECIFIC:
            raise _malformed("a trailer that may not be one")


def _take_pseudo(pseudo: Headers, name: bytes, value: bytes, *, late: bool) -> None:
    if late or name not in _PSEUDO or name in pseudo:
        raise _malformed("a pseudo-header that is unknown, repeated or late")
    pseudo[name] = value


def _check_special(name: bytes, value: bytes) -> None:
    if name != b"te":
        raise _malformed(f"header {name.decode()} belongs to HTTP/1.1")
    if value.lower() != b"trailers":
        raise _malformed("TE may only be trailers")


def _join(headers: Headers, name: bytes, value: bytes) -> bytes:
    if name in SINGLE:
        raise _malformed(f"header {name.decode()} is repeated")
    return headers[name] + (b"; " if name == b"cookie" else b", ") + value  # RFC 8.2.3: browsers send cookies in crumbs


def _read_line(exchange: Exchange, pseudo: Headers, limits: Limits) -> None:
    method, path = pseudo.get(b":method"), pseudo.get(b":path")
    exchange.upgrade = b""
    if method is None or _METHOD.fullmatch(method) is None:
        raise _malformed("no method, or one that is no token")
    exchange.method = method.decode()
    exchange.target = exchange.path = exchange.query = ""
    if method == b"CONNECT":
        _accept_connect(exchange, pseudo)
    elif b":protocol" in pseudo:
        raise _malformed(":protocol belongs to CONNECT")
    if path is None or b":scheme" not in pseudo:
        raise _malformed("no path or no scheme")
    _read_path(exchange, path, pseudo[b":scheme"], limits)


def _accept_connect(exchange: Exchange, pseudo: Headers) -> None:
    """Only for WebSocket (RFC 8441): looks like HTTP/1.1's GET with an upgrade from here on."""
    protocol = pseudo.get(b":protocol")
    if protocol is None and (b":path" in pseudo or b":scheme" in pseudo):
        raise _malformed("CONNECT has neither path nor scheme")
    if protocol is not None and b":authority" not in pseudo:
        raise _malformed("extended CONNECT has an authority")
    if protocol != b"websocket":
        raise Refusal(501, "CONNECT is offered for websocket only")
    exchange.method = "GET"
    exchange.upgrade = b"websocket"


def _read_path(exchange: Exchange, path: bytes, scheme: bytes, limits: Limits) -> None:
    if not path:
        raise _malformed("the path is empty")
    if scheme not in (b"https", b"http"):
        raise Refusal(400, "the scheme is neither http nor https")
    if len(path) > limits.target_bytes:
        raise Refusal(414, f"the target has {len(path)} bytes; at most {limits.target_bytes} are read")
    if _PATH.fullmatch(path) is None and not (path == b"*" and exchange.method == "OPTIONS"):
        raise Refusal(400, "malformed request target")
    exchange.target = target = path.decode()
    exchange.path, _, exchange.query = target.partition("?")


def _check_host(headers: Headers, authority: bytes | None) -> None:
    host = headers.get(b"host")
    if authority is None:
        if host is None:
            raise Refusal(400, "neither an authority nor a Host header")
    elif host is None:
        headers[b"host"] = host = authority
    elif host.lower() != authority.lower():
        raise _malformed("Host is another than the authority")  # RFC 8.3.1
    accept_host(host)


def _expects(headers: Headers, *, ended: bool) -> bool:
    if headers[b"expect"].lower() != b"100-continue":
        raise Refusal(417, "the only expectation understood is 100-continue")
    return not ended


def _frame(headers: Headers, *, ended: bool) -> int:
    digits = headers.get(b"content-length")
    if digits is None:
        return 0 if ended else CHUNKED
    try:
        length = read_length(digits)
    except Refusal as refusal:
        raise _malformed(refusal.reason) from None
    if ended and length:
        raise _malformed("the body is shorter than its Content-Length")
    return length


def _malformed(reason: str) -> StreamFault:
    return StreamFault(Code.PROTOCOL_ERROR, reason)


# Answers


def answer_pairs(status: int, fields: Fields, *, length: int | None, date: bytes) -> list[tuple[bytes, bytes]]:
    """What an answer's header block has, in order."""
    pairs = [(b":status", b"%d" % status), *_pairs_of(fields.block)]
    if not fields.served:
        pairs.append((b"server", b"headrace"))
    if not fields.dated:
        pairs.append((b"date", date))
    if length is not None:
        pairs.append((b"content-length", b"%d" % length))
    return pairs


def interim_pairs(status: int, fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(b":status", b"%d" % status), *_pairs_of(fields.block)]


def _pairs_of(block: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return _split_block(block) if len(block) <= _CACHED_BYTES_MAX else _split_block.__wrapped__(block)


@lru_cache(maxsize=512)
def _split_block(block: bytes) -> tuple[tuple[bytes, bytes], ...]:
    pairs = Fields(block).pairs()
    return tuple([NeverIndexedHeaderTuple(*pair) if pair[0] in _NEVER_INDEXED else pair for pair in pairs])


_NEVER_INDEXED: Final = frozenset(b"set-cookie authorization proxy-authorization www-authenticate".split())
"""Secrets must not be guessed by how they compress (RFC 7541 7.1)."""
