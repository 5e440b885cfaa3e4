"""One upstream server: its connections, its health, its counters."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final

from headrace.web.proxy import health as rules
from headrace.web.proxy.address import Address
from headrace.web.proxy.health import OUT, PROBING, UNFIT, UP, WELL, Health
from headrace.web.proxy.limits import IDLE_S, IDLE_UNREPEATABLE_S
from headrace.web.proxy.upstream_connection import UpstreamConnection
from headrace.web.statistics import UpstreamStatistics

_log: Final = logging.getLogger("headrace.web")


class Upstream:
    """See the module. Invariants: `busy` requests have a place; at most `limit` do, so at most as many connections are
    kept."""

    def __init__(
        self,
        address: Address,
        *,
        limit: int,
        preserve_host: bool,
        tls: Callable[[], ssl.SSLContext],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.address: Final = address
        self.limit: Final = limit
        self.host: Final = b"" if preserve_host else address.authority
        """What its requests say in Host; empty: what the client said."""
        self.busy = 0
        self.health = WELL
        self.requests = self.failures = self._connects = 0
        self.checked_s = 0.0
        """When its health was last asked for."""
        self._idle: list[UpstreamConnection] = []
        self._closing = False
        self._tls = tls
        self._loop = loop

    # Connections

    def take_connection(self, now_s: float, *, repeatable: bool) -> UpstreamConnection | None:
        """A kept connection, the last used first, since the others are rather stale; None if there is none.

        Args:
            repeatable: the request may be sent again if the upstream closes just now.
        """
        while self._idle:
            connection = self._idle.pop()
            if repeatable:
                if not connection.closing and now_s - connection.since_s < IDLE_S:
                    return connection
            elif now_s - connection.since_s >= IDLE_UNREPEATABLE_S:
                self._idle.append(connection)
                return None
            elif connection.is_fresh():
                return connection
            connection.close()
        return None

    def keep(self, connection: UpstreamConnection, now_s: float) -> None:
        """It may serve again."""
        if self._closing:
            connection.close()
            return
        connection.user = None
        connection.since_s = now_s
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    async def connect(self) -> UpstreamConnection:
        """A new connection.

        Raises: OSError.
        """
        self._connects += 1
        address, loop = self.address, self._loop
        if address.socket:
            _, connection = await loop.create_unix_connection(self._make, address.socket)
        else:
            tls = self._tls() if address.secure else None
            _, connection = await loop.create_connection(self._make, address.host, address.port, ssl=tls)
        return connection

    def _make(self) -> UpstreamConnection:
        return UpstreamConnection(self)

    def sweep(self, now_s: float) -> None:
        """Close what was idle for too long."""
        stale = [connection for connection in self._idle if now_s - connection.since_s >= IDLE_S]
        if stale:
            self._idle = self._idle[len(stale) :]  # in the order of their last use
            for connection in stale:
                connection.close()

    def close(self) -> None:
        """Keep nothing any more; what is in use goes on."""
        self._closing = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # Health

    @property
    def up(self) -> bool:
        return self.health.state is UP

    def set_health(self, found: Health, reason: str = "") -> None:
        """Its health is this from now on; tells the log what has changed."""
        before, self.health = self.health, found
        if before.state is found.state or {before.state, found.state} == {OUT, PROBING}:
            return
        extra = {"action": "web.upstream.up", "upstream": self.address.url}
        if found.state is UP:
            _log.info("an upstream gets requests again", extra=extra)
        elif found.state is UNFIT or before.state is UP:
            extra["action"] = "web.upstream.down"
            _log.warning("an upstream gets no requests: %s", reason, extra=extra)

    def succeeded(self) -> None:
        if self.health is not WELL:
            self.set_health(rules.succeeded(self.health))

    def released(self) -> None:
        if self.health is not WELL:
            self.set_health(rules.released(self.health))

    def statistics(self) -> UpstreamStatistics:
        return UpstreamStatistics(
            up=int(self.up),
            in_flight=self.busy,
            idle=len(self._idle),
            connects=self._connects,
            requests=self.requests,
            failures=self.failures,
        )
