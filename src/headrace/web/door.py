"""The door: listening sockets, connections and everything before the apps, in an edge or in a worker without one."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.web.metrics import EdgeStatistics, listener_statistics
from headrace.web.serving import Serving, build
from headrace.web.settings import WebSettings
from headrace.web.tls import make_tls

TICK_S: Final = 1.0


class Door:
    """Open, serve, close. One loop."""

    def __init__(
        self,
        settings: WebSettings,
        *,
        dispatchers: Mapping[str, Any],
        sockets: Sequence[socket.socket],
        shared: bool,
    ) -> None:
        """Put everything together; nothing is accepted before `open`.

        Args:
            dispatchers: what answers for each app: its queue.
            sockets: bound; they become the door's.
            shared: other processes listen on them, too.

        Raises: SettingsError.
        """
        self._settings = settings
        self._sockets = sockets
        self._shared = shared
        self._dispatchers = dispatchers
        self._tls = make_tls(settings)
        self.serving: Serving = build(settings, apps=dispatchers)
        self._listener = Listener(
            target=self.serving.target,
            http2=_http2() if settings.http2 and self._tls is not None else None,
            limits=limits_of(settings),
            tls=self._tls,
        )
        self._ticking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for one in self._sockets:
            self._listener.open_socket(one, shared=self._shared)
        self._ticking = asyncio.create_task(self._tick())

    def apply(self, settings: WebSettings, dispatchers: Mapping[str, Any]) -> None:
        """Change what can change while it runs: routes, limits, log, certificate.

        Raises: SettingsError, OSError: nothing has changed.
        """
        if self._tls is not None:
            make_tls(settings)  # a certificate that does not fit its key would spoil the context in use
        self.serving.reload(settings, apps=dispatchers)
        self._dispatchers = dispatchers
        if self._tls is not None and settings.certfile is not None:
            self._tls.load_cert_chain(settings.certfile, settings.keyfile)

    async def close(self, grace_s: float) -> None:
        """Answer what has come, then close. Idempotent."""
        await self._listener.close(grace_s)
        if self._ticking is not None:
            self._ticking.cancel()
        await self.serving.close()

    @property
    def requests(self) -> int:
        return self._listener.statistics().requests

    @property
    def in_flight(self) -> int:
        return self.serving.statistics().in_flight

    def statistics(self) -> bytes:
        """For the supervisor: what `headrace.web.metrics` reads."""
        queues = {app: dispatcher.statistics() for app, dispatcher in self._dispatchers.items()}
        record = EdgeStatistics(self.serving.statistics(), listener_statistics(self._listener.statistics()), queues)
        return msgspec.msgpack.encode(record)

    def reopen_logs(self) -> None:
        self.serving.reopen()

    async def _tick(self) -> None:
        while True:
            self.serving.advance(time.monotonic())
            await asyncio.sleep(TICK_S)


def limits_of(settings: WebSettings) -> Limits:
    return Limits(
        connections_max=settings.connections_max,
        body_bytes=max(1, settings.body_max),
        idle_s=float(settings.keep_alive),
    )


def _http2() -> Any:
    from headrace.http.http2 import Http2Connection  # noqa: PLC0415 - without TLS there is no HTTP/2

    return Http2Connection
