"""Static files: a folder as a consumer of requests.

GET and HEAD, validators and conditions, ranges, packed siblings, index pages, listings. Small files leave from memory in
one piece, big ones by `send_file`. Paths are judged in `static_paths.py`, freshness in `static_files.py`, conditions in
`static_conditions.py`; here is only who is asked when, and what is answered.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from headrace.http import problem
from headrace.http.compress import compressed
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.packing import packers
from headrace.http.static_conditions import CONDITIONS, RangeRefused, Span, precondition, spans
from headrace.http.static_files import FileChanged, Files, Representation
from headrace.http.static_listing import as_json, as_page, read_folder
from headrace.http.static_paths import INDEX, check_root, name_of
from headrace.http.static_sending import FileSender, Part

_log: Final = logging.getLogger("headrace.http")

_ALLOW: Final = (b"Allow", b"GET, HEAD, OPTIONS")
_RETRY: Final = (b"Retry-After", b"1")
_LISTING: Final = (
    (b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    (b"X-Content-Type-Options", b"nosniff"),
)
_ABSENT: Final = frozenset(
    {None, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ, errno.EISDIR}
)
_RELOADS_MAX: Final = 3  # of one request: a file that is replaced each time between two system calls is somebody's game


class OnError(Protocol):
    """How errors are answered: `problem.respond`, or alike."""

    def __call__(
        self, exchange: Exchange, status: int, detail: str, /, *, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None: ...


class StaticFiles:
    """A `Target` that serves the files below `root`, and none outside of it.

    A name that begins with a dot is not served (but `/.well-known/`), nor what is no regular file. Symbolic links are
    followed as long as they end below the root.
    """

    def __init__(
        self,
        root: Path,
        *,
        cache_control: str = "",
        index: bool = False,
        compress: bool = False,
        on_error: OnError = problem.respond,
    ) -> None:
        """See the class.

        Args:
            root: the folder.
            cache_control: the header's value; empty: `no-cache`, which means: keep it, but ask whether it still holds.
            index: list folders that have no index.html.
            compress: pack text that has no packed sibling: small files once a version, big ones each time.
            on_error: answers 404, 405, 412, 416.

        Raises: InvalidParameter: no readable folder. FieldInvalid: no header value.
        """
        self._root = os.path.abspath(root)  # noqa: PTH100  # Path.resolve would pin a link that deployments switch
        check_root(self._root)
        self._cache_control = cache_control.encode() or b"no-cache"
        Fields.of(((b"Cache-Control", self._cache_control),))
        self._index = index
        self._on_error = on_error
        self._compress = compress
        self._files = Files(self._root, cache_control=self._cache_control, packers=packers() if compress else {})

    def __call__(self, exchange: Exchange) -> None:
        """Answer one exchange."""
        if exchange.method not in ("GET", "HEAD"):
            self._answer_method(exchange)
            return
        name = name_of(exchange.path)
        if name is None:
            self._answer_nameless(exchange)
            return
        try:
            self._answer(exchange, name)
        except FileChanged:
            self._answer_again(exchange, name)
        except OSError as error:
            self._answer_failure(exchange, name, error)

    # Files

    def _answer(self, exchange: Exchange, name: str) -> None:
        headers = exchange.headers
        # Ranges are of the plain file: offsets into what is packed mean nothing to anybody.
        file = self._files.find(name, None if b"range" in headers else headers.get(b"accept-encoding"))
        if not CONDITIONS.isdisjoint(headers):
            self._answer_conditional(exchange, file)
        elif file.body is None:
            self._answer_whole(exchange, file)
        else:
            exchange.respond(200, file.fields, file.body)  # nine requests in ten

    def _answer_conditional(self, exchange: Exchange, file: Representation) -> None:
        status = precondition(exchange.headers, file.validators)
        if status == 304:
            exchange.respond(304, file.unchanged)
        elif status == 412:
            self._on_error(exchange, 412, "the file is not the one that the request's conditions are about")
        elif b"range" in exchange.headers and exchange.method == "GET":
            self._answer_ranges(exchange, file)
        else:
            self._answer_whole(exchange, file)

    def _answer_ranges(self, exchange: Exchange, file: Representation) -> None:
        try:
            wanted = spans(exchange.headers, file.validators, file.size)
        except RangeRefused as refusal:
            size = (b"Content-Range", b"bytes */%d" % file.size)
            self._on_error(exchange, 416, f"{refusal}; it has {file.size} bytes", headers=(size,))
            return
        if not wanted:
            self._answer_whole(exchange, file)
        elif len(wanted) == 1:
            self._send(exchange, file, 206, _range_fields(file, wanted[0]), wanted)
        else:
            fields, parts = _multipart(file, wanted, boundary=secrets.token_hex(12).encode())
            self._send(exchange, file, 206, fields, parts)

    def _answer_whole(self, exchange: Exchange, file: Representation) -> None:
        if file.body is not None:
            exchange.respond(200, file.fields, file.body)
            return
        if self._compress:
            exchange = compressed(exchange)
        if exchange.method == "HEAD":
            exchange.respond(200, file.fields)
        else:
            self._send(exchange, file, 200, file.fields, [Span(0, file.size)])

    def _send(
        self, exchange: Exchange, file: Representation, status: int, fields: Fields, parts: Sequence[Part]
    ) -> None:
        body = file.body
        if body is None:
            sender = FileSender(exchange, self._files.open(file), parts)
            exchange.start(status, fields)
            sender.advance()
        else:
            pieces = [body[part.start : part.stop] if isinstance(part, Span) else part for part in parts]
            exchange.respond(status, fields, b"".join(pieces))

    def _answer_again(self, exchange: Exchange, name: str) -> None:
        """The file was replaced between two looks at it: nothing has been sent yet."""
        for _ in range(_RELOADS_MAX):
            try:
                self._answer(exchange, name)
            except FileChanged:
                continue
            except OSError as error:
                self._answer_failure(exchange, name, error)
            return
        self._on_error(exchange, 503, "the file changes all the time; try again", headers=(_RETRY,))

    # Everything else

    def _answer_method(self, exchange: Exchange) -> None:
        if exchange.method == "OPTIONS":
            exchange.respond(204, Fields.of((_ALLOW,)))
        else:
            self._on_error(exchange, 405, "files can be read (GET, HEAD), nothing else", headers=(_ALLOW,))

    def _answer_nameless(self, exchange: Exchange) -> None:
        if exchange.path:
            self._on_error(exchange, 404, "there is no such file")
        else:
            self._redirect(exchange, exchange.root_path)

    def _answer_failure(self, exchange: Exchange, name: str, error: OSError) -> None:
        in_folder = exchange.path.endswith("/")
        if isinstance(error, IsADirectoryError) and not in_folder:
            self._redirect(exchange, exchange.path)
        elif isinstance(error, FileNotFoundError) and in_folder and self._index:
            self._list(exchange, name.removesuffix(INDEX))
        elif error.errno in _ABSENT:
            self._on_error(exchange, 404, "there is no such file")
        elif isinstance(error, PermissionError):
            self._on_error(exchange, 403, "the server may not read this file")
        else:
            _log.error("a file cannot be read: %s", error.strerror, extra={"action": "http.static.failed"})
            self._on_error(exchange, 503, "the file cannot be read now; try again", headers=(_RETRY,))

    def _redirect(self, exchange: Exchange, path: str) -> None:
        """To the same with a slash. Relative, from `./`: right behind every proxy, and never another host or scheme."""
        query = "?" + exchange.query if exchange.query else ""
        location = f"./{path.rpartition('/')[2]}/{query}"
        fields = ((b"Location", location.encode()), (b"Cache-Control", self._cache_control))
        exchange.respond(301, Fields.of(fields))

    def _list(self, exchange: Exchange, folder: str) -> None:
        try:
            entries, more = read_folder(self._root, folder)
        except OSError as error:
            self._index_failed(exchange, error)
            return
        accept = exchange.headers.get(b"accept", b"")
        if b"application/json" in accept and b"text/html" not in accept:
            kind, body = b"application/json", as_json(entries, more=more)
        else:
            path = exchange.root_path + exchange.path
            kind, body = b"text/html; charset=utf-8", as_page(path, entries, more=more, top=not folder)
        common = ((b"Content-Type", kind), (b"Cache-Control", b"no-cache"), (b"Vary", b"Accept"), *_LISTING)
        exchange.respond(200, Fields.of(common), body)

    def _index_failed(self, exchange: Exchange, error: OSError) -> None:
        if isinstance(error, PermissionError):
            self._on_error(exchange, 403, "the server may not read this folder")
        else:
            self._on_error(exchange, 404, "there is no such folder")


def _range_fields(file: Representation, span: Span) -> Fields:
    return _partial(file, span.stop - span.start, (b"Content-Range", _content_range(file, span)))


def _multipart(file: Representation, wanted: Sequence[Span], *, boundary: bytes) -> tuple[Fields, list[Part]]:
    """The fields and the parts of a `multipart/byteranges` answer (RFC 9110 14.6)."""
    parts: list[Part] = []
    for span in wanted:
        parts.append(
            b"\r\n--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n"
            % (boundary, file.kind, _content_range(file, span))
        )
        parts.append(span)
    parts.append(b"\r\n--%b--\r\n" % boundary)
    length = sum([part.stop - part.start if isinstance(part, Span) else len(part) for part in parts])
    return _partial(file, length, (b"Content-Type", b"multipart/byteranges; boundary=" + boundary)), parts


def _partial(file: Representation, length: int, field: tuple[bytes, bytes]) -> Fields:
    remove = frozenset({b"content-length", b"accept-ranges", field[0].lower()})
    return file.fields.replace(remove=remove, add=((b"Content-Length", b"%d" % length), field))


def _content_range(file: Representation, span: Span) -> bytes:
    return b"bytes %d-%d/%d" % (span.start, span.stop - 1, file.size)
