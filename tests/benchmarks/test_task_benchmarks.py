"""The workers' benchmark stays alive: it runs once with tiny amounts, and tells what was lost or run twice."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner

from benchmarks.runs import DOCUMENT, insert
from benchmarks.tasks.command import BEGIN, END, TaskResults, tables, tasks, verdicts
from benchmarks.tasks.contenders import CONTENDERS
from benchmarks.tasks.running import TaskRow, measure


def row(*, tasks_per_s: float = 9_000.0, lost: int = 0, twice: int = 0) -> TaskRow:
    return TaskRow(
        name="headrace", tasks=100, tasks_per_s=tasks_per_s, worker_us=30.0, store_us=10.0, rss_mib=60.0, lost=lost,
        twice=twice, keeps="each commit",
    )  # fmt: skip


def test_headrace_runs_every_task_once(tmp_path: Path) -> None:
    (ours,) = [each for each in CONTENDERS if each.ours]
    found = measure(ours, 300, programs=Path(sys.executable).parent, folder=tmp_path / "run")
    assert (found.tasks, found.lost, found.twice) == (300, 0, 0)
    assert found.tasks_per_s > 0


def test_results_are_read_as_they_were_saved(tmp_path: Path) -> None:
    results = TaskResults("smoke", "2026-01-01T00:00:00Z", {"cores": 2}, rows=[row()])
    assert TaskResults.load(results.save(tmp_path)) == results


def test_aims_are_a_rate_none_lost_and_none_run_twice() -> None:
    def reached(one: TaskRow) -> list[bool]:
        return [verdict.reached for verdict in verdicts(TaskResults("smoke", "", {}, rows=[one]))]

    assert reached(row()) == [True, True, True]
    assert reached(row(tasks_per_s=7_999.0)) == [False, True, True]
    assert reached(row(lost=1, twice=1)) == [True, False, False]


def test_document_has_a_place_for_the_figures() -> None:
    assert "new figures" in insert(DOCUMENT.read_text(), "new figures", begin=BEGIN, end=END)


def test_results_are_shown_without_being_measured_again(tmp_path: Path) -> None:
    results = TaskResults("smoke", "2026-01-01T00:00:00Z", {"cores": 2}, rows=[row()])
    path = results.save(tmp_path)
    done = CliRunner().invoke(tasks, ["--of", str(path)])
    assert done.exit_code == 0
    assert "9,000" in done.output
    (table,) = tables(results)
    assert table.rows[0][0] == "headrace"
