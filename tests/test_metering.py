"""Metrics by OpenTelemetry: what a request, a task and a batch are under the conventions' names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

import headrace
import headrace.stream as hs
from headrace import metering
from headrace.testing.driver import fast_folder
from headrace.work import App
from headrace.work.broker_backend import BrokerBackend
from headrace.work.metering import meter
from tests.patience import PATIENCE_S
from tests.web.wsgi_serving import PLACEMENTS

Point = HistogramDataPoint | NumberDataPoint


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """Of a provider that is the process's until the test ends: OpenTelemetry itself has it set once and for all."""
    found = InMemoryMetricReader()
    provider = MeterProvider([found])
    monkeypatch.setattr(_internal, "_METER_PROVIDER", provider)
    yield found
    provider.shutdown()


@pytest.fixture
def client() -> Iterator[headrace.Client]:
    with fast_folder("headrace-meter-") as folder, headrace.connect(Path(folder)) as client:
        client.queue("orders", create=True)
        yield client


def points(reader: InMemoryMetricReader, name: str) -> list[Point]:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [one for group in data.resource_metrics for scope in group.scope_metrics for one in scope.metrics]
    return [point for one in metrics if one.name == name for point in one.data.data_points]  # type: ignore[misc]  # no exponential ones


def facts(point: Point) -> dict[str, Any]:
    return dict(point.attributes or {})


def test_tasks_are_counted_and_timed(client: headrace.Client, reader: InMemoryMetricReader) -> None:
    app = App(backend=BrokerBackend(client), retries=0)
    meter(app)

    @app.task(name="add", queue="sums")
    def add(number: int) -> None:
        if number < 0:
            raise ValueError(number)

    for number in (1, 2, -1):
        add.send(number)
    app.run_pending()
    base = {"messaging.system": "headrace", "messaging.destination.name": "sums"}
    [sent] = points(reader, metering.SENT)
    assert isinstance(sent, NumberDataPoint)
    assert sent.value == 3
    assert facts(sent) == {**base, "messaging.operation.name": "send"}
    done = {facts(point).get("error.type"): point for point in points(reader, metering.PROCESSED)}
    assert {error: point.count for error, point in done.items() if isinstance(point, HistogramDataPoint)} == {
        None: 2,
        "ValueError": 1,
    }
    assert facts(done[None]) == {**base, "messaging.operation.name": "process", "headrace.task": "add"}
    consumed = points(reader, metering.CONSUMED)
    assert sum(point.value for point in consumed if isinstance(point, NumberDataPoint)) == 3


def test_a_batch_of_a_pipeline_counts_its_messages(client: headrace.Client, reader: InMemoryMetricReader) -> None:
    client.queue("orders").send_many([{"number": number} for number in range(5)])
    orders = hs.queue("orders", schema={"number": "bigint"})
    stream = hs.sql("SELECT number FROM orders", orders=orders)
    hs.pipeline("orders-out", stream, sink=hs.queue("out")).run(client, until="idle")
    consumed = points(reader, metering.CONSUMED)
    assert sum(point.value for point in consumed if isinstance(point, NumberDataPoint)) == 5
    assert {facts(point)["headrace.pipeline"] for point in consumed} == {"orders-out"}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_request_is_timed(placement: str, reader: InMemoryMetricReader, tmp_path: Path) -> None:
    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/broken":
            raise RuntimeError("broken")
        start_response("204 No Content", [])
        return []

    with PLACEMENTS[placement](page, tmp_path) as url:
        assert httpx.get(f"{url}/a?secret=1").status_code == 204
        assert httpx.get(f"{url}/broken").status_code == 500
    by_status = {facts(point)["http.response.status_code"]: point for point in points(reader, metering.REQUESTED)}
    assert {status: point.count for status, point in by_status.items() if isinstance(point, HistogramDataPoint)} == {
        204: 1,
        500: 1,
    }
    expected = {"http.request.method": "GET", "url.scheme": "http", "network.protocol.version": "1.1"}
    assert facts(by_status[204]) == {**expected, "http.response.status_code": 204}
    assert facts(by_status[500])["error.type"] == "500"


def test_nothing_is_measured_without_a_provider_or_where_it_is_turned_off(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metering.instruments() is metering.instruments() is not None
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "headrace")
    assert metering.instruments() is None
    monkeypatch.delenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    monkeypatch.setattr(_internal, "_METER_PROVIDER", None)
    assert metering.instruments() is None
    assert reader.get_metrics_data() is None


def test_metering_imports_no_opentelemetry() -> None:
    code = (
        "import sys, headrace.metering as m, headrace.work.metering\n"
        "assert m.instruments() is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
