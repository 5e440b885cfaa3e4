"""Answers as bytes. What is alike for many answers is built once a second: status line, Server, Date, Content-Type."""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from headrace.errors import CallerError

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
END: Final = b"\r\n"
CLOSE: Final = b"Connection: close\r\n\r\n"
KEEP_ALIVE: Final = b"Connection: keep-alive\r\n\r\n"

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = frozenset({b"connection", b"content-length", b"content-type", b"date", b"server", b"transfer-encoding"})
BODILESS: Final = frozenset({204, 304})  # RFC 9110 6.4.1, 8.6: no body, and no Content-Length that claims one
_PREFIXES_MAX: Final = 64  # statuses times content types; an application that invents types must not fill memory


class HeaderInvalid(CallerError):
    """A handler's header would break out of its line, or contradict the engine's own."""


class AnswerWriter:
    """Renders the answers of one listener. `refresh` sets the Date (RFC 9110 6.6.1) and forgets prebuilt prefixes."""

    __slots__ = ("_date", "_prefixes")

    def __init__(self) -> None:
        self._prefixes: dict[tuple[int, bytes], bytes] = {}
        self._date = b""

    def refresh(self, unix_s: float) -> None:
        self._date = formatdate(unix_s, usegmt=True).encode()
        self._prefixes.clear()

    @property
    def date(self) -> bytes:
        return self._date

    def render(
        self,
        status: int,
        body: bytes,
        content_type: bytes,
        headers: tuple[tuple[bytes, bytes], ...],
        *,
        end: bytes,
        to_head: bool,
    ) -> bytes:
        """One whole answer.

        Args:
            status: 200 to 599.
            headers: more headers, in order.
            end: END, CLOSE or KEEP_ALIVE.
            to_head: for a HEAD request: the length of the body, not the body.

        Raises: HeaderInvalid; nothing has been sent then.
        """
        prefix = self._prefixes.get((status, content_type)) or self._build_prefix(status, content_type)
        more = b"".join([_line(name, value) for name, value in headers]) if headers else b""
        if status in BODILESS:
            return prefix + more + end
        return b"%bContent-Length: %d\r\n%b%b%b" % (prefix, len(body), more, end, b"" if to_head else body)

    def begin(self, status: int, *, dated: bool, served: bool) -> bytes:
        """The status line, and the Server and Date that the rest of the head does not have. `status` has been checked."""
        if not dated and not served:
            return self._prefixes.get((status, b"")) or self._keep_prefix(status, b"")
        server = b"" if served else b"Server: headrace\r\n"
        date = b"" if dated else b"Date: %b\r\n" % self._date
        return b"HTTP/1.1 %d %b\r\n%b%b" % (status, _phrase(status), server, date)

    def _build_prefix(self, status: int, content_type: bytes) -> bytes:
        if not 200 <= status <= 599:
            raise HeaderInvalid(f"status {status} is not one that ends a request: 200 to 599")
        if not _VALUE.fullmatch(content_type):
            raise HeaderInvalid(f"Content-Type {content_type!r} has characters that no header may have")
        return self._keep_prefix(status, content_type)

    def _keep_prefix(self, status: int, content_type: bytes) -> bytes:
        kind = b"Content-Type: %b\r\n" % content_type if content_type else b""
        prefix = b"HTTP/1.1 %d %b\r\nServer: headrace\r\nDate: %b\r\n%b" % (status, _phrase(status), self._date, kind)
        if len(self._prefixes) >= _PREFIXES_MAX:
            self._prefixes.clear()
        self._prefixes[status, content_type] = prefix
        return prefix


def interim(status: int, block: bytes) -> bytes:
    """An answer before the answer: 102 to 199. `block` is rendered header lines."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, _phrase(status), block)


def _line(name: bytes, value: bytes) -> bytes:
    if not _VALUE.fullmatch(value):
        raise HeaderInvalid(f"the value of header {name!r} has characters that no header may have")
    return _label(name) + value + b"\r\n"


@lru_cache(maxsize=256)
def _label(name: bytes) -> bytes:
    if not _NAME.fullmatch(name):
        raise HeaderInvalid(f"{name!r} is not a header name")
    if name.lower() in _OURS:
        raise HeaderInvalid(f"header {name!r} is written by the engine")
    return name + b": "


@lru_cache(maxsize=64)
def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Status"
