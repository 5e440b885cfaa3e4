"""Tracing of requests in an application: the incoming trace is current, the request is a SERVER span and is measured.

Source: OpenTelemetry, semantic conventions for HTTP server spans. The route is the framework's knowledge, so a span is
called by its method; the query is left out: it may have secrets.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from headrace import metering, tracing
from headrace.web.apps.wsgi_environ import RequestHead

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_HEADER: Final = tracing.NAME.encode()
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})


def wanted(headers: Mapping[bytes, bytes]) -> bool:
    """Whether there may be a trace, or metrics: asked for each request, so it is quick."""
    return _HEADER in headers or "opentelemetry.trace" in sys.modules or "opentelemetry.metrics" in sys.modules


@dataclass(slots=True)
class RequestSpan:
    """A running request with its span."""

    head: RequestHead
    span: Span | None
    began_s: float = field(default_factory=time.perf_counter)


@contextmanager
def request_span(head: RequestHead, status: Callable[[], int]) -> Iterator[None]:
    """The request runs in this block, in this thread.

    Args:
        status: the answer's, when the block ends; 0: there was none.
    """
    with tracing.carrying(head.headers.get(_HEADER)):
        running = RequestSpan(head, _start(head))
        token = tracing.enter(running.span) if running.span is not None else None
        try:
            yield
        finally:
            if token is not None:
                tracing.leave(token)
            end(running, status())


def begin(head: RequestHead) -> RequestSpan:
    """The request runs from here on in the asyncio task of its own that calls this. Returns what `end` takes."""
    tracing.carry(head.headers.get(_HEADER))
    running = RequestSpan(head, _start(head))
    if running.span is not None:
        tracing.enter(running.span)
    return running


def end(running: RequestSpan | None, status: int) -> None:
    """The application is done with a request. `status` as in `request_span`."""
    if running is None:
        return
    _end_span(running.span, status)
    instruments = metering.instruments()
    if instruments is not None:
        instruments.requested(time.perf_counter() - running.began_s, _measured(running.head, status))


def _end_span(span: Span | None, status: int) -> None:
    if span is None:
        return
    if status:
        span.set_attribute("http.response.status_code", status)
    if status >= 500:
        tracing.failed(span, str(status))
    span.end()


def _start(head: RequestHead) -> Span | None:
    tracer = tracing.tracer()
    if tracer is None:
        return None
    method = _method(head)
    name = method if method != "_OTHER" else "HTTP"
    parent = tracing.valid(head.headers.get(_HEADER))
    return tracing.start(tracer, name, "SERVER", _facts(head, method), parent=parent)


def _method(head: RequestHead) -> str:
    return head.method if head.method in _METHODS else "_OTHER"


def _measured(head: RequestHead, status: int) -> dict[str, str | int]:
    """Attributes of few values: nothing that a client makes up."""
    facts: dict[str, str | int] = {
        "http.request.method": _method(head),
        "url.scheme": "https" if head.secure else "http",
        "network.protocol.version": head.version,
    }
    facts |= {"http.response.status_code": status} if status else {}
    return facts | ({"error.type": str(status)} if status >= 500 else {})


def _facts(head: RequestHead, method: str) -> dict[str, str | int]:
    host, port = head.server
    facts: dict[str, str | int] = {
        "http.request.method": method,
        "url.path": head.root_path + head.target.partition("?")[0],
        "url.scheme": "https" if head.secure else "http",
        "network.protocol.version": head.version,
        "client.address": head.peer,
        "server.address": host,
    }
    return facts | ({"server.port": port} if port else {})
