"""The head of a request: strict reading of the request line and the headers. Pure, no I/O.

llhttp (through httptools) splits the header lines; it is fast and careful about characters, line ends and folds. What
it leaves open is closed here: the request line, counts, repeats, Host, framing, the forms of the target. It never sees
the request line or a body, so that its idea of methods, URLs and message ends does not matter: where a body ends is
decided in one place, `reader.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from headrace.errors import CallerError
from headrace.http.limits import CONTENT_LENGTH_DIGITS_MAX, Limits
from headrace.http.messages import Headers

CHUNKED: Final = -1
"""`Head.length` of a chunked body."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(?:\r\n)?(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION: Final = re.compile(rb"(?:\r\n)?[^\r\n]* HTTP/(?!1\.[01]\r)[0-9]\.[0-9]\r\n")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#@]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~%!$&'()*+,;=\-]*)(?::[0-9]{0,5})?")
_FIRST_HEADERS: Final = b"GET / HTTP/1.1\r\n"

SINGLE: Final = frozenset(
    b"authorization content-length content-type date expect from host if-modified-since if-range if-unmodified-since "
    b"max-forwards origin proxy-authorization range referer sec-fetch-site transfer-encoding user-agent".split()
)
"""Headers whose repetition has no meaning (RFC 9110 5.3), so that two readers may choose differently: refused."""


@dataclass(eq=False)
class Refusal(CallerError):
    """The engine answers `status` itself and closes: after malformed input nobody knows where the next request starts."""

    status: int
    reason: str

    def __str__(self) -> str:
        return self.reason


class Head:
    """A request's line and headers, checked. Plain data; `HeadParser` fills it."""

    __slots__ = ("expects_continue", "headers", "http11", "keep_alive", "length", "method", "path", "query", "target")

    method: str
    target: str
    path: str
    query: str
    headers: Headers
    http11: bool
    """HTTP/1.1; else 1.0."""
    length: int
    """Body bytes that follow, or CHUNKED."""
    keep_alive: bool
    expects_continue: bool


class HeadParser:
    """Fills heads. One serves all connections of a loop: it keeps nothing between two calls. Not for several threads."""

    __slots__ = ("_headers", "_limits")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._headers: Headers = {}

    def parse(self, raw: bytes, head: Head) -> None:
        """Fill `head` from `raw`: maybe an empty line (RFC 2.2), the request line, headers, the empty line.

        Raises: Refusal.
        """
        line = self.match_line(raw)
        method, target, minor = line.groups()
        head.method = method.decode()
        head.target = target.decode()
        head.http11 = minor == b"1"
        head.headers = self._read_headers(raw, line.end())
        _frame(head)
        _aim(head)

    def match_line(self, raw: bytes) -> re.Match[bytes]:
        """The request line that `raw` begins with: groups method, target, minor version.

        Raises: Refusal.
        """
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise _refuse_line(raw)
        if line.end() > self._limits.target_bytes and len(line[2]) > self._limits.target_bytes:
            raise Refusal(414, f"the target has {len(line[2])} bytes; at most {self._limits.target_bytes} are read")
        return line

    def on_header(self, name: bytes, value: bytes) -> None:
        """For llhttp."""
        self._headers[name.lower()] = value.strip()

    def _read_headers(self, raw: bytes, start: int) -> Headers:
        count = raw.count(b"\n", start) - 1  # without the empty line
        if count > self._limits.headers_max:
            raise Refusal(431, f"the request has {count} headers; at most {self._limits.headers_max} are read")
        headers: Headers = {}
        self._headers = headers
        _split(_FIRST_HEADERS + raw[start:], self)
        return headers if len(headers) == count else _join_repeats(raw[start:], count)


class _Pairs:
    """Collects header lines with their repeats; `HeadParser` takes this path only when there are any."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name.lower(), value.strip()))


def _split(raw: bytes, sink: HeadParser | _Pairs) -> None:
    # A fresh parser costs 0.3 µs and cannot carry anything from one request into the next.
    try:
        HttpRequestParser(sink).feed_data(raw)
    except HttpParserUpgrade:
        pass  # llhttp's word for "what follows is not HTTP"; all headers have been read
    except HttpParserError as error:
        raise Refusal(400, f"malformed headers: {error}") from None


def _join_repeats(raw: bytes, count: int) -> Headers:
    sink = _Pairs()
    _split(_FIRST_HEADERS + raw, sink)
    if len(sink.pairs) != count:
        # llhttp has seen another number of lines than there are line ends. It should have refused the input.
        raise Refusal(400, "malformed headers: stray line ends")
    headers: Headers = {}
    for name, value in sink.pairs:
        if name not in headers:
            headers[name] = value
        elif name in SINGLE:
            raise Refusal(400, f"header {name.decode()} is repeated")
        else:
            headers[name] += (b"; " if name == b"cookie" else b", ") + value  # RFC 9110 5.3; cookies: RFC 6265 5.4
    return headers


def _refuse_line(raw: bytes) -> Refusal:
    if _OTHER_VERSION.match(raw):
        return Refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return Refusal(400, "malformed request line")


def _frame(head: Head) -> None:
    """Decide where the body ends and what becomes of the connection (RFC 6 and 9)."""
    headers = head.headers
    length = headers.get(b"content-length")
    if b"transfer-encoding" in headers:
        _check_transfer_encoding(head, length)
        head.length = CHUNKED
    elif length is None:
        head.length = 0
    elif length.isdigit() and len(length) <= CONTENT_LENGTH_DIGITS_MAX:  # bytes.isdigit knows ASCII digits only
        head.length = int(length)
    else:
        raise Refusal(400, "invalid Content-Length")
    connection = headers.get(b"connection")
    head.keep_alive = head.http11 if connection is None else _keeps_alive(connection, http11=head.http11)
    head.expects_continue = b"expect" in headers and _expects_continue(head)


def _check_transfer_encoding(head: Head, length: bytes | None) -> None:
    if length is not None:
        raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other")
    if not head.http11:
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if head.headers[b"transfer-encoding"].lower() != b"chunked":
        raise Refusal(400, "the only Transfer-Encoding understood is chunked")


def _expects_continue(head: Head) -> bool:
    if head.headers[b"expect"].lower() != b"100-continue":
        raise Refusal(417, "the only expectation understood is 100-continue")
    return head.http11 and head.length != 0


@lru_cache(maxsize=64)
def _keeps_alive(connection: bytes, *, http11: bool) -> bool:
    options = {option.strip() for option in connection.lower().split(b",")}
    return b"close" not in options and (http11 or b"keep-alive" in options)


def _aim(head: Head) -> None:
    """Check Host and target, reduce an absolute target to its path, split off the query (RFC 3.2)."""
    target = head.target
    host = head.headers.get(b"host")
    if host is None:
        if head.http11:
            raise Refusal(400, "HTTP/1.1 requires a Host header")
    elif not is_host(host):
        raise Refusal(400, "invalid Host header")
    if target[0] != "/":
        target = head.target = _reduce(head)
    if "#" in target:
        raise Refusal(400, "a request target has no fragment")
    head.path, _, head.query = target.partition("?")


def _reduce(head: Head) -> str:
    if head.target == "*" and head.method == "OPTIONS":
        return "*"
    if head.method == "CONNECT":
        raise Refusal(501, "CONNECT is not offered")
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is None or not is_host(absolute[1].encode()):
        raise Refusal(400, "malformed request target")
    head.headers[b"host"] = absolute[1].encode()  # RFC 3.2.2: it replaces what Host said
    rest = absolute[2] or "/"
    return rest if rest[0] == "/" else "/" + rest


@lru_cache(maxsize=256)
def is_host(host: bytes) -> bool:
    """Whether this has the form of a Host header: a name, an address or nothing, and maybe a port."""
    return _HOST.fullmatch(host) is not None
