"""ASGI's lifespan: the application starts and stops with its worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from headrace.errors import CallerError
from headrace.web.apps.app_call import App, Message, single_callable

_log: Final = logging.getLogger("headrace.web")

Mode: TypeAlias = Literal["auto", "on", "off"]

SHUTDOWN_S: Final = 10.0
"""What the application gets to close its pools, after its last request."""


@dataclass(eq=False)
class LifespanFailed(CallerError):
    """The application did not start: no request may reach it."""

    reason: str

    def __str__(self) -> str:
        return f"the application did not start: {self.reason}"


class Lifespan:
    """Runs the application's lifespan in a task of its own.

    `auto` goes on without it if the application raises before it has said that it started; `on` does not; `off` never
    asks. An application that says `lifespan.startup.failed` has failed in every mode.
    """

    def __init__(self, app: Callable[..., Any], mode: Mode = "auto") -> None:
        self._app: App = single_callable(app)
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._started: asyncio.Future[None] | None = None
        self._stopped: asyncio.Future[None] | None = None
        self.state: dict[str, Any] = {}
        """What the application put there: every request's scope has a copy."""

    async def startup(self, timeout_s: float | None = None) -> None:
        """Start the application.

        Args:
            timeout_s: None waits as long as it takes.

        Raises: LifespanFailed.
        """
        if self._mode == "off":
            return
        loop = asyncio.get_running_loop()
        self._started, self._stopped = loop.create_future(), loop.create_future()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run(), name="lifespan")
        done, _ = await asyncio.wait((self._started, self._task), timeout=timeout_s, return_when="FIRST_COMPLETED")
        if not done:
            await self._cancel()
            raise LifespanFailed(f"its startup took longer than {timeout_s:g} s")
        if self._started.done():
            if error := self._started.exception():
                await self._cancel()
                raise error
            return
        self._judge_end()

    async def shutdown(self, timeout_s: float = SHUTDOWN_S) -> None:
        """Stop the application; what goes wrong is logged, since nothing can be done about it any more. Idempotent."""
        task, self._task = self._task, None
        if task is None or self._stopped is None:
            return
        if not task.done():
            self._inbox.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait((self._stopped, task), timeout=timeout_s, return_when="FIRST_COMPLETED")
        if not task.done() and not self._stopped.done():
            _log.error(
                "the application's shutdown took longer than %g s", timeout_s, extra={"action": "web.lifespan.slow"}
            )
        elif self._stopped.done() and (error := self._stopped.exception()):
            _log.error("the application's shutdown failed: %s", error, extra={"action": "web.lifespan.failed"})
        await self._end(task)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._app(scope, self._inbox.get, self._send)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        assert self._started is not None
        assert self._stopped is not None
        waiter = self._started if kind.startswith("lifespan.startup.") else self._stopped
        if kind not in _ANSWERS:
            raise RuntimeError(f"{kind!r} is not a message of a lifespan")
        if waiter.done() or (waiter is self._stopped and not self._started.done()):
            raise RuntimeError(f"{kind} was sent out of turn")
        if kind.endswith(".failed"):
            reason = str(message.get("message") or "it gave no reason")
            waiter.set_exception(LifespanFailed(reason))
            waiter.exception()  # retrieved, so that asyncio does not complain
        else:
            waiter.set_result(None)

    def _judge_end(self) -> None:
        """The application has left its lifespan without an answer."""
        assert self._task is not None
        task, self._task = self._task, None
        error = None if task.cancelled() else task.exception()
        if self._mode == "on":
            raise LifespanFailed(repr(error) if error else "it returned without reporting its startup") from error
        _log.info(
            "the application has no lifespan: it %s",
            f"raised {error!r}" if error else "returned at once",
            extra={"action": "web.lifespan.absent"},
        )
        self.state.clear()

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await self._end(task)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Let it return, a moment long; then end it. Its exception is logged: the start or stop was judged before."""
        await asyncio.wait((task,), timeout=1.0)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=1.0)
        if task.done() and not task.cancelled() and (error := task.exception()):
            _log.info("the application's lifespan ended by %r", error, extra={"action": "web.lifespan.ended"})


_ANSWERS: Final = frozenset(
    "lifespan." + what for what in ("startup.complete", "startup.failed", "shutdown.complete", "shutdown.failed")
)
