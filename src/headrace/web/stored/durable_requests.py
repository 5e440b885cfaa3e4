"""The hook of the request router that takes over exchanges that are durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from headrace.errors import HeadraceError
from headrace.http import problem
from headrace.http.exchange import Exchange, Target
from headrace.web.paths import canonical
from headrace.web.settings import DurableSettings
from headrace.web.stored import records, status_pages
from headrace.web.stored.intake import Intake
from headrace.web.stored.limits import PAUSE_S
from headrace.web.stored.records import PREFIX, DurableRules
from headrace.web.stored.request_store import RequestStore
from headrace.web.stored.runner import OWN_HEADERS, StoredRequestRunner

_log: Final = logging.getLogger("headrace.web")


Marks = Callable[[], Sequence[tuple[str, list[str]]]]
"""(path prefix, methods) that the application itself has marked as durable, as known by now."""


class DurableRequests:
    """Handles durable requests; one instance per process that holds client connections. Create on the running loop, then `start`, then `close`."""

    def __init__(
        self, store: RequestStore, rules: Iterable[DurableSettings], target: Target, marks: Marks = lambda: ()
    ) -> None:
        """Args: target: where a stored request is run: routing, without limits and log."""
        self._store = store
        self._settings = tuple(rules)
        self._marks = marks
        self._marked: Sequence[tuple[str, list[str]]] = ()
        self._rules = DurableRules(self._settings)
        self._runner = StoredRequestRunner(store, target)
        self._intake = Intake(store, self._runner.watch)
        self._opening: asyncio.Task[None] | None = None
        self._ready = False

    def start(self) -> None:
        """Begin to connect to the broker, for as long as it takes; until then durable requests are answered 503."""
        self._opening = asyncio.ensure_future(self._open())

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the broker is reached, but not for ever."""
        if self._opening is not None:
            await asyncio.wait({self._opening}, timeout=timeout_s)
        return self._ready

    def change(self, rules: Iterable[DurableSettings]) -> None:
        """Go on with other rules."""
        self._settings = tuple(rules)
        self._rules = DurableRules((*self._settings, *_as_rules(self._marked)))

    def take(self, exchange: Exchange) -> bool:
        """Whether the exchange is durable, or asks for what became of one: then it is answered here."""
        if exchange.path.startswith(PREFIX):
            self._show(exchange)
            return True
        marked = self._marks()
        if marked != self._marked:
            self._marked = marked
            self.change(self._settings)
        prefer = exchange.headers.get(b"prefer")
        asked = prefer is not None and records.prefers_async(prefer)
        rule = self._rules.find(exchange.method, canonical(exchange.path), asked=asked)
        if rule is None or exchange.upgrade:
            for name in OWN_HEADERS:
                exchange.headers.pop(name, None)
            return False
        if self._ready:
            self._intake.begin(exchange, rule, asked=asked)
        else:
            self._refuse(exchange)
        return True

    async def close(self, grace_s: float = 10.0) -> None:
        """Answer requests that are being accepted, and finish running ones within the grace."""
        if self._opening is not None:
            self._opening.cancel()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + grace_s
        await self._intake.close(grace_s)
        if self._ready:
            await self._runner.close(max(0.0, end_s - loop.time()))
        await self._store.close()

    def _show(self, exchange: Exchange) -> None:
        found = status_pages.read_path(exchange.path)
        if found is None:
            problem.respond(exchange, 404, "this is not the URL of a durable request")
        elif exchange.method not in ("GET", "HEAD"):
            problem.respond(exchange, 405, "a status is read with GET", headers=((b"Allow", b"GET, HEAD"),))
        elif not self._ready:
            self._refuse(exchange)
        else:
            self._intake.show(exchange, found[0], response=found[1])

    def _refuse(self, exchange: Exchange) -> None:
        detail = "the broker of durable requests has not been reached yet; nothing was accepted"
        problem.respond(exchange, 503, detail, kind="broker-unavailable", headers=(status_pages.RETRY_AFTER,))

    async def _open(self) -> None:
        while True:
            try:
                await self._store.open()
                break
            except HeadraceError as error:
                _log.warning("no broker for durable requests yet: %s", error, extra={"action": "web.durable.broker"})
                await asyncio.sleep(PAUSE_S)
        self._ready = True
        self._runner.start()


class DurableUnavailable:
    """Used without a broker: requests that the application has marked as durable are refused, since they cannot be stored."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def take(self, exchange: Exchange) -> bool:
        marked = self._marks()
        if (
            not marked
            or DurableRules(_as_rules(marked)).find(exchange.method, canonical(exchange.path), asked=False) is None
        ):
            return False
        problem.respond(exchange, 503, "this request must be stored, but the server was started without --broker")
        return True


def _as_rules(marked: Sequence[tuple[str, list[str]]]) -> list[DurableSettings]:
    return [DurableSettings(path=path, methods=tuple(methods)) for path, methods in marked]
