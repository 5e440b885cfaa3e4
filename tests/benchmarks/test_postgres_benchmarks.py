"""The benchmark of nodes on PostgreSQL stays alive: it runs once for a moment; its figures are read, judged, published."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.http_load import BODY_BYTES
from benchmarks.postgres.clients.sqs import FifoRequests
from benchmarks.postgres.command import BEGIN, END, PostgresResults, median, postgres, tables, verdicts
from benchmarks.postgres.contenders import CONTENDERS
from benchmarks.postgres.running import Row, measure
from benchmarks.runs import DOCUMENT, insert
from headrace.testing.postgres import find_programs


def row(name: str = "headrace, 1 node, tens", *, rate: float = 26_000.0, database_us: float | None = 20.0) -> Row:
    return Row(name, "cycle", rate, 30.0, database_us, 5.0, "each commit")


def results(*rows: Row) -> PostgresResults:
    return PostgresResults("smoke", "2026-01-01T00:00:00Z", {"cores": 2}, rows=list(rows))


@pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later")
def test_nodes_serve_messages_and_everybodys_processor_time_is_known() -> None:
    ours = next(each for each in CONTENDERS if each.ours)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL does not run as root, and must get in
        (found,) = measure(ours, ["cycle"], seconds=0.3, python=Path(sys.executable), folder=Path(folder) / "run")
    assert found.messages_per_s > 0
    assert found.node_us is not None
    assert found.database_us is not None


def test_every_message_of_a_fifo_queue_has_a_deduplication_id_of_its_own() -> None:
    requests = FifoRequests("localhost", "http://localhost/q.fifo", BODY_BYTES)
    ids = [one for _ in range(3) for one in re.findall(rb'DeduplicationId":"([^"]+)"', requests.batch())]
    assert len(set(ids)) == len(ids) == 30
    json.loads(requests.batch().partition(b"\r\n\r\n")[2])


def test_results_are_read_as_they_were_saved(tmp_path: Path) -> None:
    found = results(row())
    assert PostgresResults.load(found.save(tmp_path)) == found


def test_median_of_rounds_is_of_each_figure_and_keeps_what_is_not_there() -> None:
    middle = median([row(rate=1.0, database_us=None), row(rate=9.0, database_us=None), row(rate=5.0, database_us=None)])
    assert (middle.messages_per_s, middle.database_us, middle.all_us) == (5.0, None, 35.0)


def test_aims_are_a_rate_and_the_processor_time_of_everybody() -> None:
    def reached(*rows: Row) -> list[bool]:
        return [verdict.reached for verdict in verdicts(results(*rows))]

    assert reached(row()) == [True, True]
    assert reached(row(rate=24_999.0, database_us=46.0)) == [False, False]
    assert reached(row(rate=1.0), row("headrace, 2 nodes, thousands")) == [False, True, True, True]
    assert reached(row("headrace, 4 nodes, FIFO, tens", rate=12_000.0, database_us=130.0)) == [True, True]
    assert reached(row(), row("SKIP LOCKED by each client", database_us=19.0)) == [True, True, False]
    assert reached() == []


def test_results_are_shown_without_being_measured_again(tmp_path: Path) -> None:
    done = CliRunner().invoke(postgres, ["--of", str(results(row()).save(tmp_path))])
    assert done.exit_code == 0
    assert "26,000" in done.output
    (table,) = tables(results(row()))
    assert table.rows[0][2] == "55"


def test_document_has_a_place_for_the_figures() -> None:
    assert "new figures" in insert(DOCUMENT.read_text(), "new figures", begin=BEGIN, end=END)


def test_too_few_figures_are_not_published(tmp_path: Path) -> None:
    before = DOCUMENT.read_text()
    done = CliRunner().invoke(postgres, ["--publish", "--of", str(results(row()).save(tmp_path))])
    assert isinstance(done.exception, ValueError)
    assert DOCUMENT.read_text() == before
