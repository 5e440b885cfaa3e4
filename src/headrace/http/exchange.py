"""A request and its answer, both as streams: what connections produce and what consumers of the web server consume.

Every protocol that brings requests (HTTP/1.1, HTTP/2, the link from the edge to a worker, a durable request read from
its queue) is a subclass; every consumer (a WSGI or ASGI application, a static folder, a proxied server, the link to a
worker) works on this class and does not know which. Middleware wraps one in another.

One thread, one loop. Nothing here blocks. The body is pulled: what nobody takes is not read from the client. The
answer is pushed, as long as `writable` says so.

  WAITING ──respond──────────────────▶ DONE
     │──start──▶ ANSWERING ──finish──▶ DONE
     │──tunnel─▶ TUNNEL ─────finish──▶ DONE
  any, before DONE: abort, or the client leaves ▶ DONE, with `gone`
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeAlias

from headrace.http.answers import BODILESS
from headrace.http.fields import Fields, check_interim, check_status
from headrace.http.messages import Headers


class Stage(Enum):
    """How far the answer is."""

    WAITING = auto()
    ANSWERING = auto()
    TUNNEL = auto()
    DONE = auto()


# Names of their own: to fetch a member from its Enum costs 70 ns in Python 3.11.
WAITING, ANSWERING, TUNNEL, DONE = Stage.WAITING, Stage.ANSWERING, Stage.TUNNEL, Stage.DONE


class LengthMismatch(RuntimeError):
    """The application's answer is shorter or longer than the Content-Length that it gave."""


class Exchange(ABC):
    """See the module. Consumers call the public methods; a protocol implements the underscored ones.

    Invariants: `notify` is never called from inside one of the consumer's own calls; no answer ends as if whole unless
    it is whole: a short one is aborted.
    """

    __slots__ = (
        "_left",
        "_mute",
        "began_s",
        "expects",
        "gone",
        "half_closed",
        "headers",
        "length",
        "method",
        "notify",
        "on_done",
        "path",
        "peer",
        "peer_port",
        "priority",
        "query",
        "refused",
        "root_path",
        "route",
        "secure",
        "sent_bytes",
        "server",
        "stage",
        "status",
        "target",
        "upgrade",
        "version",
        "waited_s",
    )

    # The request. Plain data, set by the protocol.
    method: str
    target: str
    """Path and query as sent, percent-encoded."""
    path: str
    """`target` up to the `?`, still percent-encoded."""
    query: str
    headers: Headers
    """Lower-case names; repeated ones joined."""
    version: str
    """`1.0`, `1.1` or `2`."""
    secure: bool
    """Whether the client speaks TLS with us."""
    peer: str
    """The client's address, or `unix`."""
    peer_port: int
    server: tuple[str, int]
    """The address that the client has connected to; a Unix socket's path and 0."""
    upgrade: bytes
    """The protocol that the client would go on with (`websocket`), if it may; else empty. HTTP/2's extended CONNECT
    looks alike: method GET and this."""
    length: int
    """Body bytes announced; CHUNKED (-1) if unknown."""
    expects: bool
    """`Expect: 100-continue` came, and the body has not been invited yet."""
    began_s: float
    """When the head had arrived, by `time.monotonic`."""

    # What routing and the queue have noted
    root_path: str
    """The mount point that was taken off `path` and `target` (SCRIPT_NAME); percent-encoded."""
    route: str
    """The route's label in metrics."""
    priority: int
    """Priority: 0 first, 1 normal, 2 last."""
    waited_s: float
    """In the queue."""
    refused: str
    """Why no consumer has seen it (`queue-full`, `timeout`, …): the answer is then our own; else empty."""

    # The state
    stage: Stage
    gone: bool
    """The client has left, or the exchange was aborted: nothing that is done has an effect any more."""
    half_closed: bool
    """The client has closed its sending half behind a complete request: mostly it has left, but some (`nc`) wait for their
    answer. Who has not begun to work on it need not. If the answer does not come within a second or two: `gone`."""
    notify: Callable[[], None] | None
    """Set by the consumer; called on the loop when something has changed: body bytes or its end, room to write,
    `half_closed`, `gone`."""
    on_done: Callable[[Exchange], None] | None
    """For the access log and the metrics: called once, when the answer has been given or cannot be any more."""
    status: int
    """Of the answer; 0 until there is one, 499 if the client left before."""
    sent_bytes: int
    """Body bytes of the answer."""

    def __init__(self) -> None:
        self.stage = WAITING
        self.gone = False
        self.half_closed = False
        self.notify = None
        self.on_done = None
        self.status = 0
        self.sent_bytes = 0
        self.root_path = ""
        self.route = ""
        self.priority = 1
        self.waited_s = 0.0
        self.refused = ""
        self._left: int | None = None
        self._mute = False

    # The body

    @abstractmethod
    def take(self) -> bytes:
        """The body bytes that have arrived and were not taken; empty if none. Lets more be read.

        The first call of a request with `Expect: 100-continue` invites the body. In a tunnel: the client's bytes.
        """

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether nothing of the body is missing: what `take` answers next is the last. Never for a cut body."""

    # The answer

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether more may be sent; else wait for `notify`. True when gone: what is sent then is dropped."""

    @property
    def answered(self) -> bool:
        """Whether an answer has begun."""
        return self.stage is not WAITING

    def respond(self, status: int, fields: Fields, body: bytes = b"") -> None:
        """The whole answer at once. Its length is `body`'s, unless `fields` has one and this answers a HEAD.

        Raises: FieldInvalid (nothing is sent), LengthMismatch.
        """
        if self.gone:
            return
        self._begin(status)
        if fields.length is not None and not self._mute and fields.length != len(body):
            self.stage = WAITING
            raise LengthMismatch(f"Content-Length says {fields.length} bytes, the body has {len(body)}")
        if not self._mute:
            self.sent_bytes = len(body)
        self.stage = DONE
        self._respond(status, fields, b"" if self._mute else body, len(body))
        self._done()

    def start(self, status: int, fields: Fields) -> None:
        """Begin an answer; it may leave together with the first piece of its body.

        Raises: FieldInvalid; nothing is sent then.
        """
        if self.gone:
            return
        self._begin(status)
        self._left = None if self._mute else fields.length
        self.stage = ANSWERING
        self._start(status, fields)

    def send(self, data: bytes) -> None:
        """A piece of the body, or of a tunnel's stream.

        Raises: LengthMismatch: more than announced; what was announced has been sent.
        """
        if self.gone:
            return
        assert self.stage is ANSWERING or self.stage is TUNNEL, f"send in stage {self.stage}"
        if self._mute or not data:
            return
        if self._left is not None:
            data = self._count(data)
        self.sent_bytes += len(data)
        self._send(data)

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """A piece of the body from a regular file. Takes `fd`: closes it when done. Then wait until `writable`."""
        if self.gone or self._mute:
            os.close(fd)
            return
        assert self.stage is ANSWERING, f"send_file in stage {self.stage}"
        if self._left is not None:
            if count > self._left:
                os.close(fd)
                raise LengthMismatch(f"the file has {count} bytes, {self._left} are still announced")
            self._left -= count
        self.sent_bytes += count
        self._send_file(fd, offset, count)

    def finish(self) -> None:
        """The answer is complete.

        Raises: LengthMismatch: less than announced; the exchange has been aborted then.
        """
        if self.gone:
            return
        assert self.stage is ANSWERING or self.stage is TUNNEL, f"finish in stage {self.stage}"
        if self._left:
            missing = self._left
            self.abort()
            raise LengthMismatch(f"{missing} bytes of the announced Content-Length were not sent")
        self.stage = DONE
        self._finish()
        self._done()

    def tunnel(self, fields: Fields) -> None:
        """Accept `upgrade`: from here on `take` and `send` are a plain stream in both directions."""
        if self.gone:
            return
        assert self.stage is WAITING, "an answer has begun"
        assert self.upgrade, "no upgrade was asked for"
        self.status = 101
        self.stage = TUNNEL
        self._tunnel(fields)

    def inform(self, status: int, fields: Fields) -> None:
        """An interim answer (103 Early Hints); ignored where the client's protocol has none, and once an answer has begun.

        Raises: FieldInvalid.
        """
        if not self.gone and self.stage is WAITING:
            check_interim(status)
            self._inform(status, fields)

    def abort(self) -> None:
        """Give up: the client must not take what it has for the whole. Ends the connection, or the stream. Idempotent."""
        if self.stage is not DONE:
            self.gone = True
            self.stage = DONE
            self._abort()
            self._done()

    def lost(self) -> None:
        """For the protocol: the client has left."""
        if self.gone or self.stage is DONE:
            return
        self.gone = True
        self.stage = DONE
        self.status = self.status or 499
        self._done()
        if self.notify is not None:
            self.notify()

    def release(self) -> None:  # noqa: B027  # most protocols have nothing to free
        """For the consumer, at its very end: it has let go. A handler may run on long after its client has left, and what
        it holds (its slot in a worker) is free only now."""

    # What a protocol implements

    @abstractmethod
    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        """`length` is the body's, also where `body` is empty because the method is HEAD."""

    @abstractmethod
    def _start(self, status: int, fields: Fields) -> None: ...

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    @abstractmethod
    def _send_file(self, fd: int, offset: int, count: int) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _tunnel(self, fields: Fields) -> None: ...

    @abstractmethod
    def _inform(self, status: int, fields: Fields) -> None: ...

    @abstractmethod
    def _abort(self) -> None: ...

    # Inside

    def _begin(self, status: int) -> None:
        if self.stage is not WAITING:
            raise RuntimeError(f"{self.method} {self.path} was answered twice")
        self.status = check_status(status)
        self._mute = self.method == "HEAD" or status in BODILESS

    def _count(self, data: bytes) -> bytes:
        assert self._left is not None
        if len(data) <= self._left:
            self._left -= len(data)
            return data
        announced, self._left = self._left, 0
        if announced:
            self.sent_bytes += announced
            self._send(data[:announced])
        raise LengthMismatch(f"the body is {len(data) - announced} bytes longer than its Content-Length")

    def _done(self) -> None:
        on_done = self.on_done
        if on_done is not None:
            self.on_done = None
            on_done(self)


Target: TypeAlias = Callable[[Exchange], None]
"""A consumer's entrance: called on the loop when the head has arrived, with whatever of the body came along. It answers
then or later. An exception is the consumer's bug: the caller logs it and answers 500, or aborts."""
