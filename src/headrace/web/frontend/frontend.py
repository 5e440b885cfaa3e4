"""The frontend: listening sockets, connections and everything before the apps, in an edge or in a worker without one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.certificates import listener_tls
from headrace.http import problem
from headrace.http.exchange import Exchange
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.native.endpoint import SOCKET_NAME
from headrace.web.frontend.metrics import EdgeStatistics, listener_statistics
from headrace.web.frontend.request_router import RequestRouter, build
from headrace.web.settings import RESPOND_ASYNC_RULE, DurableSettings, WebSettings

if TYPE_CHECKING:
    from headrace.web.stored.durable_requests import DurableRequests, Marks

_TICK_S: Final = 1.0
_BROKER_S: Final = 2.0
"""How long clients wait in the backlog for the broker of durable requests; without it all else is served."""


class Frontend:
    """Open, serve, close. One loop."""

    def __init__(
        self,
        settings: WebSettings,
        *,
        dispatchers: Mapping[str, Any],
        sockets: Sequence[socket.socket],
        shared: bool,
        marks: Marks,
    ) -> None:
        """Put everything together; nothing is accepted before `open`.

        Args:
            dispatchers: what answers for each app: its queue.
            sockets: bound; they become the frontend's.
            shared: other processes listen on them, too.
            marks: what the apps have marked as durable, (path, methods) each, as known by now.

        Raises: SettingsError.
        """
        self._settings = settings
        self._sockets = sockets
        self._shared = shared
        self._dispatchers = dispatchers
        self._tls = make_tls(settings)
        self._durable = self._make_durable(settings, marks)
        self.router: RequestRouter = build(settings, apps=dispatchers, durable=self._take_durable(marks))
        self._listener = Listener(
            target=self.router.target,
            http2=_http2() if settings.http2 and self._tls is not None else None,
            limits=limits_of(settings),
            error_body=problem.error_body,
            tls=self._tls,
        )
        self._ticking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if self._durable is not None:
            self._durable.start()
            await self._durable.wait_ready(_BROKER_S)
        for one in self._sockets:
            self._listener.open_socket(one, shared=self._shared)
        self._ticking = asyncio.create_task(self._tick())

    def _make_durable(self, settings: WebSettings, marks: Marks) -> DurableRequests | None:
        if not settings.broker:
            return None
        from headrace.web.stored.durable_requests import DurableRequests  # noqa: PLC0415
        from headrace.web.stored.request_store import RequestStore  # noqa: PLC0415 - the client of the broker

        store = RequestStore(broker_of(settings), settings.durable_queue)
        return DurableRequests(store, _durable_rules(settings), self._dispatch, marks)

    def _take_durable(self, marks: Marks) -> Callable[[Exchange], bool] | None:
        if self._durable is not None:
            return self._durable.take
        if not self._dispatchers:
            return None
        from headrace.web.stored.durable_requests import DurableUnavailable  # noqa: PLC0415

        return DurableUnavailable(marks).take

    def _dispatch(self, exchange: Exchange) -> None:
        self.router.dispatch(exchange)

    def apply(self, settings: WebSettings, dispatchers: Mapping[str, Any]) -> None:
        """Change what can change while it runs: routes, limits, log, certificate.

        Raises: SettingsError, OSError: nothing has changed.
        """
        if self._tls is not None:
            make_tls(settings)  # a certificate that does not fit its key would spoil the context in use
        self.router.reload(settings, apps=dispatchers)
        self._dispatchers = dispatchers
        if self._durable is not None:
            self._durable.change(_durable_rules(settings))
        if self._tls is not None and settings.certfile is not None:
            self._tls.load_cert_chain(settings.certfile, settings.keyfile)

    async def try_out(self, settings: WebSettings, dispatchers: Mapping[str, Any]) -> None:
        """Whether `apply` would take these settings.

        Raises: as `apply`.
        """
        make_tls(settings)
        await build(settings, apps=dispatchers).close()

    async def close(self, grace_s: float, *, idle_s: float) -> None:
        """Answer pending requests, then close. Idempotent."""
        await self._listener.close(grace_s, idle_s=idle_s)
        if self._durable is not None:
            await self._durable.close(grace_s)
        if self._ticking is not None:
            self._ticking.cancel()
        await self.router.close()

    @property
    def requests(self) -> int:
        return self._listener.statistics().requests

    @property
    def in_flight(self) -> int:
        return self.router.statistics().in_flight

    def statistics(self) -> bytes:
        """For the supervisor: what `headrace.web.frontend.metrics` reads."""
        queues = {app: dispatcher.statistics() for app, dispatcher in self._dispatchers.items()}
        record = EdgeStatistics(self.router.statistics(), listener_statistics(self._listener.statistics()), queues)
        return msgspec.msgpack.encode(record)

    def reopen_logs(self) -> None:
        self.router.reopen()

    async def _tick(self) -> None:
        while True:
            self.router.advance(time.monotonic())
            await asyncio.sleep(_TICK_S)


def limits_of(settings: WebSettings) -> Limits:
    return Limits(
        connections_max=settings.connections_max,
        body_bytes=max(1, settings.body_max),
        idle_s=float(settings.keep_alive),
    )


def _durable_rules(settings: WebSettings) -> tuple[DurableSettings, ...]:
    return (*settings.durable, RESPOND_ASYNC_RULE) if settings.respond_async else settings.durable


def broker_of(settings: WebSettings) -> str:
    """Where the broker of durable requests is: a folder's runs beside us, and answers on its socket."""
    return settings.broker if "://" in settings.broker else f"unix://{Path(settings.broker).absolute()}/{SOCKET_NAME}"


def _http2() -> Any:
    from headrace.http.http2 import Http2Connection  # noqa: PLC0415 - without TLS there is no HTTP/2

    return Http2Connection


def make_tls(settings: WebSettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises: SettingsError."""
    context = listener_tls(settings.certfile, settings.keyfile)
    if context is not None:
        context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    return context
