"""One request on its way to an upstream, and its answer on the way back. Both stream; nothing is held here.

  connect ─▶ head and body go out ─▶ the answer's head comes ─▶ its body is passed on ─▶ done
                                          └─ 101: a tunnel, until one side closes

Back-pressure: no more of the body is taken from the client than the upstream takes, and nothing is read from the
upstream while the client does not take its answer.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Protocol

from headrace.http.exchange import Exchange
from headrace.http.parse import CHUNKED
from headrace.web.dispatch.queued_request import ReplayableBody
from headrace.web.proxy.limits import INTERIM_ANSWERS_MAX
from headrace.web.proxy.request_head import InvalidRequestHead, render
from headrace.web.proxy.response_reader import InvalidResponse, ResponseHead
from headrace.web.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from headrace.web.proxy.proxy_target import QueuedProxyRequest
    from headrace.web.proxy.upstream import Upstream


_FAILED: Final = frozenset({502, 503, 504})
_FROM_HTTP2: Final = frozenset({b"sec-websocket-accept"})
_KEY_BYTES: Final = 16  # RFC 6455 4.1


class RelayOwner(Protocol):
    """The proxy, for its relays. Each of these ends the relay, but `judged` and `tunnelled`."""

    connect_timeout_s: float

    def now_s(self) -> float: ...

    def judged(self, relay: Relay, *, well: bool) -> None:
        """The upstream has begun to answer; `well`: not with an error of its own."""

    def tunnelled(self, relay: Relay) -> None:
        """It is a tunnel from here on, and takes no place."""

    def relayed(self, relay: Relay) -> None:
        """The answer is complete."""

    def unreachable(self, relay: Relay, reason: str) -> None:
        """There was no connection; nothing was sent."""

    def broken(self, relay: Relay, reason: str, *, repeatable: bool) -> None:
        """The upstream has failed. `repeatable`: it has not begun to answer."""

    def stale(self, relay: Relay) -> None:
        """A kept connection was closed by the upstream before it can have answered."""

    def refused(self, relay: Relay, reason: str) -> None:
        """The request cannot be passed on."""


class Relay:
    """The flow of a queued request. Invariant: either it has a connection, of which it is the user, or it waits for one."""

    __slots__ = (
        "_answer",
        "_body_done",
        "_chunked",
        "_connecting",
        "_connection",
        "_interims",
        "_owner",
        "_paused",
        "_reused",
        "active_s",
        "blamed",
        "exchange",
        "queued",
        "sent",
        "started",
        "upstream",
    )

    def __init__(self, owner: RelayOwner, queued: QueuedProxyRequest, upstream: Upstream) -> None:
        self._owner = owner
        self.queued = queued
        self.exchange: Exchange = queued.exchange
        self.upstream = upstream
        self.active_s = 0.0
        """When something last came from the upstream, or the client was waited for."""
        self.blamed = False
        """The upstream has been blamed for it: for one request once."""
        self.sent = False
        """The upstream may have got something of the request."""
        self.started = False
        """The client has got something of the answer."""
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._answer: ResponseHead | None = None
        self._interims = 0
        self._body_done = True
        self._chunked = False
        self._paused = False
        self._reused = False

    # Out

    def begin(self, *, fresh: bool) -> None:
        """Send the request; on a new connection, if `fresh`."""
        self.active_s = self._owner.now_s()
        connection = None
        if not fresh and not self.exchange.upgrade:
            connection = self.upstream.take_connection(self.active_s, repeatable=self.queued.may_be_repeated())
        if connection is not None:
            self._reused = True
            self._send(connection)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._owner.connect_timeout_s):
                connection = await self.upstream.connect()
        except TimeoutError:
            self._connecting = None
            self._owner.unreachable(self, f"no connection within {self._owner.connect_timeout_s:g} s")
        except (OSError, ValueError) as error:  # ValueError: a name that is none, a certificate of another host
            self._connecting = None
            self._owner.unreachable(self, str(error) or type(error).__name__)
        else:
            self._connecting = None
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        connection.user = self
        self._connection = connection
        exchange, queued = self.exchange, self.queued
        length, piece = (0 if exchange.upgrade else exchange.length), b""  # HTTP/2's CONNECT seems to have a body
        if length and queued.body is None:
            queued.body = ReplayableBody(exchange, keep=queued.may_be_repeated())
        if queued.body is not None:
            piece = queued.body.read()  # this invites it, too
            self._body_done = queued.body.ended
            if length == CHUNKED and self._body_done:
                length = len(piece)
        try:
            head = self._render(length)
        except InvalidRequestHead as error:
            self._owner.refused(self, str(error))
            return
        self.sent = True
        self._chunked = length == CHUNKED
        connection.write(head + self._frame(piece))
        if not self._body_done:
            self._pump()

    def _render(self, length: int) -> bytes:
        exchange = self.exchange
        key = b""
        if exchange.upgrade and b"sec-websocket-key" not in exchange.headers:
            key = os.urandom(_KEY_BYTES)
        host = self.upstream.host or exchange.headers.get(b"host") or self.upstream.address.authority
        return render(exchange, host=host, length=length, key=key)

    def _frame(self, piece: bytes) -> bytes:
        """A piece of the body, as it goes out."""
        if not self._chunked:
            return piece
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        return chunk + b"0\r\n\r\n" if self._body_done else chunk

    def _pump(self) -> None:
        """Pass on what there is of the body, as far as the upstream takes it."""
        connection, body = self._connection, self.queued.body
        assert connection is not None, "it waits for a connection"
        assert body is not None, "there is no body"
        while not self._body_done and connection.writable:
            piece = body.read()
            self._body_done = body.ended
            if not piece and not self._body_done:
                return
            self.active_s = self._owner.now_s()
            connection.write(self._frame(piece))

    def _pump_tunnel(self, connection: UpstreamConnection) -> None:
        exchange = self.exchange
        while not self._body_done and connection.writable:
            ended = exchange.ended
            piece = exchange.take()
            if piece:
                connection.write(piece)
            if ended:
                self._body_done = True
                connection.end_writing()
            elif not piece:
                return

    # The exchange's

    def changed(self) -> None:
        """There may be more of the body, or room for more of the answer."""
        connection = self._connection
        if connection is None:
            return
        if self._paused and self.exchange.writable:
            self._paused = False
            self.active_s = self._owner.now_s()
            connection.resume()
        self.drained()

    def abandon(self) -> None:
        """The client is gone, or has been answered otherwise."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.queued.tunnel:
            connection.write(self.exchange.take())  # what the client has sent last: a close frame, mostly
            connection.close()
        else:
            connection.abort()

    @property
    def waits_for_client(self) -> bool:
        """Whether it is not the upstream that is slow: the client takes nothing, or its body is not here."""
        connection = self._connection
        if connection is None:
            return True  # connecting has a limit of its own
        return self._paused or (not self._body_done and connection.writable)

    # The connection's

    def drained(self) -> None:
        connection = self._connection
        if connection is None or self._body_done:
            return
        if self.queued.tunnel:
            self._pump_tunnel(connection)
        else:
            self._pump()

    def received(self) -> None:
        connection = self._connection
        assert connection is not None, "a connection that is not ours"
        self.active_s = self._owner.now_s()
        try:
            if self.queued.tunnel or self._has_answer(connection):
                self._pass_on(connection)
        except InvalidResponse as error:
            self._give_up(connection, str(error))

    def _has_answer(self, connection: UpstreamConnection) -> bool:
        """Read heads until the real one; whether it is here, or was."""
        while self._answer is None:
            answer = connection.reader.next_head(mute=self.exchange.method == "HEAD")
            if answer is None:
                return False
            if answer.status >= 200:
                self._answer = answer
                self._owner.judged(self, well=answer.status not in _FAILED)
            elif answer.status == 101:
                self._begin_tunnel(answer, connection)
                return True
            else:
                self._interim(answer)
        return True

    def _interim(self, answer: ResponseHead) -> None:
        self._interims += 1
        if self._interims > INTERIM_ANSWERS_MAX:
            raise InvalidResponse(f"more than {INTERIM_ANSWERS_MAX} interim answers")
        if answer.status == 103:
            self.exchange.inform(103, answer.fields)

    def _begin_tunnel(self, answer: ResponseHead, connection: UpstreamConnection) -> None:
        exchange = self.exchange
        if not exchange.upgrade or answer.upgrade != exchange.upgrade:
            raise InvalidResponse("it changes to a protocol that was not asked for")
        self._owner.judged(self, well=True)
        fields = answer.fields
        if exchange.version == "2":
            fields = fields.replace(remove=_FROM_HTTP2)  # it answers a key of ours
        self.queued.tunnel = self.started = True
        self._body_done = False
        exchange.tunnel(fields)
        self._owner.tunnelled(self)
        self._pump_tunnel(connection)

    def _pass_on(self, connection: UpstreamConnection) -> None:
        exchange = self.exchange
        if self.queued.tunnel:
            data, whole = connection.reader.take(), False
        else:
            data, whole = connection.reader.read_body()
            if not self.started:
                self._start(data, whole=whole)
                return
        if data:
            exchange.send(data)
        if whole:
            self._finish(connection)
        elif not exchange.writable:
            self._paused = True
            connection.pause()

    def _start(self, data: bytes, *, whole: bool) -> None:
        answer, connection = self._answer, self._connection
        assert answer is not None, "the head has come"
        assert connection is not None, "from a connection"
        self.started = True
        exchange = self.exchange
        if whole:
            exchange.respond(answer.status, answer.fields, data)
            self._end(connection)
            return
        exchange.start(answer.status, answer.fields)
        if data:
            exchange.send(data)
        if not exchange.writable:
            self._paused = True
            connection.pause()

    def _finish(self, connection: UpstreamConnection) -> None:
        self.exchange.finish()
        self._end(connection)

    def _end(self, connection: UpstreamConnection) -> None:
        """The answer is complete; the connection serves again, if both sides agree where they are."""
        self._connection = None
        answer = self._answer
        if answer is not None and answer.keep_alive and self._body_done and not connection.reader.buffer:
            self.upstream.keep(connection, self.active_s)
        else:
            connection.abort()
        self._owner.relayed(self)

    def lost(self, error: Exception | None) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None, "a connection that is not ours"
        if self.queued.tunnel or (self.started and connection.reader.delimited):
            if error is None:
                self.exchange.finish()
                self._owner.relayed(self)
            else:
                self._owner.broken(self, str(error), repeatable=False)
        elif self._answer is None and not connection.reader.buffer and not self._interims:
            if self._reused:
                self._owner.stale(self)
            else:
                self._owner.broken(self, "it closed without a response", repeatable=True)
        else:
            self._owner.broken(self, "it closed in the middle of its answer", repeatable=False)

    def _give_up(self, connection: UpstreamConnection, reason: str) -> None:
        self._connection = None
        connection.abort()
        self._owner.broken(self, reason, repeatable=False)
