"""Metrics of tasks by OpenTelemetry: how many were sent, how long their attempts ran. A feature that the core does not know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace import metering
from headrace.work.context import Context
from headrace.work.dispatch import Dispatch
from headrace.work.middleware import Middleware
from headrace.work.outcome import Failed, Outcome

if TYPE_CHECKING:
    from headrace.work.app import App


class MeteringMiddleware(Middleware):
    """Counts what is sent and times what runs, while a meter provider is configured; else nothing.

    `headrace worker` adds it by itself. Programs that only send give it to their app.
    """

    def __init__(self) -> None:
        self._began_s: dict[Context, float] = {}

    def after_send(self, dispatch: Dispatch) -> None:
        instruments = metering.instruments()
        if instruments is not None:
            instruments.sent(dispatch.queue)

    def before_run(self, context: Context) -> None:
        if metering.instruments() is not None:
            self._began_s[context] = time.perf_counter()

    def after_run(self, context: Context, outcome: Outcome) -> None:
        began_s, instruments = self._began_s.pop(context, None), metering.instruments()
        if began_s is None or instruments is None:
            return
        error = outcome.error.type if isinstance(outcome, Failed) else None
        seconds = time.perf_counter() - began_s
        instruments.processed(context.queue, seconds, {"headrace.task": context.task}, error=error)

    def on_stop(self, app: App) -> None:
        del app
        metering.flush()  # the process ends without Python's exit handlers


def meter(app: App) -> None:
    """Give an app the middleware, if a meter provider is configured."""
    if metering.instruments() is not None:
        app.hooks.add_first(MeteringMiddleware())
