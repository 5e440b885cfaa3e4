from __future__ import annotations

from pathlib import Path

import headrace
import headrace.stream as hs
from headrace.cli.stream_presence import Showing, shown
from headrace.presence import SourceFacts, StreamFacts, read
from headrace.queue.operations import ListHolders
from headrace.stream.engine.operator import END, NEVER
from headrace.stream.result import Report
from headrace.stream.sources.base import Progress
from tests.broker_process import broker, wait_until


def test_a_report_is_shown_with_the_rate_of_what_comes_out() -> None:
    now_s = [0.0]
    showing = Showing("counts", monotonic=lambda: now_s[0])
    first = read("stream", showing.facts())
    assert isinstance(first, StreamFacts) and (first.pipeline, first.batches) == ("counts", 0) and first.rss_bytes > 0

    told = read("stream", {})
    for now_s[0], rows_out in ((0.0, 0), (2.0, 50)):
        report = Report(
            "counts", 3, 1_000, rows_out, 1, 2, 123.4, 5_000_000, 2_048, {"events": Progress(9, 7, "messages")}, 4
        )
        showing.note(report)
        told = read("stream", showing.facts())
    assert isinstance(told, StreamFacts)
    assert (told.rows_in_s, told.rows_out_s, told.watermark_ms, told.late, told.dead) == (123.4, 25.0, 5_000, 1, 2)
    assert told.sources == [SourceFacts(name="events", done=9, lag=7, unit="messages")]


def test_no_watermark_is_told_before_the_first_row_and_at_the_end() -> None:
    showing = Showing("counts")
    for watermark in (NEVER, END):
        showing.note(Report("counts", watermark=watermark))
        assert showing.facts()["watermark_ms"] is None


def test_a_run_without_a_broker_of_others_is_shown_to_nobody(tmp_path: Path) -> None:
    plan = hs.pipeline("counts", hs.queue("events", schema="k string"), sink=hs.queue("out")).plan
    for target in ("none", str(tmp_path)):
        with shown(target, plan) as tell:
            tell(Report("counts"))


def test_a_run_is_present_at_its_broker_with_its_queues(tmp_path: Path) -> None:
    plan = hs.pipeline(
        "counts", hs.queue("events", schema="k string"), sink=hs.queue("out"), dead_letter_queue="dead"
    ).plan
    with broker(tmp_path / "data") as one, headrace.connect(one.url) as client:

        def present() -> list[tuple[list[str], list[str]]]:
            return [(one.facts["queues"], one.facts["produces"]) for one in client.call(ListHolders("stream"))]

        with shown(one.url, plan):
            wait_until(lambda: present() == [(["events"], ["out", "dead"])])
