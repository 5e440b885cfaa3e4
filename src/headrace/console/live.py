"""The live parts of pages: one event stream a page, rendered once a second for all who look at the same address.

An event without a name is the live part as HTML; its id is that of its content, so who comes back with `Last-Event-ID` is sent
only what has changed. `tick` carries the newest values of the page's charts. A comment now and then says that we are there.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.console import limits, responses
from headrace.http.exchange import Exchange

_log: Final = logging.getLogger("headrace.console")

Part = tuple[str, bytes]
"""The HTML of a live part, and its tick as JSON; empty without charts."""


@dataclass(eq=False, slots=True)
class _Viewer:
    exchange: Exchange
    since_s: float
    seen: str
    """The id of the part that it has."""
    spoken_s: float
    may_see: Callable[[], bool]


@dataclass(eq=False, slots=True)
class _Channel:
    render: Callable[[], Awaitable[Part]]
    viewers: set[_Viewer] = field(default_factory=set)
    html: str = ""
    id: str = ""


class Live:
    """All open event streams. One loop; `refresh` is called after every look at the broker."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Args: now_s: a clock that never steps."""
        self._now_s = now_s
        self._channels: dict[str, _Channel] = {}
        self._busy = False

    @property
    def viewers(self) -> int:
        return sum(len(channel.viewers) for channel in self._channels.values())

    def join(
        self,
        exchange: Exchange,
        address: str,
        render: Callable[[], Awaitable[Part]],
        may_see: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Let a browser follow an address; False: too many do.

        Args:
            render: makes the part anew. Every viewer of an address gets what the first one's makes.
            may_see: called before each event; once it says no, the stream ends.
        """
        if self.viewers >= limits.VIEWERS_MAX:
            return False
        now_s = self._now_s()
        seen = exchange.headers.get(b"last-event-id", b"").decode("latin-1")
        viewer = _Viewer(exchange, now_s, seen, now_s, may_see)
        channel = self._channels.setdefault(address, _Channel(render))
        channel.viewers.add(viewer)
        exchange.notify = lambda: self._notice(address, viewer)
        # Proxies that collect answers would keep the events back.
        exchange.start(200, responses.fields_of(responses.EVENTS, ((b"X-Accel-Buffering", b"no"),)))
        exchange.send(b"retry: 1000\n\n")
        if channel.html:
            _say(viewer, channel, b"", now_s)
        return True

    async def refresh(self) -> None:
        """Render what is watched, and send it. One that is still at it is not overtaken: the next look is soon."""
        if self._busy:
            return
        self._busy = True
        try:
            for address, channel in list(self._channels.items()):
                await self._refresh(address, channel)
        finally:
            self._busy = False

    async def _refresh(self, address: str, channel: _Channel) -> None:
        try:
            channel.html, tick = await channel.render()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  # one page's bug must not silence the others
            _log.exception("a live page failed", extra={"action": "console.live_failed", "path": address})
            for viewer in list(channel.viewers):
                viewer.exchange.abort()
            return
        channel.id = hashlib.sha256(channel.html.encode()).hexdigest()[:16]
        now_s = self._now_s()
        for viewer in list(channel.viewers):
            if now_s - viewer.since_s >= limits.VIEW_S_MAX or not viewer.may_see():
                self._part(address, viewer)
                viewer.exchange.finish()
            else:
                _say(viewer, channel, tick, now_s)

    def close(self) -> None:
        """End every stream; browsers come again by themselves."""
        for address, channel in list(self._channels.items()):
            for viewer in list(channel.viewers):
                self._part(address, viewer)
                viewer.exchange.finish()

    def _notice(self, address: str, viewer: _Viewer) -> None:
        """A browser that leaves closes its half first; nobody else follows a stream with one half closed."""
        exchange = viewer.exchange
        if exchange.gone or exchange.half_closed:
            self._part(address, viewer)
            exchange.finish()

    def _part(self, address: str, viewer: _Viewer) -> None:
        channel = self._channels.get(address)
        if channel is not None:
            channel.viewers.discard(viewer)
            if not channel.viewers:
                del self._channels[address]


def tick_of(at_s: float, values: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"at": round(at_s), "values": values})


def _say(viewer: _Viewer, channel: _Channel, tick: bytes, now_s: float) -> None:
    """What this viewer lacks. Who does not read fast enough is left out: what comes next is the whole again."""
    exchange = viewer.exchange
    if exchange.gone or not exchange.writable:
        return
    said = b""
    if viewer.seen != channel.id:
        viewer.seen = channel.id
        said = _event(channel.html, channel.id)
    if tick:
        said += b"event: tick\ndata: %b\n\n" % tick
    if not said and now_s - viewer.spoken_s >= limits.HEARTBEAT_S:
        said = b": still here\n\n"
    if said:
        viewer.spoken_s = now_s
        exchange.send(said)


def _event(html: str, key: str) -> bytes:
    data = "\n".join(f"data: {line}" for line in html.splitlines() or [""])
    return f"id: {key}\n{data}\n\n".encode()
