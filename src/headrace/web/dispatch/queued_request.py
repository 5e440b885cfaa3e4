"""A request on its way through the queue to a worker, with the state that queue, workers and links keep of it.

  waiting ──▶ with a worker ──▶ answered
     ▲            │ the worker is lost before it has begun to answer
     └────────────┘ if it may be repeated

Its exchange reports changes (`notify`); it passes them on to its owner: the queue, or its flow.
"""

from __future__ import annotations

from typing import Protocol

from headrace.http.exchange import Exchange
from headrace.web.dispatch.limits import QUIET_S, REPLAY_BYTES_MAX
from headrace.web.dispatch.prefetch_policy import is_repeatable
from headrace.web.dispatch.spool import SpooledExchange
from headrace.web.dispatch.statistics import RouteStatistics


class RequestOwner(Protocol):
    """The dispatcher of a queued request."""

    def client_left(self, queued: QueuedRequest) -> None:
        """The client is gone; the answer, if any, goes nowhere."""

    def client_half_closed(self, queued: QueuedRequest) -> None:
        """The client has closed its sending half while it waits, so it has probably left: its request is skipped."""


class RequestLink(Protocol):
    """The link on which a request is sent to a worker."""

    def cancel(self, number: int) -> None:
        """The client no longer waits for the response of that stream."""


class RequestFlow(Protocol):
    """Transfers bodies and responses that need more than one frame (`stream_flow.py`)."""

    def changed(self) -> None:
        """There may be more of the body, or room for more of the answer."""

    def abandon(self) -> None:
        """The client is gone, or has been answered otherwise."""

    @property
    def waits_for_client(self) -> bool:
        """Whether the worker cannot go on before the client sends more."""


class QueuedRequest:
    """See the module. Plain data, written by the queue and by the dispatcher that owns it."""

    __slots__ = (
        "active_s",
        "begun",
        "body",
        "exchange",
        "flow",
        "given_s",
        "kills",
        "link",
        "losses",
        "number",
        "owner",
        "priority",
        "reported",
        "returns",
        "route",
        "since_s",
        "tunnel",
        "waiting",
    )

    route: RouteStatistics

    def __init__(self, owner: RequestOwner, exchange: Exchange) -> None:
        self.owner = owner
        self.exchange = exchange
        self.priority = exchange.priority
        self.waiting = False
        self.since_s = 0.0
        """When it began to wait; 0 if it never had to."""
        self.given_s = 0.0
        """When a worker got it."""
        self.active_s = 0.0
        """When it last was seen to move: from then `request_timeout` runs."""
        self.begun = False
        """The worker has begun to answer."""
        self.tunnel = False
        """The answer is a tunnel."""
        self.reported = False
        """It has run for too long, and its worker was reported."""
        self.link: RequestLink | None = None
        self.number = 0
        """Of its stream on the link."""
        self.losses = 0
        """Workers that were lost while they had it."""
        self.kills = 0
        """Of those, workers that died of an unknown cause: perhaps of this request."""
        self.returns = 0
        """How often it was recalled, not begun, from behind another one."""
        self.body: ReplayableBody | None = None
        self.flow: RequestFlow | None = None
        exchange.notify = self._changed

    def _changed(self) -> None:
        if self.exchange.gone:
            self.owner.client_left(self)
        elif self.waiting and self.exchange.half_closed:
            self.owner.client_half_closed(self)
        elif self.flow is not None:
            self.flow.changed()

    def may_be_repeated(self) -> bool:
        return is_repeatable(self.exchange)

    def is_quiet(self, now_s: float) -> bool:
        """Whether it needs nothing of its worker's loop, as far as is known: it waits for its client, or has waited for long
        for something. Not said of a tunnel."""
        if self.tunnel:
            return False
        if self.flow is not None and self.flow.waits_for_client:
            return True
        exchange = self.exchange
        return now_s >= self.given_s + QUIET_S or (self.flow is None and exchange.length != 0 and not exchange.ended)

    def rewind(self) -> bool:
        """Prepare the request for another worker; False if its body can no longer be read from the start."""
        self.flow = None
        return self.body is None or self.body.rewind()


class ReplayableBody:
    """The body of an exchange, kept so that it can be read again for another worker."""

    __slots__ = ("_exchange", "_kept", "_kept_bytes", "_next", "_source_ended", "ended")

    def __init__(self, exchange: Exchange, *, keep: bool) -> None:
        """`keep`: whether it may have to be read again; a spooled one always can."""
        self._exchange = exchange
        self._kept: list[bytes] | None = [] if keep and not isinstance(exchange, SpooledExchange) else None
        self._kept_bytes = 0
        self._next = 0  # of _kept; beyond, the exchange is asked
        self._source_ended = False
        self.ended = False
        """The whole body has been read."""

    def read(self) -> bytes:
        """Read the bytes that are available; empty if there are none."""
        kept = self._kept
        if kept is not None and self._next < len(kept):
            data = kept[self._next]
            self._next += 1
            self.ended = self._source_ended and self._next == len(kept)
            return data
        self.ended = self._source_ended = self._exchange.ended
        data = self._exchange.take()
        if kept is not None and data:
            self._keep(kept, data)
        return data

    def rewind(self) -> bool:
        """Read from the start again; False if it cannot be."""
        self.ended = False
        if isinstance(self._exchange, SpooledExchange):
            self._exchange.rewind()
            return True
        self._next = 0
        return self._kept is not None

    def _keep(self, kept: list[bytes], data: bytes) -> None:
        self._kept_bytes += len(data)
        if self._kept_bytes > REPLAY_BYTES_MAX:
            self._kept = None
        else:
            kept.append(data)
            self._next = len(kept)
