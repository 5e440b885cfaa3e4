"""Run a WSGI application for one request after another: PEP 3333, on a channel that blocks.

Where the requests come from, and how an answer travels, is a `RequestChannel`'s: the link to an edge
(`wsgi_link_threads.py`), or the loop of the same process (`wsgi_target.py`).

An answer that is known whole leaves at once, before `close()` of the application's iterable is called, so that no client
waits for what an application does after its answer. Everything else is streamed: each piece leaves before the next one
is asked for.
"""

from __future__ import annotations

import io
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, TypeAlias

from headrace.http import problem
from headrace.http.answers import BODILESS
from headrace.http.exchange import LengthMismatch
from headrace.http.fields import FieldInvalid, Fields, check_status
from headrace.web.apps import request_span
from headrace.web.apps.wsgi_environ import EnvironMaker, FileWrapper, RequestHead, stream

WsgiApp: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType]

WHOLE_BYTES_MAX: Final = 262_144
"""The longest body that is handed over at once, which frees the thread from a slow client: as much as the window of a
stream lets the other side hold anyway (`frames.WINDOW_BYTES`)."""
FILE_READ_BYTES_MAX: Final = 65_536
"""Files up to here are read: two copies cost less than passing a descriptor on."""
SLOW_CLOSE_S: Final = 0.2
"""Work after the answer that takes longer is reported to the channel: it costs a new link, some 0.1 ms. Well above what a
thread waits for the interpreter while others compute: 5 ms for each."""
SLOW_CLOSES_REMEMBERED: Final = 100

_log: Final = logging.getLogger("headrace.web")


class ClientGone(ConnectionResetError):
    """The client has left before its request was read or its answer was sent. Raised into the application."""


class RequestChannel(ABC):
    """One request's way in and its answer's way out, for one thread. The calls block.

    `read`, `start`, `send` and `send_file` raise ClientGone; what ends the answer does not, so that it is ended once.
    """

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """The next bytes of the body; waits for them; empty at the end, which a cut body never has."""

    @abstractmethod
    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        """The whole answer, at most WHOLE_BYTES_MAX."""

    @abstractmethod
    def start(self, status: int, fields: Fields) -> None:
        """The answer begins. May leave together with the first piece."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """A piece, of any length but none; waits for room."""

    @abstractmethod
    def send_file(self, fd: int, offset: int, count: int) -> None:
        """A piece from a plain file. `fd` stays the caller's."""

    @abstractmethod
    def finish(self) -> None:
        """The answer is complete."""

    @abstractmethod
    def abort(self) -> None:
        """It cannot be completed."""

    def retire(self) -> None:  # noqa: B027  # most channels have nothing to do
        """After the end of this answer the thread will be busy for a while: give it no further request meanwhile."""


class WsgiRunner:
    """An application, ready for requests; one serves all threads. It never raises: what goes wrong is answered and logged.

    Some applications work on after the answer, in `close()`: Flask's `call_on_close`, a generator's last lines. Where that
    has been slow, the channel is notified before the next answers end, so that no request waits behind such work.
    """

    def __init__(self, app: WsgiApp, *, multithread: bool, multiprocess: bool) -> None:
        self._app = app
        self._environs = EnvironMaker(multithread=multithread, multiprocess=multiprocess)
        self._slow_closes = 0  # answers that are still ended with care; threads may race for it, a few off is no harm

    def run(self, head: RequestHead, channel: RequestChannel, body: bytes | None) -> None:
        """Answer one request.

        Args:
            body: if all of it is here; None: it is read from the channel.
        """
        answer = _Response(channel, head.method == "HEAD", self._slow_closes > 0)
        if request_span.wanted(head.headers):
            with request_span.request_span(head, lambda: answer.status):
                self._run(head, channel, body, answer)
        else:
            self._run(head, channel, body, answer)
        if self._slow_closes or time.perf_counter() - answer.ended_s > SLOW_CLOSE_S:
            self._judge(time.perf_counter() - answer.ended_s)

    def _run(self, head: RequestHead, channel: RequestChannel, body: bytes | None, answer: _Response) -> None:
        result: Any = None
        try:
            if body is not None:
                environ = self._environs.make(head, io.BytesIO(body), len(body))
            else:
                environ = self._environs.make(head, stream(channel), head.length)
            result = self._app(environ, answer.start_response)
            answer.give(result)
        except ClientGone:
            _log.debug("the client disconnected", extra={"action": "web.app.client_gone", "path": head.target})
            answer.abort()
        except BaseException as error:  # noqa: BLE001  # sys.exit() in a view must not take the thread along
            answer.fail(error, head)
        close = getattr(result, "close", None)
        if close is not None:
            self._close(close, head)

    def _close(self, close: Callable[[], object], head: RequestHead) -> None:
        try:
            close()
        except ClientGone:
            pass  # a generator that could not go on
        except BaseException as error:  # noqa: BLE001  # as above
            _log_failure(error, head, "the application failed after its answer", "web.app.close.failed")

    def _judge(self, afterwards_s: float) -> None:
        if afterwards_s > SLOW_CLOSE_S:
            self._slow_closes = SLOW_CLOSES_REMEMBERED
        else:
            self._slow_closes -= 1


class _Response:
    """What an application has said of its answer so far.

    `status` is 0 until `start_response` was called; `begun` once the client may have seen something; `ended` when it has
    all. `left` is what the Content-Length still promises, None without one.
    """

    # Defaults in the class: every request makes one of these, and most leave them so.
    fields: Fields
    status = 0
    begun = False
    ended = False
    ended_s = 0.0
    left: int | None = None

    def __init__(self, channel: RequestChannel, to_head: bool, careful: bool) -> None:
        self.channel = channel
        self.to_head = to_head
        self.mute = to_head
        self.careful = careful

    # What the application calls

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: no circle through the frame
        elif self.status:
            raise RuntimeError("start_response was called a second time, without exc_info")
        code = _code(status)
        self.fields = Fields.of_text(headers)
        self.status = code
        self.mute = self.to_head or code in BODILESS
        return self.write

    def write(self, data: bytes) -> None:
        """The old way to send: PEP 3333's write callable. Nothing is held back."""
        if self.ended:
            raise RuntimeError("write was called after the end of the answer")
        if not isinstance(data, bytes):
            raise _not_bytes(data)
        self._begin()
        self._send(data)

    # What the application returned

    def give(self, result: Any) -> None:
        kind = type(result)
        if (kind is list or kind is tuple) and not self.begun:
            self._whole(result[0] if len(result) == 1 else b"".join(result))
        elif kind is FileWrapper and not self.begun:
            self._file(result)
        elif getattr(kind, "streaming", None) is False and not self.begun:
            self._whole(b"".join(result))  # Django's word for "all of it is here"; PEP 3333 has none but `len`
        else:
            self._stream(result)

    def _whole(self, body: bytes) -> None:
        """Nothing has been sent, and this is all."""
        if not isinstance(body, bytes):
            raise _not_bytes(body)
        fields = self._promised()
        if self.mute:
            if fields.length is None and body and self.status not in BODILESS:
                fields.length = len(body)
            if fields.length is None:
                self._begin()
                self._finish()
                return
            body = b""
        elif fields.length is not None and fields.length != len(body):
            raise LengthMismatch(f"Content-Length says {fields.length} bytes, the body has {len(body)}")
        if len(body) > WHOLE_BYTES_MAX:
            fields.length = len(body)
            self._begin()
            self._send(body)
            self._finish()
            return
        self._end()
        self.channel.respond(self.status, fields, body)

    def _stream(self, pieces: Iterable[bytes]) -> None:
        for data in pieces:
            if not isinstance(data, bytes):
                raise _not_bytes(data)
            if not data:
                continue
            if self.ended:
                raise LengthMismatch("the body is longer than its Content-Length")
            if not self.begun:
                fields = self._promised()
                if fields.length == len(data) <= WHOLE_BYTES_MAX and not self.mute:
                    self._end()
                    self.channel.respond(self.status, fields, data)
                    continue  # to the end: a generator may have something to do there
                if self.mute:
                    break  # no client reads the body; `close` notifies the application
                self._begin()
            self._send(data)
        if not self.ended:
            self._end_stream()

    def _end_stream(self) -> None:
        if not self.begun and not self.mute:
            self._whole(b"")
            return
        self._begin()  # the answer to a HEAD claims no length that is not known
        self._finish()

    def _file(self, wrapper: FileWrapper) -> None:
        extent = wrapper.extent()
        if extent is None:
            self._stream(wrapper)
            return
        fd, offset, count = extent
        fields = self._promised()
        if fields.length is None:
            fields.length = count
        count = min(count, fields.length)  # PEP 3333: no more than was announced
        if count <= FILE_READ_BYTES_MAX or self.mute:
            self._whole(b"" if self.mute else os.pread(fd, count, offset))
            return
        if count < fields.length:
            raise LengthMismatch(f"Content-Length says {fields.length} bytes, the file has {count}")
        self._begin()
        self.channel.send_file(fd, offset, count)
        self.left = 0
        self._finish()

    # Out

    def _promised(self) -> Fields:
        if not self.status:
            raise RuntimeError("the application gave a body before it called start_response")
        return self.fields

    def _begin(self) -> None:
        if not self.begun:
            fields = self._promised()
            self.begun = True
            self.left = None if self.mute else fields.length
            self.channel.start(self.status, fields)

    def _send(self, data: bytes) -> None:
        if self.mute or not data:
            return
        left = self.left
        if left is not None:
            self.left = left - len(data)
            if self.left < 0:
                self.left = 0
                if left:
                    self.channel.send(data[:left])
                self._finish()
                raise LengthMismatch(f"the body is {len(data) - left} bytes longer than its Content-Length")
        self.channel.send(data)

    def _finish(self) -> None:
        if self.left:
            raise LengthMismatch(f"{self.left} bytes of the announced Content-Length are missing")
        self._end()
        self.channel.finish()

    def _end(self) -> None:
        if self.careful:
            self.channel.retire()
        self.begun = self.ended = True
        self.ended_s = time.perf_counter()

    # What goes wrong

    def abort(self) -> None:
        if not self.ended:
            self._end()
            self.channel.abort()

    def fail(self, error: BaseException, head: RequestHead) -> None:
        """The application's fault: 500 if nothing has been sent, else the answer is cut, so that no client takes it for
        complete."""
        _log_failure(error, head, "the application failed", "web.app.failed")
        if self.begun:
            self.abort()
            return
        content_type, body = problem.render(head.headers.get(b"accept", b""), 500, "The application failed.")
        fields = Fields.of(((b"Content-Type", content_type), (b"Cache-Control", b"no-store")))
        fields.length = len(body)
        self.status = 500
        self._end()
        self.channel.respond(500, fields, b"" if self.to_head else body)


def _not_bytes(data: object) -> TypeError:
    return TypeError(f"a body is made of bytes, not of {type(data).__name__}")


def _log_failure(error: BaseException, head: RequestHead, text: str, action: str) -> None:
    extra = {"action": action, "method": head.method, "path": head.target.partition("?")[0]}
    _log.error("%s: %s", text, error, exc_info=error, extra=extra)


@lru_cache(maxsize=256)
def _code(status: str) -> int:
    """`200 OK` → 200. The words are not passed on: HTTP/2 has none, and clients ignore them."""
    digits = status[:3]
    if not (digits.isascii() and digits.isdigit()) or status[3:4] not in ("", " ") or not status.isprintable():
        raise FieldInvalid(f"invalid status {status!r}: expected three digits, a space and a reason")
    return check_status(int(digits))
