"""Spans of tasks: `create {queue}` where one is sent, `process {queue}` where an attempt of it runs.

A create span begins and ends before the task is sent: what becomes of a send (an outbox, a transaction, a broker that is
away) is not known where it is asked for, and a span that nobody ends is never seen. It is the context that the task carries.

A process span is in the trace of its sender, and linked to the create span. Source: OpenTelemetry, semantic conventions for
messaging spans.
"""

from __future__ import annotations

from contextvars import Token
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from headrace import tracing
from headrace.work.context import Context, running
from headrace.work.dispatch import Dispatch
from headrace.work.middleware import Middleware
from headrace.work.outcome import Failed, Outcome

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from headrace.work.app import App


@dataclass(slots=True)
class _Running:
    """A process span, and what to put back when it ends, if it is the current one."""

    span: Span
    token: Token[Any] | None


class TracingMiddleware(Middleware):
    """A span a send and a span an attempt, while a tracer provider is configured; else nothing.

    `headrace worker` adds it by itself. Programs that only send give it to their app.
    """

    def __init__(self) -> None:
        self._running: dict[Context, _Running] = {}

    def before_send(self, dispatch: Dispatch) -> Dispatch:
        tracer = tracing.tracer()
        if tracer is None:
            return dispatch
        envelope, facts = dispatch.envelope, tracing.messaging("create", "create", dispatch.queue)
        facts |= {"messaging.message.id": envelope.id, "headrace.task": envelope.task}
        span = tracing.start(tracer, f"create {dispatch.queue}", "PRODUCER", facts, parent=envelope.trace)
        span.end()
        if not span.get_span_context().is_valid:
            return dispatch
        trace = tracing.text_of(span.get_span_context())
        return replace(dispatch, envelope=msgspec.structs.replace(envelope, trace=trace))

    def before_run(self, context: Context) -> None:
        tracer = tracing.tracer()
        if tracer is None:
            return
        facts = tracing.messaging("process", "process", context.queue)
        facts |= {
            "messaging.message.id": context.id,
            "headrace.task": context.task,
            "headrace.task.attempt": context.attempt,
        }
        name = f"process {context.queue}"
        span = tracing.start(tracer, name, "CONSUMER", facts, parent=context.trace, links=[context.trace])
        # Of a batch, which runs once, the first message's span is the current one.
        token = tracing.enter(span) if running.get() is context else None
        self._running[context] = _Running(span, token)

    def after_run(self, context: Context, outcome: Outcome) -> None:
        begun = self._running.pop(context, None)
        if begun is None:  # it ended before its span began
            return
        if begun.token is not None:
            tracing.leave(begun.token)
        if isinstance(outcome, Failed):
            tracing.failed(begun.span, outcome.error.type, outcome.error.message)
        begun.span.end()

    def on_stop(self, app: App) -> None:
        del app
        tracing.flush()  # the process ends without Python's exit handlers


def trace(app: App) -> None:
    """Give an app the middleware, if a tracer provider is configured."""
    if tracing.tracer() is not None:
        app.hooks.add_first(TracingMiddleware())
