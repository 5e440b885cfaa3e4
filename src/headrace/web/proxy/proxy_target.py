"""The queue in front of a route's upstreams, each of which gets at most `concurrency` requests at once.

Who has the fewest gets the next one, so a slow upstream gets less, and when all are full requests wait, and are shed, as
they do for workers. A request that an upstream fails goes to another one if it was not sent at all, or if it may be
repeated and has not been answered.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from typing import Any, Final

import msgspec

from headrace.http import problem
from headrace.http.exchange import Exchange
from headrace.web.dispatch.base_dispatcher import BaseDispatcher
from headrace.web.dispatch.queued_request import QueuedRequest
from headrace.web.dispatch.statistics import DispatchStatistics, ProxyStatistics, WorkerStatistics
from headrace.web.proxy import health as rules
from headrace.web.proxy.address import upstreams_of
from headrace.web.proxy.health import PROBING, UNFIT
from headrace.web.proxy.limits import ATTEMPTS_MAX, CHECK_S
from headrace.web.proxy.relay import Relay
from headrace.web.proxy.upstream import Upstream, check_health
from headrace.web.settings import RouteSettings

_log: Final = logging.getLogger("headrace.web")

_UNAVAILABLE: Final = "no-upstream"


class QueuedProxyRequest(QueuedRequest):
    """A queued request, with the upstreams that have failed it."""

    __slots__ = ("relay", "tried")

    def __init__(self, owner: Any, exchange: Exchange) -> None:
        super().__init__(owner, exchange)
        self.relay: Relay | None = None
        """While an upstream has it."""
        self.tried: tuple[Upstream, ...] = ()


class ProxyTarget(BaseDispatcher):
    """See the module. A Target; one loop.

    Invariants: an upstream has at most `concurrency` requests, tunnels not counted; a request is with at most one.
    """

    def __init__(
        self, route: RouteSettings, *, place: str = "web.proxy", tls: ssl.SSLContext | None = None, **settings: Any
    ) -> None:
        """Create on the running loop.

        Args:
            route: with at least one upstream in `proxy`.
            place: of the route in the settings, for errors.
            tls: for https upstreams; by default the system's authorities are trusted.
            settings: those of `BaseDispatcher`.

        Raises: SettingsError.
        """
        addresses = upstreams_of(route, place)
        super().__init__(request_timeout_s=route.read_timeout, **settings)
        self._spools = False
        self.connect_timeout_s = route.connect_timeout
        self._read_timeout_s = route.read_timeout
        self._health_path = route.health_path
        self._health_interval_s = route.health_interval
        self._tls = tls
        self._redelivered = self._failed = 0
        self._turn = 0
        self._checks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._upstreams = [
            Upstream(
                address,
                limit=route.concurrency,
                preserve_host=route.preserve_host,
                tls=self._tls_context,
                loop=self.loop,
            )
            for address in addresses
        ]

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    # Giving

    def _admit(self, exchange: Exchange) -> None:
        queued = QueuedProxyRequest(self, exchange)
        if self._admission.length or not self._try_dispatch(queued):
            if self._is_anybody_up():
                self._wait(queued)
            else:
                self._refuse_all_down(queued)

    def _try_dispatch(self, queued: QueuedRequest) -> bool:
        assert isinstance(queued, QueuedProxyRequest)
        upstream = self._pick(queued.tried)
        if upstream is None:
            return False
        self._give(queued, upstream, fresh=False)
        return True

    def _give(self, queued: QueuedProxyRequest, upstream: Upstream, *, fresh: bool) -> None:
        self._begin(queued)
        upstream.busy += 1
        upstream.requests += 1
        upstream.health = rules.taken(upstream.health)
        relay = queued.relay = Relay(self, queued, upstream)
        queued.flow = relay
        relay.begin(fresh=fresh)

    def _pick(self, tried: tuple[Upstream, ...] = ()) -> Upstream | None:
        """The upstream with the fewest requests; those that have failed this request come last; ties take turns."""
        now_s = self.now_s()
        upstreams = self._upstreams
        best: Upstream | None = None
        best_key = (True, math.inf)
        for offset in range(len(upstreams)):
            upstream = upstreams[(self._turn + offset) % len(upstreams)]
            key = (upstream in tried, upstream.busy)
            if key < best_key and upstream.busy < upstream.limit and rules.may_take(upstream.health, now_s):
                best, best_key = upstream, key
        if best is not None and len(upstreams) > 1:
            self._turn = (upstreams.index(best) + 1) % len(upstreams)
        return best

    def _has_room(self) -> bool:
        now_s = self.now_s()
        return any(
            upstream.busy < upstream.limit and rules.may_take(upstream.health, now_s) for upstream in self._upstreams
        )

    def _is_anybody_up(self) -> bool:
        now_s = self.now_s()
        return any(rules.may_take(upstream.health, now_s) for upstream in self._upstreams)

    # From the relays

    def judged(self, relay: Relay, *, well: bool) -> None:
        if not well:
            self._blame(relay, "it answers 502, 503 or 504")
        elif relay.upstream.health.state is PROBING:
            relay.upstream.succeeded()  # now: the answer may be a stream that never ends

    def tunnelled(self, relay: Relay) -> None:
        relay.upstream.busy -= 1
        self.fill()

    def relayed(self, relay: Relay) -> None:
        relay.exchange.notify = None
        if not relay.blamed:
            relay.upstream.succeeded()
        self._over(relay, counted=not relay.queued.tunnel)
        self.fill()

    def unreachable(self, relay: Relay, reason: str) -> None:
        self._blame(relay, reason, unreachable=True)
        self._over(relay)
        self._try_again(relay, reason)

    def broken(self, relay: Relay, reason: str, *, repeatable: bool) -> None:
        if relay.queued.tunnel:
            self._end_tunnel(relay)
            return
        self._blame(relay, reason)
        self._over(relay)
        if repeatable:
            self._try_again(relay, reason)
        else:
            self._fail(relay, reason)

    def stale(self, relay: Relay) -> None:
        """A kept connection was closed, which is no failure: try once more, on the same upstream."""
        queued = relay.queued
        if queued.may_be_repeated() and queued.rewind():
            relay.upstream.released()
            self._over(relay)
            self._give(queued, relay.upstream, fresh=True)
        else:
            self.broken(
                relay,
                "it closed a kept connection when this request, which is not to be repeated, came",
                repeatable=False,
            )

    def refused(self, relay: Relay, reason: str) -> None:
        relay.abandon()
        relay.upstream.released()
        self._over(relay)
        self._forget(relay.queued)
        problem.respond(relay.exchange, 400, reason)
        self.loop.call_soon(self.fill)  # not from within: this is called while it is given out

    def _over(self, relay: Relay, *, counted: bool = False) -> None:
        """The upstream has it no more."""
        queued = relay.queued
        queued.flow = queued.relay = None
        if not queued.tunnel:
            relay.upstream.busy -= 1
        self._end(queued, counted=counted)

    def _end_tunnel(self, relay: Relay) -> None:
        self._over(relay)
        self._forget(relay.queued)
        relay.exchange.abort()

    # Failing

    def _blame(self, relay: Relay, reason: str, *, unreachable: bool = False) -> None:
        if relay.blamed:
            return
        relay.blamed = True
        upstream = relay.upstream
        upstream.failures += 1
        last = not any(other.up for other in self._upstreams if other is not upstream)
        upstream.set_health(rules.failed(upstream.health, self.now_s(), unreachable=unreachable, last=last), reason)
        if self._admission.length and not self._is_anybody_up():
            self.loop.call_soon(self._give_up_waiting)

    def _try_again(self, relay: Relay, reason: str) -> None:
        queued = relay.queued
        queued.losses += 1
        queued.tried += (relay.upstream,)
        may = not relay.sent or (queued.may_be_repeated() and queued.rewind())
        if not may or queued.losses >= ATTEMPTS_MAX or not self._is_anybody_up():
            self._fail(relay, reason)
            return
        self._redelivered += 1
        self._log_failure(
            relay, "an upstream failed; its request goes to another: %s", reason, action="web.upstream.retried"
        )
        if not self._try_dispatch(queued):
            now_s = self.now_s()
            self._admission.put_back(queued, now_s)
            self._arm(now_s)
        self.fill()

    def _fail(self, relay: Relay, reason: str) -> None:
        self._failed += 1
        self._log_failure(relay, "an upstream failed a request: %s", reason, action="web.upstream.failed")
        self._forget(relay.queued)
        if not relay.sent:
            relay.exchange.refused = _UNAVAILABLE  # so a durable request knows that it has not been run
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if not self._is_anybody_up():
            headers = ((b"Retry-After", b"%d" % self._retry_after_s()),)
        problem.respond(
            relay.exchange, 502, "the upstream server sent no valid response", kind="bad-gateway", headers=headers
        )
        self.fill()

    def _log_failure(self, relay: Relay, message: str, reason: str, *, action: str) -> None:
        exchange = relay.exchange
        extra = {
            "action": action,
            "upstream": relay.upstream.address.url,
            "method": exchange.method,
            "path": exchange.path,
        }
        _log.warning(message, reason, extra=extra)

    def _give_up_waiting(self) -> None:
        """No upstream is up: answer all queued requests at once."""
        while not self._is_anybody_up() and (queued := self._admission.take(self.now_s())) is not None:
            self._refuse_all_down(queued)

    def _refuse_all_down(self, queued: QueuedRequest) -> None:
        self._count_shed(_UNAVAILABLE)
        exchange = queued.exchange
        exchange.refused = _UNAVAILABLE
        retry_s = self._retry_after_s()
        detail = f"no upstream server can be reached; try again in {retry_s} s"
        self._forget(queued)
        problem.respond(exchange, 503, detail, kind=_UNAVAILABLE, headers=((b"Retry-After", b"%d" % retry_s),))

    def _retry_after_s(self) -> int:
        now_s = self.now_s()
        returns = (
            rules.returns_in_s(upstream.health, now_s, check_interval_s=self._health_interval_s)
            for upstream in self._upstreams
        )
        return max(1, math.ceil(min(returns)))

    # Otherwise

    def _cancel(self, queued: QueuedRequest) -> None:
        assert isinstance(queued, QueuedProxyRequest)
        relay = queued.relay
        if relay is not None:
            relay.abandon()
            if not queued.tunnel:
                relay.upstream.released()
            self._over(relay)
        self._forget(queued)
        self.fill()

    def _watch(self, since_s: float) -> None:
        for queued in tuple(self.running):
            assert isinstance(queued, QueuedProxyRequest)
            relay = queued.relay
            if relay is None or queued.tunnel:
                continue
            if relay.waits_for_client:
                relay.active_s = self.now_s()
            elif relay.active_s <= since_s:
                self._find_late(relay)

    def _find_late(self, relay: Relay) -> None:
        self._request_timeouts += 1
        reason = f"it sent nothing for {self._read_timeout_s:g} s"
        relay.abandon()
        self._blame(relay, reason)
        self._over(relay)
        self._log_failure(relay, "an upstream failed a request: %s", reason, action="web.upstream.late")
        self._forget(relay.queued)
        detail = f"the upstream server did not answer within {self._read_timeout_s:g} s"
        problem.respond(relay.exchange, 504, detail, kind="gateway-timeout")
        self.fill()

    def _mark_hung(self, _: QueuedRequest) -> int:
        raise AssertionError("upstreams are not replaced")

    # Time

    def advance(self, now_s: float) -> float:
        due_s = super().advance(now_s)
        for upstream in self._upstreams:
            upstream.sweep(now_s)
            if self._health_path and not self._closing and now_s >= upstream.checked_s + self._health_interval_s:
                upstream.checked_s = now_s
                self._start_check(upstream)
        self.fill()  # an upstream's time out may be over
        return due_s

    def _start_check(self, upstream: Upstream) -> None:
        task = self.loop.create_task(self._check(upstream))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _check(self, upstream: Upstream) -> None:
        tls = self._tls_context() if upstream.address.secure else None
        reason = await check_health(
            upstream.address, self._health_path, tls=tls, within_s=min(CHECK_S, self._health_interval_s)
        )
        upstream.set_health(rules.checked(upstream.health, fine=not reason), f"its health check failed: {reason}")
        if upstream.health.state is UNFIT and not self._is_anybody_up():
            self._give_up_waiting()
        self.fill()

    # The end, and statistics

    async def close(self) -> None:
        """Wait until all requests are done, then close all connections."""
        self._closing = True
        for task in tuple(self._checks):
            task.cancel()
        for upstream in self._upstreams:
            upstream.close()
        await self.wait_idle()

    def statistics(self) -> DispatchStatistics:
        return msgspec.structs.replace(super().statistics(), redelivered=self._redelivered, failed=self._failed)

    def proxy_statistics(self) -> ProxyStatistics:
        upstreams = {upstream.address.url: upstream.statistics() for upstream in self._upstreams}
        return ProxyStatistics(self.statistics(), upstreams)

    def _workers(self) -> list[WorkerStatistics]:
        return [
            WorkerStatistics(
                pid=0, generation=0, in_flight=upstream.busy, capacity=upstream.limit, requests=upstream.requests
            )
            for upstream in self._upstreams
        ]
