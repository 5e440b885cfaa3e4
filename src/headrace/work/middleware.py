"""Hooks around sending and running: subclass Middleware and give it to the app.

    class Timing(headrace.work.Middleware):
        def after_run(self, context, outcome): ...

    app = headrace.App(middleware=[Timing()])

`before_*` hooks run in the order of the list, the others in reverse. A hook that raises: in `before_send`, nothing is sent
and the sender gets the error; in `before_run`, the attempt fails with it as if the task had raised it; in any other, what it
watches has happened already: it is logged (`work.hook_failed`) and the rest goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headrace.work.context import Context
from headrace.work.dispatch import Dispatch
from headrace.work.job import Job
from headrace.work.outcome import ErrorInfo, Outcome

if TYPE_CHECKING:
    from headrace.work.app import App

log = logging.getLogger("headrace.work")


class Middleware:
    """Does nothing; override what you need. Hooks are called in the thread, or on the loop, of what they watch: keep them
    short. They are sync, also for async tasks."""

    def before_send(self, dispatch: Dispatch) -> Dispatch:
        """A task is about to be sent. Returns it, or another in its place (`dataclasses.replace`)."""
        return dispatch

    def after_send(self, dispatch: Dispatch) -> None:
        """A task was sent: it is on the broker's disk."""

    def before_run(self, context: Context) -> None:
        """An attempt begins."""

    def after_run(self, context: Context, outcome: Outcome) -> None:
        """An attempt has ended; its outcome is not committed yet."""

    def on_retry(self, job: Job, error: ErrorInfo | None, delay_ms: int) -> None:
        """A failed attempt was committed, and another follows after `delay_ms`."""

    def on_dead(self, job: Job, error: ErrorInfo | None) -> None:
        """A task has failed for good: it is in the dead letters."""

    def on_start(self, app: App) -> None:
        """A worker process begins, before its first task."""

    def on_stop(self, app: App) -> None:
        """A worker process ends, after its last task."""


class Hooks:
    """All middleware of an app as one."""

    def __init__(self, middleware: Sequence[Middleware] = ()) -> None:
        self._first = tuple(middleware)
        self._last = tuple(reversed(self._first))

    def add_first(self, middleware: Middleware) -> None:
        """One around the app's own, unless it has one of this class itself."""
        if not any(type(each) is type(middleware) for each in self._first):
            self._first = (middleware, *self._first)
            self._last = (*self._last, middleware)

    def before_send(self, dispatch: Dispatch) -> Dispatch:
        for each in self._first:
            dispatch = each.before_send(dispatch)
        return dispatch

    def after_send(self, dispatch: Dispatch) -> None:
        self._watch("after_send", lambda each: each.after_send(dispatch))

    def before_run(self, context: Context) -> None:
        for each in self._first:
            each.before_run(context)

    def after_run(self, context: Context, outcome: Outcome) -> None:
        self._watch("after_run", lambda each: each.after_run(context, outcome))

    def on_retry(self, job: Job, error: ErrorInfo | None, delay_ms: int) -> None:
        self._watch("on_retry", lambda each: each.on_retry(job, error, delay_ms))

    def on_dead(self, job: Job, error: ErrorInfo | None) -> None:
        self._watch("on_dead", lambda each: each.on_dead(job, error))

    def on_start(self, app: App) -> None:
        self._watch("on_start", lambda each: each.on_start(app))

    def on_stop(self, app: App) -> None:
        self._watch("on_stop", lambda each: each.on_stop(app))

    def _watch(self, hook: str, call: Callable[[Middleware], Any]) -> None:
        for each in self._last:
            try:
                call(each)
            except BaseException:
                log.exception(
                    "%s.%s raised; it is passed over", type(each).__name__, hook, extra={"action": "work.hook_failed"}
                )
