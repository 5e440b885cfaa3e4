"""Routes every request from a connection to the app, folder, proxy or handler that answers it.

  connection ─▶ who is the client? ─▶ route ─▶ rate limits ─▶ durable? ─▶ compression ─▶ app, folder or proxy
                                                                    └─▶ answered 202          │
  counters and access log ◀──────────────────────── when the exchange is done ◀───────────────┘

The router is built once from the settings; features that are not configured cost almost nothing. A reload builds a new
configuration and switches between two requests, or not at all if the settings are invalid. Objects with state (open
folders, buckets of rate limits, upstreams, counters) are kept if their settings are unchanged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from headrace.errors import CallerError
from headrace.http import problem
from headrace.http.compress import compressed
from headrace.http.exchange import Exchange, Target
from headrace.http.fields import Fields
from headrace.http.static import StaticFiles
from headrace.settings import SettingsError
from headrace.web import forwarded
from headrace.web.dispatch.statistics import ProxyStatistics
from headrace.web.forwarded import UNKNOWN_CLIENT, TrustedProxies
from headrace.web.frontend import access_log
from headrace.web.frontend.access_log import AccessLog
from headrace.web.frontend.metrics import OTHER, UNROUTED, RouteCounts, RouterStatistics, merge
from headrace.web.frontend.rate_limits import Denial, RateLimit, RateLimits, limits_of
from headrace.web.frontend.routes import Route, RouteTable, place_of, routes_of
from headrace.web.paths import prefix_of, strip_prefix
from headrace.web.settings import LimitSettings, RouteSettings, WebSettings

Durable = Callable[[Exchange], bool]
"""May take an exchange over: True, if it has."""
Wrap = Callable[[Exchange], Exchange]
_TargetKey = tuple[RouteSettings, bool, int, float]
"""What a target depends on: its route, whether to compress, and what bounds the queue in front of upstreams."""

_UNTIMED: Final = (0, 101)
"""No answer, or a tunnel: how long it took says nothing."""


class RouteHandler:
    """How the requests of a route are handled."""

    __slots__ = ("mount", "plain", "priority", "private", "strip", "target", "to_folder", "wrap")

    def __init__(self, route: RouteSettings, target: Target, *, root_path: str, wrap: Wrap | None) -> None:
        prefix = prefix_of(route.path)
        self.target = target
        self.wrap = None if route.static else wrap
        """Compression; folders see to it themselves."""
        self.priority = route.priority
        self.strip = prefix if route.strip or route.static else ""
        """The prefix that is stripped from the path."""
        self.mount = root_path + self.strip
        self.to_folder = bool(route.static and prefix)
        """Whether `/static` has to become `/static/`, or the links of its page would lead elsewhere."""
        self.private = bool(route.proxy)
        """Whether what the client says about who it is goes no further."""
        self.plain = not (self.mount or self.private) and self.priority == 1
        """Whether the exchange goes on as it is."""


class RequestRouter:
    """See the module. Give `target` to a listener; `dispatch` is the same without the steps that are done once for a client's
    request: counters, log, limits and the durable hook.

    One loop. Invariant: every exchange that `target` gets is counted once when it comes and once when it is done.
    """

    def __init__(
        self,
        settings: WebSettings,
        *,
        apps: Mapping[str, Target],
        durable: Durable | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the router.

        Args:
            apps: for each app's spec (`module:app`), what answers its requests.
            durable: asked for each request, after the limits.
            now_s: a clock that never steps.

        Raises: SettingsError, LogUnusable.
        """
        self._loop = loop or asyncio.get_running_loop()
        self._now_s = now_s
        self._durable = durable
        self._begun = 0
        self._done = 0
        self._counts: dict[str, RouteCounts] = {UNROUTED: RouteCounts()}
        self._rate_limited: dict[str, int] = {}
        self._log: AccessLog | None = None
        self._log_settings: tuple[str, str] = ("off", "")
        self._log_dropped = 0
        self._limit_of: dict[LimitSettings, RateLimit] = {}
        self._target_of: dict[_TargetKey, Target] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._on_done = self._record_done  # a bound method made once: a request does not pay for it
        self._configure(settings, apps)

    # A request

    def target(self, exchange: Exchange) -> None:
        """For connections: a request has arrived."""
        self._begun += 1
        exchange.on_done = self._on_done
        if self._trust is not None:
            _apply_trust(exchange, self._trust)
        route = self._route(exchange)
        exchange.route = UNROUTED if route is None else route.label
        if self._limits is not None and self._is_limited(exchange, self._limits):
            return
        if self._durable is not None and self._durable(exchange):
            return
        self._pass_on(exchange, route)

    def dispatch(self, exchange: Exchange) -> None:
        """For requests that have been here before (durable ones): on to who answers them."""
        route = self._route(exchange)
        exchange.route = UNROUTED if route is None else route.label
        self._pass_on(exchange, route)

    def _route(self, exchange: Exchange) -> Route[RouteHandler] | None:
        if exchange.path == "*":
            return None
        return self._only or self._table.find(exchange.headers.get(b"host", b""), exchange.path)

    def _pass_on(self, exchange: Exchange, route: Route[RouteHandler] | None) -> None:
        if route is None:
            self._answer_unrouted(exchange)
            return
        handler = route.to
        if not handler.plain and not _prepare(exchange, route):
            return
        if handler.wrap is not None and b"accept-encoding" in exchange.headers:
            exchange = handler.wrap(exchange)
        handler.target(exchange)

    def _answer_unrouted(self, exchange: Exchange) -> None:
        if exchange.path == "*":
            exchange.respond(204, Fields())  # OPTIONS *: nothing but "I am here" (RFC 9110 9.3.7)
        elif self._table.serves(exchange.headers.get(b"host", b"")):
            problem.respond(exchange, 404, "No route matches this path.", kind="not-found")
        else:
            problem.respond(exchange, 421, "This server does not serve the requested host.", kind="unknown-host")

    def _is_limited(self, exchange: Exchange, limits: RateLimits) -> bool:
        denial = limits.find_denial(exchange.headers, peer=exchange.peer, path=exchange.path, now_s=self._now_s())
        if denial is None:
            return False
        self._rate_limited[denial.limit] = self._rate_limited.get(denial.limit, 0) + 1
        _refuse_limited(exchange, denial)
        return True

    def _record_done(self, exchange: Exchange) -> None:
        """Count and log an exchange that is done."""
        self._done += 1
        counts = self._counts.get(exchange.route) or self._counts[UNROUTED]
        status = exchange.status
        methods = counts.methods
        (methods.get(exchange.method) or methods[OTHER])[status // 100] += 1
        counts.sent_bytes += exchange.sent_bytes
        if status not in _UNTIMED:
            counts.seconds.observe(self._now_s() - exchange.began_s)
        if self._log is not None:
            self._log.record(exchange)

    # The owner's

    @property
    def in_flight(self) -> int:
        """Requests that are not done."""
        return self._begun - self._done

    def statistics(self) -> RouterStatistics:
        """Since the start."""
        dropped = self._log_dropped + (self._log.dropped if self._log else 0)
        live = RouterStatistics(self.in_flight, self._counts, self._rate_limited, dropped, _proxies(self._table))
        return merge(RouterStatistics, (live,))

    def reload(self, settings: WebSettings, *, apps: Mapping[str, Target]) -> None:
        """Go on with other settings. Atomic: requests see the old ones or the new ones, and an error changes nothing.

        Raises: SettingsError, LogUnusable.
        """
        self._configure(settings, apps)

    def reopen(self) -> None:
        """Reopen the access log after its file was moved."""
        if self._log is not None:
            self._log.reopen()

    def advance(self, now_s: float) -> None:
        """Once a second: what targets want to do without a request."""
        for target in self._target_of.values():
            advance = getattr(target, "advance", None)
            if advance is not None:
                advance(now_s)

    async def close(self) -> None:
        """Write the log, let upstreams go. The connections have been closed before."""
        for target in self._target_of.values():
            await _close(target)
        self._target_of.clear()
        if self._log is not None:
            await self._close_log(self._log)

    # Putting together

    def _configure(self, settings: WebSettings, apps: Mapping[str, Target]) -> None:
        """Everything that may fail comes first."""
        routes = routes_of(settings)
        root_path = _root_path(settings)
        wrap = compressed if settings.compress else None
        handlers: list[tuple[RouteSettings, RouteHandler]] = []
        targets: dict[_TargetKey, Target] = {}
        for index, route in enumerate(routes):
            if route.app:
                target = _app_target(route, apps, place_of(index, settings))
            else:
                kept = (route, settings.compress, settings.queue_size, float(settings.queue_timeout))
                target = targets[kept] = self._target_of.get(kept) or _new_target(*kept, place_of(index, settings))
            handlers.append((route, RouteHandler(route, target, root_path=root_path, wrap=wrap)))
        table = RouteTable(handlers)
        limit_of = self._new_limits(settings)
        trust = TrustedProxies(settings.trusted_proxies) if settings.proxy_headers else None
        log_settings = (settings.access_log, settings.access_log_format)
        if log_settings != self._log_settings:
            self._change_log(access_log.open_for(*log_settings, loop=self._loop))
            self._log_settings = log_settings
        # From here on nothing fails.
        replaced = [target for kept, target in self._target_of.items() if kept not in targets]
        self._target_of, self._limit_of, self._trust = targets, limit_of, trust
        self._table, self._only = table, table.only
        self._limits = RateLimits(limit_of.values()) if limit_of else None
        for configured in table.routes:
            self._counts.setdefault(configured.label, RouteCounts())
        for target in replaced:
            self._closing.add(task := self._loop.create_task(_close(target)))
            task.add_done_callback(self._closing.discard)

    def _new_limits(self, settings: WebSettings) -> dict[LimitSettings, RateLimit]:
        return {
            limit: self._limit_of.get(limit) or RateLimit(limit, place=place) for limit, place in limits_of(settings)
        }

    def _change_log(self, log: AccessLog | None) -> None:
        if self._log is not None:
            self._close_log(self._log)
            self._log_dropped += self._log.dropped
        self._log = log

    def _close_log(self, log: AccessLog) -> asyncio.Future[None]:
        """A thread waits for the disk, but what belongs to the loop, lines and timer, is taken from the log here."""
        log.flush()
        return self._loop.run_in_executor(None, log.close)


def build(
    settings: WebSettings,
    *,
    apps: Mapping[str, Target],
    durable: Durable | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    now_s: Callable[[], float] = time.monotonic,
) -> RequestRouter:
    """Build the router of a server; see `RequestRouter`."""
    return RequestRouter(settings, apps=apps, durable=durable, loop=loop, now_s=now_s)


# ------------------------------------------------------------------------------------------------- on an exchange


def _apply_trust(exchange: Exchange, trust: TrustedProxies) -> None:
    """Set the client of the exchange to the one that the trusted proxies name."""
    client = trust.client(exchange.headers, exchange.peer)
    if client is UNKNOWN_CLIENT:
        return
    if client.address is not None:
        exchange.peer, exchange.peer_port = client.address, client.port
    if client.secure is not None:
        exchange.secure = client.secure
    if client.host is not None:
        exchange.headers[b"host"] = client.host
    if client.server_port is not None:
        exchange.server = (exchange.server[0], client.server_port)


def _prepare(exchange: Exchange, route: Route[RouteHandler]) -> bool:
    """Make the exchange look as the route's consumer wants it; False if it has been answered instead."""
    handler = route.to
    exchange.priority = handler.priority
    if handler.private:
        exchange.headers = {key: value for key, value in exchange.headers.items() if key not in forwarded.HEADERS}
    if handler.strip:
        path, query = exchange.path, exchange.target[len(exchange.path) :]
        rest = strip_prefix(handler.strip, path)
        if handler.to_folder and rest == "/" and not path.endswith("/"):
            exchange.respond(308, Fields.of(((b"Location", f"{handler.mount}/{query}".encode()),)))
            return False
        exchange.path = rest
        exchange.target = rest + query
    exchange.root_path = handler.mount
    return True


def _refuse_limited(exchange: Exchange, denial: Denial) -> None:
    problem.respond(
        exchange,
        429,
        f"More than {denial.rate} requests ({denial.limit}). Try again in {denial.retry_after_s} s.",
        kind="rate-limited",
        headers=denial.headers,
        members={"limit": denial.limit, "retry_after": denial.retry_after_s},
    )


# ---------------------------------------------------------------------------------------------------- from settings


def _app_target(route: RouteSettings, apps: Mapping[str, Target], place: str) -> Target:
    if route.app not in apps:
        raise SettingsError(place, f"the app {route.app} is not running; running: {', '.join(apps) or 'none'}")
    return apps[route.app]


def _new_target(route: RouteSettings, compress: bool, queue_size: int, queue_timeout_s: float, place: str) -> Target:
    if route.static:
        try:
            return StaticFiles(
                Path(route.static),
                cache_control=route.cache_control,
                index=route.index,
                compress=compress,
            )
        except CallerError as error:
            raise SettingsError(place, str(error)) from error
    from headrace.web.proxy import ProxyTarget  # noqa: PLC0415  # costs start-up time, and few need it

    return ProxyTarget(route, place=place, queue_size=queue_size, queue_timeout_s=queue_timeout_s)


def _root_path(settings: WebSettings) -> str:
    try:
        return prefix_of(settings.root_path) if settings.root_path else ""
    except ValueError as error:
        raise SettingsError("web.root_path", str(error)) from None


def _proxies(table: RouteTable[RouteHandler]) -> dict[str, ProxyStatistics]:
    sources: list[tuple[str, Callable[[], ProxyStatistics] | None]] = [
        (route.label, getattr(route.to.target, "proxy_statistics", None)) for route in table.routes
    ]
    return {label: statistics() for label, statistics in sources if statistics is not None}


async def _close(target: Target) -> None:
    """Upstreams have connections to close; folders have nothing."""
    close: Callable[[], Awaitable[None]] | None = getattr(target, "close", None)
    if close is not None:
        await close()
