"""Runs ASGI applications: each exchange is one call of the application, in its own task.

ASGI 3, and the double callables of ASGI 2. The specification's version 2.3 is spoken to HTTP applications on purpose:
Starlette ends a streaming answer at once when its client leaves; with 2.4 only when it next sends.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from headrace.http import problem
from headrace.http.exchange import DONE, WAITING, Exchange, LengthMismatch
from headrace.http.fields import Fields
from headrace.web.apps import request_span
from headrace.web.apps.app_call import App, AppCall, Message, Scope, scope_of, single_callable
from headrace.web.apps.lifespan import Lifespan
from headrace.web.apps.websocket import ClientGone, WebSocketCall, WebSocketLimits, refuse_handshake

_log: Final = logging.getLogger("headrace.web")

CANCEL_GRACE_S: Final = 2.0
"""What cancelled handlers get for their clean-up at the end of a drain."""


class AsgiTarget:
    """A `Target`: answers exchanges by calling the application, one task each.

    Invariant: `_runs` holds a run from its start until its application has returned and its exchange is done.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        lifespan: Lifespan | None = None,
        websocket: WebSocketLimits | None = None,
    ) -> None:
        """Belongs to the running loop.

        Args:
            app: ASGI 3 or 2.
            lifespan: started before the first exchange; every request's scope gets a copy of its state.
            websocket: limits; None for the defaults.
        """
        self.app: App = single_callable(app)
        self.requests = 0
        """Exchanges so far."""
        self.on_free: Callable[[], None] | None = None
        """Called whenever `in_flight` has fallen."""
        self._lifespan = lifespan
        self._websocket = websocket or WebSocketLimits()
        self._loop = asyncio.get_running_loop()
        self._runs: set[AppCall] = set()
        self._leaving = False

    def __call__(self, exchange: Exchange) -> None:
        self.requests += 1
        if exchange.upgrade == b"websocket":
            if refuse_handshake(exchange):
                return
            self._start(WebSocketCall(exchange, self._loop, self._websocket), self._websocket_scope(exchange))
        else:
            self._start(HttpCall(exchange, self._loop), self._http_scope(exchange))

    @property
    def in_flight(self) -> int:
        """Calls of the application that have not returned; its background tasks count."""
        return len(self._runs)

    def leave(self) -> None:
        """Close WebSockets with 1012 (service restart), since they would not end by themselves. Requests continue, and more
        may come. Idempotent."""
        self._leaving = True
        for run in tuple(self._runs):
            run.leave()

    async def close(self, grace_s: float) -> bool:
        """Leave, and wait until nothing is in flight; after `grace_s` cancel the calls that remain. Idempotent.

        Returns: whether all have ended by themselves.
        """
        self.leave()
        await self._wait_idle(grace_s)
        if not self._runs:
            return True
        _log.warning(
            "%d requests were not done after %g s: cancelled",
            len(self._runs),
            grace_s,
            extra={"action": "web.app.cancel"},
        )
        for run in tuple(self._runs):
            run.task.cancel()
        await self._wait_idle(CANCEL_GRACE_S)
        return False

    async def _wait_idle(self, timeout_s: float) -> None:
        deadline_s = self._loop.time() + timeout_s
        while self._runs and (left_s := deadline_s - self._loop.time()) > 0:
            await asyncio.wait([run.task for run in self._runs], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    # One call

    def _start(self, run: AppCall, scope: Scope) -> None:
        self._runs.add(run)
        if self._leaving:
            run.leave()
        run.task = _start_task(self._call(run, scope), self._loop)

    async def _call(self, run: AppCall, scope: Scope) -> None:
        error: BaseException | None = None
        running = request_span.begin(run.exchange) if request_span.wanted(run.exchange.headers) else None
        try:
            await self.app(scope, run.receive, run.send)
        except GeneratorExit:  # the loop is being torn down: nothing may be awaited
            self._runs.discard(run)
            raise
        except BaseException as raised:  # noqa: BLE001  # the application's, whatever it is: SystemExit, too
            error = raised
        left = run.left and not isinstance(error, LengthMismatch)
        try:
            wrong = await run.conclude(error)
            if error is not None:
                _log_failure(run.exchange, error, left=left)
            elif wrong:
                _log_wrong(run.exchange, wrong)
        finally:
            request_span.end(running, run.exchange.status)
            self._runs.discard(run)
            run.exchange.notify = None
            if run.exchange.stage is not DONE:  # cancelled while a WebSocket's close was awaited
                run.exchange.abort()
            run.exchange.release()
            if self.on_free is not None:
                self.on_free()

    def _http_scope(self, exchange: Exchange) -> Scope:
        scope = scope_of(exchange, "http", "https" if exchange.secure else "http")
        scope["method"] = exchange.method
        scope["extensions"] = {"http.response.pathsend": {}, "http.response.early_hint": {}}
        if self._lifespan is not None:
            scope["state"] = self._lifespan.state.copy()
        return scope

    def _websocket_scope(self, exchange: Exchange) -> Scope:
        scope = scope_of(exchange, "websocket", "wss" if exchange.secure else "ws")
        offered = exchange.headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
        scope["subprotocols"] = [name for part in offered.split(",") if (name := part.strip())]
        scope["extensions"] = {"websocket.http.response": {}}
        if self._lifespan is not None:
            scope["state"] = self._lifespan.state.copy()
        return scope


class HttpCall(AppCall):
    """An HTTP request."""

    __slots__ = ("_body_given",)

    def __init__(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(exchange, loop)
        self._body_given = False
        """The application has received the last piece of the body."""

    async def receive(self) -> Message:
        exchange = self.exchange
        while exchange.stage is not DONE:
            if not self._body_given:
                ended = exchange.ended
                data = exchange.take()
                if data or ended:
                    self._body_given = ended
                    return {"type": "http.request", "body": data, "more_body": not ended}
            await self._changed()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.exchange.gone:
            await asyncio.sleep(0)  # an endless answer must not keep the loop to itself, when no client takes it
            return
        kind = message["type"]
        if kind == "http.response.body":
            await self._answer_body(message)
        elif kind == "http.response.start":
            self._answer_start(message)
        elif kind == "http.response.pathsend":
            await self._answer_file(message)
        elif kind == "http.response.early_hint":
            self.exchange.inform(103, Fields.of([(b"Link", bytes(link)) for link in message["links"]]))
        else:
            raise RuntimeError(f"{kind!r} is not a message of an HTTP answer")

    async def conclude(self, error: BaseException | None) -> str:
        exchange = self.exchange
        if exchange.stage is DONE:
            return ""
        if isinstance(error, asyncio.CancelledError) and exchange.stage is WAITING:
            problem.respond(exchange, 503, "the server is stopping; try again", headers=[(b"Retry-After", b"1")])
            return ""
        wrong = "without completing its answer" if self._head or exchange.stage is not WAITING else "without an answer"
        problem.respond(exchange, 500, "the application failed; see the server's log")
        return f"returned {wrong}"


if sys.version_info >= (3, 12):

    def _start_task(call: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Run up to the first real wait at once: a handler that waits for nothing costs no turn of the loop."""
        return asyncio.Task(call, loop=loop, eager_start=True)

else:

    def _start_task(call: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        return asyncio.Task(call, loop=loop)


def _log_failure(exchange: Exchange, error: BaseException, *, left: bool) -> None:
    if isinstance(error, (asyncio.CancelledError, ClientGone)):
        return  # by a drain, which has said so; or because the client disconnected
    _log.log(
        logging.INFO
        if left
        else logging.ERROR,  # what fails after the client disconnected mostly fails because of that
        "%s %s: the application failed: %r",
        exchange.method,
        exchange.path,
        error,
        exc_info=error,
        extra={"action": "web.app.failed", "status": exchange.status},
    )


def _log_wrong(exchange: Exchange, wrong: str) -> None:
    _log.error(
        "%s %s: the application %s",
        exchange.method,
        exchange.path,
        wrong,
        extra={"action": "web.app.incomplete", "status": exchange.status},
    )
