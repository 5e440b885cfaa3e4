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
from typing import Final, NamedTuple, Protocol, TypeAlias

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from headrace.errors import CallerError
from headrace.http.limits import CONTENT_LENGTH_DIGITS_MAX, Limits
from headrace.http.messages import Headers

CHUNKED: Final = -1
"""`Head.length` of a chunked body."""

KNOWN_MAX: Final = 256
KNOWN_BYTES_MAX: Final = 1_024
"""Header lines that are remembered: with what is made of them at most 1 MiB a listener."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_OTHER_VERSION: Final = re.compile(rb"[^\r\n]* HTTP/(?!1\.[01]$)[0-9]\.[0-9]")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#@]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._~%!$&'()*+,;=\-]*)(?::[0-9]{0,5})?")
_HOST_BYTES_MAX: Final = 261  # a domain name of 255, and a port
_ANY_LINE: Final = b"GET / HTTP/1.1"
_CACHED_LINE_BYTES_MAX: Final = 256  # 512 of them: what attackers put there stays below 256 KiB

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


class RequestLine(NamedTuple):
    method: str
    target: str
    path: str
    query: str
    http11: bool
    """HTTP/1.1; else 1.0."""


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


class AnyHead(Protocol):
    """What `HeadParser` fills: a `Head`, or something with a layout of its own that has the same attributes."""

    method: str
    target: str
    path: str
    query: str
    headers: Headers
    http11: bool
    length: int
    keep_alive: bool
    expects_continue: bool


Block: TypeAlias = tuple[Headers, int, bool, bool]
"""The header lines of a head, with what they say: the body's length, whether to keep the connection, `expects_continue`."""


class HeadParser:
    """Fills heads. One serves all connections of a loop. Not for several threads.

    Clients send the same header lines again and again, with one target or with many. What has come twice is remembered as
    it was judged: 3 µs less a request. Only of GET: where there is a body, its length or a signature mostly differs, and
    to find that out would cost 0.7 µs.

    Invariant: at most KNOWN_MAX blocks are remembered, of KNOWN_BYTES_MAX each.
    """

    __slots__ = ("_headers", "_known", "_limits", "_once")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._headers: Headers = {}
        self._known: dict[bytes, Block] = {}
        """Of GETs in HTTP/1.1."""
        self._once: set[int] = set()
        """Hashes of what has come once."""

    def parse(self, raw: bytes, head: AnyHead) -> None:
        """Fill `head` from `raw`: maybe an empty line (RFC 2.2), the request line, headers, the empty line.

        Raises: Refusal.
        """
        line, end = self.read_line(raw)
        head.method, head.target, head.path, head.query, head.http11 = line
        block = raw[end:]
        repeats = line.method == "GET" and line.http11
        known = self._known.get(block) if repeats else None
        if known is not None:
            headers, head.length, head.keep_alive, head.expects_continue = known
            head.headers = headers.copy()  # consumers change theirs
        else:
            judged = self._judge(block, http11=line.http11)
            head.headers, head.length, head.keep_alive, head.expects_continue = judged
            if repeats and len(block) <= KNOWN_BYTES_MAX and self._has_come_before(block):
                self._remember(block, judged)
        if head.target[0] not in "/*":
            _reduce(head)

    def read_line(self, raw: bytes) -> tuple[RequestLine, int]:
        """The request line that `raw` begins with, and where it ends, before its CRLF.

        Raises: Refusal.
        """
        start = 2 if raw.startswith(b"\r\n") else 0
        end = raw.find(b"\r\n", start)
        line = raw[start:end]
        if end - start <= _CACHED_LINE_BYTES_MAX:
            return _read_line(line), end
        read = _read_line.__wrapped__(line)
        if len(read.target) > self._limits.target_bytes:
            raise Refusal(414, f"the target has {len(read.target)} bytes; at most {self._limits.target_bytes} are read")
        return read, end

    def on_header(self, name: bytes, value: bytes) -> None:
        """For llhttp."""
        self._headers[name.lower()] = value.strip()

    def _judge(self, block: bytes, *, http11: bool) -> Block:
        """`block` begins with the CRLF of the request line, and ends with the empty line."""
        headers = self._read_headers(block)
        length = _body_length(headers, http11=http11)
        connection = headers.get(b"connection")
        if connection is None or connection == b"keep-alive":
            keep_alive = http11 or connection is not None
        else:
            keep_alive = _keeps_alive(connection, http11=http11)
        expects = b"expect" in headers and _expects_continue(headers, http11=http11, length=length)
        _check_host(headers, http11=http11)
        return headers, length, keep_alive, expects

    def _has_come_before(self, block: bytes) -> bool:
        seen, once = hash(block), self._once
        if seen in once:
            return True
        if len(once) >= KNOWN_MAX:
            once.clear()
        once.add(seen)
        return False

    def _remember(self, block: bytes, judged: Block) -> None:
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[block] = (judged[0].copy(), *judged[1:])

    def _read_headers(self, block: bytes) -> Headers:
        count = block.count(b"\n") - 2  # without the request line's end and the empty line
        if count > self._limits.headers_max:
            raise Refusal(431, f"the request has {count} headers; at most {self._limits.headers_max} are read")
        headers: Headers = {}
        self._headers = headers
        lines = _ANY_LINE + block
        _split(lines, self)
        return headers if len(headers) == count else _join_repeats(lines, count)


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


def _join_repeats(lines: bytes, count: int) -> Headers:
    sink = _Pairs()
    _split(lines, sink)
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


@lru_cache(maxsize=512)  # a client asks for the same few targets: an SQS client for one
def _read_line(line: bytes) -> RequestLine:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if _OTHER_VERSION.fullmatch(line):
            raise Refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        raise Refusal(400, "malformed request line")
    method, target, minor = match[1].decode(), match[2].decode(), match[3]
    if target[0] != "/" or method == "CONNECT":  # behind a proxy route, a server would open a tunnel: `CONNECT /` too
        _check_other_form(method, target)
    if "#" in target:
        raise Refusal(400, "a request target has no fragment")
    path, _, query = target.partition("?")
    return RequestLine(method, target, path, query, minor == b"1")


def _check_other_form(method: str, target: str) -> None:
    """A target that is no path may be absolute, or `*` for OPTIONS (RFC 3.2)."""
    if method == "CONNECT":
        raise Refusal(501, "CONNECT is not offered")
    if target == "*" and method == "OPTIONS":
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refusal(400, "malformed request target")
    accept_host(absolute[1].encode())


def _body_length(headers: Headers, *, http11: bool) -> int:
    """Decide where the body ends (RFC 6)."""
    length = headers.get(b"content-length")
    if b"transfer-encoding" not in headers:
        return 0 if length is None else read_length(length)
    if length is not None:
        raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other")
    if not http11:
        raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
    if headers[b"transfer-encoding"].lower() != b"chunked":
        raise Refusal(400, "the only Transfer-Encoding understood is chunked")
    return CHUNKED


@lru_cache(maxsize=1024)
def read_length(digits: bytes) -> int:
    """The value of a Content-Length.

    Raises: Refusal.
    """
    if not digits.isdigit() or len(digits) > CONTENT_LENGTH_DIGITS_MAX:  # bytes.isdigit knows ASCII digits only
        raise Refusal(400, "invalid Content-Length")
    return int(digits)


def _expects_continue(headers: Headers, *, http11: bool, length: int) -> bool:
    if headers[b"expect"].lower() != b"100-continue":
        raise Refusal(417, "the only expectation understood is 100-continue")
    return http11 and length != 0


def _keeps_alive(connection: bytes, *, http11: bool) -> bool:
    options = {option.strip() for option in connection.lower().split(b",")}
    return b"close" not in options and (http11 or b"keep-alive" in options)


def _check_host(headers: Headers, *, http11: bool) -> None:
    host = headers.get(b"host")
    if host is not None:
        accept_host(host)
    elif http11:
        raise Refusal(400, "HTTP/1.1 requires a Host header")


def _reduce(head: AnyHead) -> None:
    """Turn an absolute target into a path; its authority replaces what Host said (RFC 3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(head.target)
    assert absolute is not None, "_check_other_form has let something else pass"
    head.headers[b"host"] = absolute[1].encode()
    rest = absolute[2] or "/"
    head.target = rest if rest[0] == "/" else "/" + rest
    head.path, _, head.query = head.target.partition("?")


@lru_cache(maxsize=256)
def accept_host(host: bytes) -> None:
    """Let pass what has the form of a Host header: a name, an address or nothing, and maybe a port.

    Like the other cached functions here it raises for what is wrong, and is bounded for what is right: errors are not
    kept, so that nobody can fill the cache with long values.
    """
    if len(host) > _HOST_BYTES_MAX or not _HOST.fullmatch(host):
        raise Refusal(400, "invalid host")
