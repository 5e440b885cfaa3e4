"""Traces: passed on as they came without OpenTelemetry, and with it one trace from a request to a pipeline's batch."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import headrace
import headrace.stream as hs
from headrace import tracing
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.native.messages import Outgoing
from headrace.testing.driver import fast_folder
from headrace.work import App, current
from headrace.work.broker_backend import BrokerBackend
from headrace.work.tracing import TracingMiddleware
from headrace.work.tracing import trace as trace_app
from tests.native.served import ServedBroker
from tests.patience import PATIENCE_S
from tests.web.asgi_serving import serving
from tests.web.stored.test_durable_requests import world
from tests.web.wsgi_serving import PLACEMENTS

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def client() -> Iterator[headrace.Client]:
    with fast_folder("headrace-trace-") as folder, headrace.connect(Path(folder)) as client:
        client.queue("orders", create=True)
        yield client


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Of a provider that is the process's until the test ends: OpenTelemetry itself has it set once and for all."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def shop(client: headrace.Client) -> tuple[App, list[str | None]]:
    """A task that sends a plain message, and which traces its attempts saw."""
    app, seen = App(backend=BrokerBackend(client), retries=0), []

    @app.task(name="order", queue="work")
    def order(number: int) -> None:
        seen.append(current().trace)
        client.queue("orders").send({"number": number})

    @app.task(name="fail", queue="work")
    def fail() -> None:
        raise ValueError("no such order")

    return app, seen


def page(app: App) -> Callable[..., Any]:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise RuntimeError("broken")
        app.tasks["order"].send(1)
        start_response("202 Accepted", [("Content-Length", "0")])
        return [b""]

    return application


def only(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    [found] = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (PARENT, PARENT),
        (PARENT.encode(), PARENT),
        (f"cc-{TRACE_ID}-00f067aa0ba902b7-01-more", PARENT),
        (f"{PARENT}-more", None),
        (f"ff-{TRACE_ID}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (PARENT.upper(), None),
        (b"\xff", None),
        ("", None),
        (None, None),
    ],
)
def test_what_is_no_traceparent_is_ignored(given: str | bytes | None, kept: str | None) -> None:
    assert tracing.valid(given) == kept


def test_headrace_imports_no_opentelemetry() -> None:
    code = (
        "import sys, headrace, headrace.work, headrace.work.tracing, headrace.web.apps.wsgi, headrace.web.apps.asgi, headrace.tracing as t\n"
        "with t.carrying('" + PARENT + "'): assert t.current() and t.tracer() is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_trace_is_passed_on_without_opentelemetry(placement: str, client: headrace.Client, tmp_path: Path) -> None:
    app, seen = shop(client)
    with PLACEMENTS[placement](page(app), tmp_path) as url:
        httpx.post(url, headers={"traceparent": PARENT})
        httpx.post(url)
    app.run_pending()
    assert seen == [PARENT, None]
    first, second = sorted(client.queue("orders").receive(wait=0), key=lambda message: message.sequence)
    assert first.attributes == {"traceparent": PARENT}
    assert second.attributes == {}


@pytest.mark.parametrize("mode", ["direct", "edge"])
def test_each_request_of_an_asgi_app_has_its_own_trace(mode: str, tmp_path: Path) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        body = (tracing.current() or "none").encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def ask() -> list[str]:
        async with serving(app, mode, tmp_path) as served, httpx.AsyncClient() as web:
            given = [{"traceparent": PARENT}, {}]
            return [(await web.get(served.url, headers=headers)).text for headers in given]

    assert asyncio.run(ask()) == [PARENT, "none"]


def test_every_attempt_of_a_durable_request_has_its_trace(tmp_path: Path) -> None:
    seen: list[bytes | None] = []

    def fail(exchange: Exchange) -> None:
        seen.append(exchange.headers.get(b"traceparent"))
        exchange.respond(500, Fields.of([]), b"")

    async def trial() -> None:
        async with world(broker) as stored:
            stored.app.answer = fail
            assert (await stored.ended(await stored.post(traceparent=PARENT)))["status"] == "failed"

    broker = ServedBroker(tmp_path)
    try:
        asyncio.run(trial())
    finally:
        broker.stop()
    assert seen == [PARENT.encode()] * 2


def test_what_follows_a_task_is_in_its_trace(client: headrace.Client) -> None:
    app, seen = shop(client)
    with tracing.carrying(PARENT):
        headrace.work.chain(app.tasks["order"].si(1), app.tasks["order"].si(2)).send()
    app.run_pending()
    assert seen == [PARENT, PARENT]


def test_a_message_with_ten_attributes_or_a_traceparent_keeps_them() -> None:
    ten = {f"a{number}": number for number in range(10)}
    own = {"traceparent": "mine"}
    with tracing.carrying(PARENT):
        full, given = Outgoing("x", ten).entry(), Outgoing("x", own).entry()
    assert full.attributes == Outgoing("x", ten).entry().attributes
    assert given.attributes == Outgoing("x", own).entry().attributes


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_trace_from_a_request_through_a_task_to_a_batch(
    placement: str, client: headrace.Client, spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    app, _ = shop(client)
    trace_app(app)
    with PLACEMENTS[placement](page(app), tmp_path) as url:
        assert httpx.post(f"{url}/orders?key=secret", headers={"traceparent": PARENT}).status_code == 202
    app.run_pending()
    orders = hs.queue("orders", schema={"number": "bigint"})
    stream = hs.sql("SELECT number FROM orders", orders=orders)
    hs.pipeline("orders-out", stream, sink=hs.queue("out")).run(client, until="idle")

    server, create = only(spans, "POST"), only(spans, "create work")
    process, batch = only(spans, "process work"), only(spans, "process orders-out")
    assert server.kind is SpanKind.SERVER
    assert create.kind is SpanKind.PRODUCER
    assert process.kind is batch.kind is SpanKind.CONSUMER
    assert {f"{ids(span)[0]:032x}" for span in (server, create, process)} == {TRACE_ID}
    assert [span.parent and span.parent.span_id for span in (create, process)] == [ids(server)[1], ids(create)[1]]
    assert [(link.context.trace_id, link.context.span_id) for link in process.links] == [ids(create)]
    assert [(link.context.trace_id, link.context.span_id) for link in batch.links] == [ids(process)]
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["url.path"] == "/orders"
    assert process.attributes is not None
    assert process.attributes["messaging.system"] == "headrace"
    assert process.attributes["messaging.destination.name"] == "work"
    assert process.attributes["messaging.operation.type"] == "process"
    assert batch.attributes is not None
    assert batch.attributes["messaging.batch.message_count"] == 1


def test_consumers_of_messages_are_in_their_traces(client: headrace.Client, spans: InMemorySpanExporter) -> None:
    app, inside = App(backend=BrokerBackend(client)), []
    trace_app(app)

    @app.consumer("orders", batch=10)
    def take(orders: list[dict[str, int]]) -> None:
        inside.append((len(orders), tracing.current()))

    for parent in (PARENT, PARENT.replace("4bf9", "4bfa")):
        with tracing.carrying(parent):
            client.queue("orders").send({"number": 1})
    client.queue("orders").send({"number": 2}, attributes={"traceparent": "not one"})
    app.run_pending()
    processed = [span for span in spans.get_finished_spans() if span.name == "process orders"]
    first, second, third = (f"{ids(span)[0]:032x}" for span in processed)
    assert (first, second) == (TRACE_ID, TRACE_ID.replace("4bf9", "4bfa"))
    assert third not in (first, second)
    assert inside == [(3, f"00-{TRACE_ID}-{ids(processed[0])[1]:016x}-01")]
    assert not trace.get_current_span().get_span_context().is_valid


def test_failures_are_errors_of_their_spans(
    client: headrace.Client, spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    app, _ = shop(client)
    trace_app(app)
    app.tasks["fail"].send()
    app.run_pending()
    with PLACEMENTS["direct"](page(app), tmp_path) as url:
        assert httpx.get(f"{url}/broken").status_code == 500
    for name, kind in (("process work", "ValueError"), ("GET", "500")):
        span = only(spans, name)
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == kind
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_asgi_request_is_a_span(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": (tracing.current() or "").encode()})

    async def ask() -> str:
        async with serving(app, "direct", tmp_path) as served, httpx.AsyncClient() as web:
            return (await web.get(served.url, headers={"traceparent": PARENT})).text

    seen = asyncio.run(ask())
    span = only(spans, "GET")
    assert seen == f"00-{TRACE_ID}-{ids(span)[1]:016x}-01"
    assert span.attributes is not None
    assert span.attributes["error.type"] == "503"


def test_a_span_links_to_a_bounded_number(spans: InMemorySpanExporter) -> None:
    tracer = tracing.tracer()
    assert tracer is not None
    many = [f"00-{TRACE_ID}-{number:016x}-01" for number in range(1, 1_000)]
    tracing.start(tracer, "batch", "CONSUMER", {}, links=[None, "bad", *many, *many]).end()
    assert len(only(spans, "batch").links) == tracing.LINKS_MAX


@pytest.mark.usefixtures("spans")
def test_it_is_turned_off_by_opentelemetrys_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "flask, headrace")
    assert tracing.tracer() is None


@pytest.mark.usefixtures("spans")
def test_an_app_has_the_middleware_once(client: headrace.Client, spans: InMemorySpanExporter) -> None:
    app = App(backend=BrokerBackend(client), middleware=[TracingMiddleware()])
    app.task(name="nothing", queue="work")(lambda: None)
    trace_app(app)
    app.tasks["nothing"].send()
    assert [span.name for span in spans.get_finished_spans()] == ["create work"]


def test_the_page_does_what_it_says() -> None:
    page = (Path(__file__).parents[1] / "docs" / "tracing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    code = "\n".join(blocks) + "\nclient.close()\n"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, timeout=PATIENCE_S
    )  # sets its process's provider
