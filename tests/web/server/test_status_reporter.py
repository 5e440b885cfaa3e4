"""What a web server shows of itself at its broker."""

from __future__ import annotations

from pathlib import Path

import headrace
from headrace.presence import WebFacts, read
from headrace.queue.operations import ListHolders
from headrace.web.frontend.metrics import EdgeStatistics
from headrace.web.server.status_reporter import StatusReporter
from tests.broker_process import broker, wait_until
from tests.web.frontend.test_metrics import edge
from tests.web.web_process import serve

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hi"]
"""


def test_rates_and_percentiles_are_of_the_last_seconds() -> None:
    now_s = [0.0]
    status_reporter = StatusReporter(monotonic=lambda: now_s[0])
    before = status_reporter.statistics(EdgeStatistics())
    assert (before["requests_s"], before["routes"], before["shed_s"]) == (0.0, [], 0.0)
    now_s[0] = 2.0
    told = status_reporter.statistics(edge())
    [route] = told["routes"]
    assert (route.route, route.requests, route.requests_s) == ("/", 4, 2.0)
    assert route.statuses == {"2xx": 3, "none": 1}
    assert route.total.count == 2 and 0.001 < route.total.p50_s < route.total.p99_s < 0.25
    assert told["shed"] == {"queue-full": 2} and told["shed_s"] == 1.0
    assert told["queue_length"] == 5 and told["oldest_wait_s"] == 0.5
    now_s[0] = 60.0
    status_reporter.statistics(edge())
    now_s[0] = 61.0
    calm = status_reporter.statistics(edge())
    assert calm["requests_s"] == 0.0 and calm["routes"][0].total.count == 0 and calm["routes"][0].requests == 4


def test_a_server_with_a_broker_is_present_and_gone_when_it_stops(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with broker(tmp_path / "data") as one, headrace.connect(one.url) as client:

        def shown() -> list[WebFacts]:
            found = [read(state.kind, state.facts) for state in client.call(ListHolders("web"))]
            return [facts for facts in found if isinstance(facts, WebFacts)]

        arguments = ["app:app", "--port", "0", "--workers", "1", "--broker", str(tmp_path / "data")]
        with serve(tmp_path, *arguments) as web:
            assert web.text() == "hi"
            wait_until(lambda: [facts.requests for facts in shown()] == [1])
            [facts] = shown()
            assert (facts.url, facts.apps, facts.ready, facts.queues) == (
                web.url,
                ["app:app"],
                True,
                ["headrace-requests"],
            )
            assert [worker.stage for worker in facts.workers] == ["serving"]
            assert facts.rss_bytes > 30_000_000
            assert web.stop() == 0
        wait_until(lambda: shown() == [])
