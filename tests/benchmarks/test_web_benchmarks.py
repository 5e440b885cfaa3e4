"""The web server's benchmark stays alive: it runs once with tiny amounts, and its parts do what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import machine
from benchmarks.runs import DOCUMENT, insert
from benchmarks.web import nginx, publish, report, wrk
from benchmarks.web.command import web
from benchmarks.web.contenders import SPEED_APPS, TROUBLE_APPS, contenders
from benchmarks.web.files import FileRow
from benchmarks.web.open_loop import CUT, HANGS, Outcome, Outcomes, summarise
from benchmarks.web.results import WebResults, verdicts
from benchmarks.web.speed import SpeedRow
from benchmarks.web.trouble import MixedRow, OverloadRow

ROOT = Path(__file__).parent.parent.parent
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def speed_row(app: str, server: str, cpu_us: float) -> SpeedRow:
    return SpeedRow(
        app=app, server=server, requests_per_s=1e4, cpu_us=cpu_us, cpu_spread=0.1, p50_ms=1.0, p99_ms=2.0, failed=0,
        started_in_s=0.5, rss_mib=100.0, pss_mib=50.0,
    )  # fmt: skip


def outcomes(*, p99_ms: float = 100.0, hang: float = 0.0) -> Outcomes:
    return Outcomes(
        sent=100, seconds=1.0, answered_per_s=100.0, p50_ms=5.0, p95_ms=50.0, p99_ms=p99_ms, answered=0.5,
        refused=0.5 - hang, refused_p99_ms=400.0, cut=0.0, hang=hang, late_ms=0.1, generator_cpu_share=0.1,
    )  # fmt: skip


def some_results() -> WebResults:
    facts = {"cores": 2, "processor": "p", "system": "Linux", "python": "3.11", "load_before": 0.1}
    results = WebResults("quick", "2026-01-02T03:04:05Z", facts)
    for app, peer in (("Flask", "granian WSGI"), ("Django", "granian WSGI"), ("FastAPI", "uvicorn")):
        results.speed += [
            speed_row(app, "headrace", 120.0),
            speed_row(app, "headrace --direct", 90.0),
            speed_row(app, peer, 100.0),
        ]
    results.overload = [OverloadRow("WSGI", "headrace", 300.0, 0.96, outcomes())]
    results.mixed = [
        MixedRow("WSGI", "headrace", outcomes(p99_ms=30.0)),
        MixedRow("WSGI", "granian WSGI", outcomes(p99_ms=60.0)),
    ]
    results.files = [
        FileRow("headrace", 1, 1_024, 40_000.0, 39.0, 20.0, 3.0, 0),
        FileRow("nginx", 1, 1_024, 60_000.0, 58.0, 9.0, 3.0, 0),
    ]
    return results


def test_open_loop_counts_the_window_only_and_slow_requests_not_among_latencies() -> None:
    seen = [
        Outcome(0.5, False, HANGS, 1.0),  # before the window
        Outcome(1.0, False, 200, 0.010),
        Outcome(1.1, True, 200, 0.500),
        Outcome(1.2, False, 503, 0.200),
        Outcome(1.3, False, HANGS, 1.0),
        Outcome(1.4, False, CUT, 0.1),
    ]
    got = summarise(seen, since_s=1.0, seconds=2.0, late_s=0.001, cpu_share=0.2)
    assert (got.sent, got.answered_per_s, got.p99_ms) == (5, 1.0, 10.0)
    assert (got.answered, got.refused, got.cut, got.hang) == (0.4, 0.2, 0.2, 0.2)
    assert got.refused_p99_ms == 200.0


def test_wrks_report_is_read() -> None:
    line = '{"requests":1000,"seconds":2.0,"p50_ms":1.5,"p99_ms":3.5,"refused":1,"broken":2}'
    load = wrk.read(f"Running 2s test\n\n{line}\n", cpu_s=0.1)
    assert (load.requests_per_s, load.cpu_us, load.failed) == (500.0, 100.0, 3)


def test_load_without_an_answer_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="no request was answered"):
        wrk.read('{"requests":0,"seconds":2.0}', cpu_s=0.1)


def test_verdicts_compare_with_the_best_peer() -> None:
    results = some_results()
    judged = {verdict.aim: verdict.reached for verdict in verdicts(results)}
    assert judged["Flask, direct: CPU as the best peer (granian WSGI)"]
    assert not judged["Django, headrace: CPU at most granian WSGI"]
    assert judged["Overload, WSGI, headrace: goodput"]
    assert judged["Mixed, WSGI, headrace: p99 of the fast below every peer's"]
    assert judged["Files of 1,024 B: of nginx's rate"]
    results.overload = [replace(results.overload[0], outcomes=outcomes(hang=0.01))]
    assert not all(verdict.reached for verdict in verdicts(results) if "in time" in verdict.aim)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = some_results()
    assert WebResults.load(results.save(tmp_path)) == results


@pytest.mark.parametrize(
    ("remark", "status"),
    [
        ("headrace --direct is left out with Flask: it does not answer", 1),
        ("uvicorn is left out with FastAPI: /home/me/headrace/.cache/peers/web/bin/uvicorn does not answer", 0),
    ],
)
def test_command_fails_only_if_headrace_was_left_out(tmp_path: Path, remark: str, status: int) -> None:
    results = replace(some_results(), remarks=[remark])
    assert CliRunner().invoke(web, ["--of", str(results.save(tmp_path))]).exit_code == status


def test_figures_go_between_their_marks() -> None:
    figures = publish.section(some_results())
    assert "| **no** |" in figures
    assert all(table.title in figures for table in report.tables(some_results()))
    text = f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n"
    changed = insert(text, figures, begin=publish.BEGIN, end=publish.END)
    assert changed.startswith("before\n")
    assert changed.endswith("\nafter\n")
    assert "old" not in changed
    assert insert(changed, figures, begin=publish.BEGIN, end=publish.END) == changed


def test_document_has_a_place_for_the_figures() -> None:
    assert insert(DOCUMENT.read_text(), "x", begin=publish.BEGIN, end=publish.END)
    with pytest.raises(ValueError, match="no place"):
        insert("nothing", "x", begin=publish.BEGIN, end=publish.END)


def test_each_interface_has_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for app in (*SPEED_APPS, *TROUBLE_APPS):
        names = [contender.name for contender in contenders(app.interface, peers=True)]
        assert names[:2] == ["headrace", "headrace --direct"]
        assert len(names) > 3
        assert not any("nginx" in name for name in names)
        assert len(contenders(app.interface, peers=False)) == 2


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize("kind", ["front", "files"])
def test_nginx_accepts_its_configuration(tmp_path: Path, kind: str) -> None:
    if kind == "front":
        command = nginx.front(tmp_path, port=18_001, upstream=18_002)
    else:
        command = nginx.files(tmp_path, port=18_001, root=tmp_path, workers=1)
    done = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shared_memory_is_divided() -> None:
    assert 0 < machine.own_memory_mib(os.getpid()) <= machine.memory_mib(os.getpid()) * 1.05


@needs_wrk
def test_web_benchmark_runs(tmp_path: Path) -> None:
    folders = ["--cache", str(tmp_path / "cache"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "web", "--mode", "smoke", "--no-peers", *folders],
        cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = WebResults.load(tmp_path / "out" / "web-latest.json")
    assert results.remarks == []
    assert {(row.app, row.server) for row in results.speed} == {
        (app.title, name) for app in SPEED_APPS for name in ("headrace", "headrace --direct")
    }
    assert all(row.failed == 0 and row.cpu_us > 0 and row.pss_mib > 0 for row in (*results.speed,))
    assert {row.file_bytes for row in results.files} == {1_024, 10 * 2**20}
    assert len(results.overload) == len(results.mixed) == 4
    assert json.loads((tmp_path / "out" / "web-latest.json").read_text())["mode"] == "smoke"
