"""Traces: which `traceparent` (W3C Trace Context) is passed on, and spans where OpenTelemetry is configured.

Without OpenTelemetry, the context of a request or a task is passed on as it came. With a tracer provider (the SDK's), what
headrace does is a span of its own, and the current span's context is passed on. Nothing here imports OpenTelemetry unless
the process has done so already: only then can there be a provider or a span.

Source: W3C Trace Context (https://www.w3.org/TR/trace-context/), version 00; OpenTelemetry's semantic conventions.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final

from headrace._version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Tracer

NAME: Final = "traceparent"
"""The header, and the attribute of plain messages."""
LINKS_MAX: Final = 128
"""Of a span: as many as OpenTelemetry's SDKs keep (OTEL_SPAN_LINK_COUNT_LIMIT)."""
SYSTEM: Final = "headrace"
FLUSH_MS: Final = 2_000
"""How long the end of a process waits for its spans to be exported."""

_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z")
_LENGTH_MAX: Final = 55
"""Of version 00. A later version's may be longer; we pass on the part that we know, as 00."""
_carried: Final[ContextVar[str | None]] = ContextVar("headrace_traceparent", default=None)
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def valid(traceparent: str | bytes | None) -> str | None:
    """What somebody sent as `traceparent`, as version 00; None if it is none: W3C has it ignored then."""
    if not traceparent:
        return None
    text = traceparent.decode("latin-1") if isinstance(traceparent, bytes) else traceparent
    found = _FORM.match(text)
    if found is None or (text.startswith("00") and len(text) != _LENGTH_MAX):
        return None
    return f"00-{found[1]}-{found[2]}-{found[3]}"


def current() -> str | None:
    """The `traceparent` for what is sent now: of the current span, else what the running request or task came with."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        own: SpanContext = trace.get_current_span().get_span_context()
        if own.is_valid:
            return text_of(own)
    return _carried.get()


def text_of(context: SpanContext) -> str:
    """A span's context as `traceparent`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def carry(traceparent: str | bytes | None) -> None:
    """As `carrying`, for all that follows in an asyncio task."""
    _carried.set(valid(traceparent))


@contextmanager
def carrying(traceparent: str | bytes | None) -> Iterator[None]:
    """In this block `current()` is this one (or nothing, if it is not valid), as long as there is no span."""
    token = _carried.set(valid(traceparent))
    try:
        yield
    finally:
        _carried.reset(token)


def tracer() -> Tracer | None:
    """The tracer for headrace's spans; None while no provider is configured.

    The environment variable OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, a list with commas, turns it off by `headrace`.
    """
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace  # noqa: PLC0415 - it is there, or this is not reached

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider) or disabled():
        return None
    return provider.get_tracer("headrace", __version__)


def disabled() -> bool:
    """Whether OpenTelemetry's own variable turns headrace's spans and metrics off."""
    return "headrace" in [name.strip() for name in os.environ.get(_DISABLED, "").split(",")]


def start(
    tracer: Tracer,
    name: str,
    kind: str,
    attributes: Mapping[str, str | int],
    *,
    parent: str | None = None,
    links: Iterable[str | None] = (),
) -> Span:
    """A span that has begun; it is not current yet.

    Args:
        kind: a SpanKind's name: PRODUCER, CONSUMER, SERVER.
        parent: a `traceparent`; None: it begins a new trace, whatever is current.
        links: `traceparent`s; each once, the first LINKS_MAX are kept.
    """
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - there is a tracer

    kinds: SpanKind = SpanKind[kind]
    return tracer.start_span(name, _around(parent), kinds, dict(attributes), links=_links(links))


def _around(parent: str | None) -> Context:
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context  # noqa: PLC0415

    context = _context_of(parent)
    return Context() if context is None else set_span_in_context(NonRecordingSpan(context))


def _links(given: Iterable[str | None]) -> list[Link]:
    from opentelemetry.trace import Link  # noqa: PLC0415

    contexts = (_context_of(each) for each in dict.fromkeys(given))
    return [Link(context) for context in contexts if context is not None][:LINKS_MAX]


def _context_of(traceparent: str | None) -> SpanContext | None:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    text = valid(traceparent)
    if text is None:
        return None
    _, trace_id, span_id, flags = text.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def failed(span: Span, kind: str, text: str = "") -> None:
    """Mark a span as failed. `kind` is the exception's type, or the status of the answer: `error.type`."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, text or None))


def messaging(operation: str, kind: str, queue: str) -> dict[str, str | int]:
    """The attributes of a messaging span, by the conventions.

    Args:
        operation: our word for it.
        kind: the conventions' word: create, send, receive, process, settle.
    """
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": queue,
    }


def enter(span: Span) -> Token[Any]:
    """Make a span the current one, here. Returns what `leave` takes."""
    from opentelemetry import context, trace  # noqa: PLC0415 - there is a span

    return context.attach(trace.set_span_in_context(span))


def leave(token: Token[Any]) -> None:
    """Put back what was current before `enter`."""
    from opentelemetry import context  # noqa: PLC0415

    context.detach(token)


def flush() -> None:
    """Export what has ended, where the process is about to end without its exit handlers."""
    if tracer() is not None:
        from opentelemetry import trace  # noqa: PLC0415

        flush: Callable[..., Any] | None = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(FLUSH_MS)
