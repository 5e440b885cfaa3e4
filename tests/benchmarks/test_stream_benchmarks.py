"""The streams' benchmark stays alive: its parts run once with tiny amounts, and do what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.runs import DOCUMENT, insert
from benchmarks.stream import cases, latency, publish, report, running
from benchmarks.stream.command import stream
from benchmarks.stream.latency import LatencyRow
from benchmarks.stream.measuring import Usage, slope_s
from benchmarks.stream.plan import ENGINES, PLANS
from benchmarks.stream.results import FileRow, FixedRow, QueueRow, StreamResults, verdicts


def usage(seconds: float, rows: int = 10) -> Usage:
    return Usage(start_s=0.5, seconds=seconds, cpu_s=seconds, first_s=0.1, peak_mib=100.0, rows=rows)


def some_results() -> StreamResults:
    facts = {"cores": 2, "processor": "p", "system": "Linux", "python": "3.11", "load_before": 0.1}
    results = StreamResults("quick", "2026-01-02T03:04:05Z", facts)
    results.files = [
        FileRow("q5", engine, 1_000_000, usage(seconds))
        for engine, seconds in zip(ENGINES, (1.0, 11.0, 0.3), strict=True)
    ]
    results.queues = [QueueRow("q1, Arrow bodies", 1_000_000, 200, 0.5, usage(0.9))]
    results.latency = [LatencyRow(100, 500, 5.0, 60.0, 0.1)]
    results.fixed = [FixedRow("q1", "in memory", 2.0)]
    return results


def test_verdicts_compare_with_spark_with_duckdb_and_with_the_aims() -> None:
    judged = {verdict.aim: verdict.reached for verdict in verdicts(some_results())}
    assert judged == {
        "q5: times Spark streaming": True,
        "q5: of DuckDB's batch": False,
        "q1, Arrow bodies: events/s": True,
        "Message in to window out, 500/s: p50": True,
        "Message in to window out, 500/s: p99": False,
        "Batch of one row, q1, in memory: CPU": True,
    }


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = some_results()
    assert StreamResults.load(results.save(tmp_path)) == results


@pytest.mark.parametrize(
    ("remark", "status"),
    [("headrace, q5 is left out: it failed", 1), ("Spark streaming, q5 is left out: no Java", 0)],
)
def test_command_fails_only_if_headrace_was_left_out(tmp_path: Path, remark: str, status: int) -> None:
    results = replace(some_results(), remarks=[remark])
    assert CliRunner().invoke(stream, ["--of", str(results.save(tmp_path))]).exit_code == status


def test_document_has_a_place_for_every_table() -> None:
    figures = publish.section([some_results()])
    assert all(table.title in figures for table in report.tables(some_results()))
    assert figures in insert(DOCUMENT.read_text(), figures, begin=publish.BEGIN, end=publish.END)


def test_document_says_what_none_of_its_runs_measured() -> None:
    small = replace(some_results(), files=[], queues=[])
    queues = replace(some_results(), files=[], latency=[], fixed=[])
    figures = publish.section([small, queues])
    assert "--only latency --only fixed`" in figures
    assert "--only queues`" in figures
    assert "**Not measured**: files, spark." in figures
    assert "stream-speed.svg" not in figures


def test_cost_of_one_more_has_no_start_in_it() -> None:
    assert slope_s(lambda count: 7.0 + count * 0.5, few=10, many=100) == pytest.approx(0.5)


def test_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="DuckDB batch failed: "):
        running.run("nexmark_files", "DuckDB batch", "q99", tmp_path, timeout_s=30, log=tmp_path / "log")


def test_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="took more than"):
        running.run("nexmark_files", "headrace", "q1", tmp_path, timeout_s=0.01, log=tmp_path / "log")


def test_parts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "QUERIES", ("q5",))
    monkeypatch.setattr(cases, "QUEUE_QUERIES", ("q1",))
    monkeypatch.setattr(latency, "WARM_S", 0.2)
    monkeypatch.setattr(latency, "END_S", 2.0)  # windows come late on a busy machine
    results, said = some_results(), list[str]()
    results.files, results.queues, results.latency = [], [], []
    plan = replace(PLANS["smoke"], events=20_000, latency_s=0.3, timeout_s=240)
    cases.measure(results, plan, ("files", "queues", "latency"), peers=False, data=tmp_path, say=said.append)
    assert [text for text in said if "left out" in text] == []
    assert [row.engine for row in results.files] == [ENGINES[0]]
    assert [row.usage.rows for row in results.queues] == [row.events for row in results.queues]
    assert [row.messages for row in results.queues] == [1, results.queues[1].events]
    assert results.latency[0].windows > 2
    assert not (tmp_path / "broker").exists()
