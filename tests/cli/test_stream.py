from __future__ import annotations

import io
import json
import os
import re
import socket
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import headrace
from headrace.cli.output import table
from headrace.cli.stream_list import Sample, rows, standing
from headrace.cli.stream_live import Pace, bar, line, size
from headrace.clock import boot_id
from headrace.process import started_ticks
from headrace.settings import describe
from headrace.stream import limits
from headrace.stream.result import Report
from headrace.stream.sources.base import Progress
from headrace.stream_settings import StreamSettings
from headrace.stream_state import PipelineState, Process, SourceState
from tests.cli.conftest import CommandLine
from tests.stream.runner.pipelines import event

FILE = """
import headrace.stream as hs

events = hs.queue("events", schema="k string, v bigint, ts timestamp").with_watermark("ts", delay="2 seconds")
counts = hs.sql("SELECT k, count(*) AS n FROM events GROUP BY tumble(ts, '10 seconds'), k")
pipeline = hs.pipeline("counts", counts, sink=hs.queue("out"), dead_letter_queue="dead")
"""

TESTS = """
def test_counted(pipeline):
    pipeline.send("events", [{"k": "a", "v": 1, "ts": "2024-01-01T00:00:00"}])
    assert pipeline.end() == [{"k": "a", "n": 1}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "counts.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def filled(client: headrace.Client) -> headrace.Client:
    queue = client.queue("events", create=True)
    queue.send_many(json.dumps(event(number)) for number in range(200))
    return client


def test_run_until_idle_and_look_at_it(run: CommandLine, file: Path, filled: headrace.Client) -> None:
    ran = run("stream", "run", str(file), "--until", "idle", "--batch-rows", "50")
    assert ran.code == 0 and "200 rows in, 3 out" in ran.err
    [listed] = run("stream", "ls", "-o", "json").json
    assert (listed["pipeline"], listed["rows_in"], listed["run_by"]) == ("counts", 200, None)
    assert (listed["state"], listed["lag"], listed["watermark"]) == ("stopped", 0, "2024-01-01 00:00:17.900")
    shown = run("stream", "show", "counts", "-o", "json").json
    assert shown["last_commit_seconds"] >= 0
    assert shown["sources"] == {"events": "queue events"} and shown["state_parts"] > 0 and shown["plan"]
    [lag] = run("stream", "lag", "counts", "-o", "json").json
    assert (lag["waiting"], lag["rows"]) == (0, 200)
    [operator] = run("stream", "state", "counts", "-o", "json").json
    assert operator["operator"] == "aggregate-1" and operator["rows"] >= 3
    rows = run("stream", "state", "counts", "--operator", "aggregate-1", "--limit", "1", "-o", "json")
    assert len(rows.json) == 1 and "more" in rows.err
    query = "SELECT sum(p0) AS n FROM aggregate_1"
    assert run("stream", "state", "counts", "--sql", query, "-o", "json").json == [{"n": 100}]


def test_name_gives_state_of_its_own(run: CommandLine, file: Path, filled: headrace.Client) -> None:
    assert run("stream", "run", str(file), "--until", "idle", "--name", "other").code == 0
    assert [row["pipeline"] for row in run("stream", "ls", "-o", "json").json] == ["other"]


def test_pause_resume_and_reset(run: CommandLine, file: Path, filled: headrace.Client) -> None:
    run("stream", "run", str(file), "--until", "idle")
    assert run("stream", "pause", "counts").code == 0
    assert run("stream", "show", "counts", "-o", "json").json["paused"] is True
    assert run("stream", "resume", "counts").code == 0
    assert run("stream", "show", "counts", "-o", "json").json["paused"] is False
    assert run("stream", "reset", "counts").code == 2, "nobody can be asked"
    assert run("stream", "reset", "counts", stdin="another\n", terminal=True).code == 1
    assert run("stream", "reset", "counts", stdin="counts\n", terminal=True).code == 0
    assert run("stream", "ls", "-o", "json").json == []


def test_unknown_pipeline_is_one_line(run: CommandLine, client: headrace.Client) -> None:
    for command in ("show", "lag", "state", "pause", "resume", "reset"):
        ran = run("stream", command, "nobody")
        assert ran.code == 1 and "nobody" in ran.err and len(ran.err.splitlines()) == 1, command


def test_changed_definition_is_one_line(run: CommandLine, file: Path, filled: headrace.Client) -> None:
    run("stream", "run", str(file), "--until", "idle")
    file.write_text(FILE.replace("10 seconds", "20 seconds"))
    ran = run("stream", "run", str(file), "--until", "idle")
    assert ran.code == 1 and "--reset" in ran.err
    assert run("stream", "run", str(file), "--until", "idle", "--reset").code == 0


def test_plan_is_shown_and_drawn(run: CommandLine, file: Path, tmp_path: Path) -> None:
    ran = run("stream", "plan", str(file), "--svg", str(tmp_path / "plan.svg"))
    assert ran.code == 0 and "n = count(*)" in ran.out and "SQL on DuckDB" in ran.out and "SQL on Spark" in ran.out
    assert (tmp_path / "plan.svg").read_text().lstrip().startswith("<svg")


def test_tests_of_the_file_are_run(run: CommandLine, file: Path) -> None:
    assert "1 passed, 0 failed" in run("stream", "test", str(file)).err, "a dry run"
    file.write_text(FILE + TESTS)
    assert run("stream", "test", str(file)).code == 0
    file.write_text(FILE + TESTS.replace('"n": 1', '"n": 2'))
    failed = run("stream", "test", str(file))
    assert failed.code == 1 and "FAILED  test_counted" in failed.out and "AssertionError" in failed.out
    file.write_text(FILE + "\n\ndef test_values(pipeline):\n    rows = pipeline.end()\n    assert rows == [1]\n")
    assert re.search(
        r": assert rows == \[1\]\n +AssertionError\n +rows = \[\]\n$", run("stream", "test", str(file)).out
    )
    file.write_text(FILE + TESTS.replace("(pipeline)", "(pipline)"))
    assert "pipline is no pipeline" in run("stream", "test", str(file)).err


@pytest.mark.parametrize(
    ("text", "place", "code", "said"),
    [
        (FILE, "nothing.py", 2, "there is no such file"),
        ("x = 1", "counts.py", 2, "defines no pipeline"),
        (FILE + "another = hs.pipeline('b', counts)", "counts.py", 2, "name one: "),
        (FILE, "counts.py:nobody", 2, "there is no pipeline 'nobody'"),
        ("import nothing_at_all", "counts.py", 1, "line 1: ModuleNotFoundError"),
        ("x =", "counts.py", 1, "line 1: invalid syntax"),
        ("import headrace.stream as hs\nhs.queue('a', schema='a b c')", "counts.py", 1, "line 2: schema"),
    ],
)
def test_file_that_cannot_be_used_says_why(
    run: CommandLine, tmp_path: Path, text: str, place: str, code: int, said: str
) -> None:
    (tmp_path / "counts.py").write_text(text)
    ran = run("stream", "plan", str(tmp_path / place))
    assert ran.code == code and said in ran.err


def test_pipelines_of_files_need_no_broker(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"k": "a"}\n{"k": "b"}\n')
    (tmp_path / "job.py").write_text(
        "import headrace.stream as hs\n"
        f"rows = hs.files({str(tmp_path / 'rows.jsonl')!r}, schema='k string')\n"
        f"pipeline = hs.pipeline('job', rows, sink=hs.parquet({str(tmp_path / 'out')!r}))\n"
    )
    ran = run("stream", "run", str(tmp_path / "job.py"), "--broker", "none")
    assert ran.code == 0 and "2 rows in, 2 out" in ran.err
    assert list((tmp_path / "out").rglob("*.parquet"))


def test_setting_out_of_range_names_the_flag(run: CommandLine, file: Path) -> None:
    ran = run("stream", "run", str(file), "--batch-rows", "0")
    assert ran.code == 2 and "--batch-rows" in ran.err


def test_defaults_of_the_settings_are_those_of_the_limits() -> None:
    settings = StreamSettings()
    assert settings.batch_rows == limits.BATCH_ROWS_DEFAULT
    assert settings.memory == limits.ENGINE_MEMORY_BYTES_DEFAULT
    assert settings.state_memory == limits.STATE_MEMORY_BYTES_DEFAULT
    assert settings.threads == limits.ENGINE_THREADS_DEFAULT


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    settings = describe(StreamSettings, "stream")
    flags = {"file": "`FILE.py"}  # the argument
    missing = [
        s.name for s in settings if flags.get(s.name, f"`{s.flag} ") not in page or f"`{s.variable}`" not in page
    ]
    assert missing == []


def test_live_line_tells_what_matters() -> None:
    sources = {"events": Progress(10, 7, "messages"), "old": Progress(250, 750, "bytes")}
    report = Report("p", 3, 1_000, 20, 1, 2, 123.4, 0, 2_048, sources, 4)
    assert line(report) == (
        "p: events 7 behind · old [####            ] 25% · 1,000 in (123/s) · 20 out · watermark 1970-01-01 00:00:00"
        " · state 2.0 KiB · 1 late, 2 dead · 4 batches to deliver"
    )
    assert "standing by" in line(Report("p", standby=True))
    assert line(Report("p", paused=True)).startswith("p: paused: ")
    assert bar(1.0) == f"[{'#' * 16}] 100%"
    assert [size(value) for value in (1, 5 * 2**20, 3 * 2**40)] == ["1 B", "5.0 MiB", "3,072.0 GiB"]


def test_time_left_is_told_by_how_fast_files_were_read() -> None:
    pace = Pace()
    report = Report("p", sources={"old": Progress(100, 900, "bytes"), "events": Progress(5, 5, "messages")})
    assert pace.left_s(report, 10.0) is None, "nothing was read yet"
    later = Report("p", sources={"old": Progress(400, 600, "bytes")})
    assert pace.left_s(later, 13.0) == 6.0
    assert "25% · 6s left" in line(Report("p", sources={"old": Progress(250, 750, "bytes")}), 6.0)
    assert pace.left_s(Report("p", sources={"old": Progress(1_000, 0, "bytes")}), 14.0) is None


def pipeline_state(
    rows_in: int, *, pid: int | None = None, host: str = "elsewhere/1", paused: bool = False
) -> PipelineState:
    processes = () if pid is None else (Process(host, pid, started_ticks(pid)),)
    source = SourceState("events", "events", rows_in, 0)
    return PipelineState("p", (source,), 1, rows_in // 10, 0, 0, 1_000, 0, paused, processes)


def test_live_list_has_rates_and_lag() -> None:
    before = Sample(1_000, {"p": pipeline_state(100)}, {"events": 9})
    now = Sample(3_000, {"p": pipeline_state(300)}, {"events": 7, "other": 5})
    [row] = rows(before, now)
    assert (row["in_rate"], row["out_rate"], row["lag"], row["last_commit_seconds"]) == (100, 10, 7, 2)
    [row] = rows(now, Sample(4_000, {"p": pipeline_state(0)}, {}))
    assert (row["in_rate"], row["lag"]) == (0, None), "it was reset, and the queue deleted"


def test_whether_a_pipeline_runs_is_told() -> None:
    here = f"{socket.gethostname()}/{boot_id()[:8]}"
    assert standing(pipeline_state(0)) == "stopped"
    assert standing(pipeline_state(0, pid=os.getpid(), host=here)) == "running"
    assert standing(pipeline_state(0, pid=os.getpid(), host=here, paused=True)) == "paused"
    assert standing(pipeline_state(0, pid=2**22 + 1, host=here)) == "lost", "no process has such an id"
    reused = msgspec.structs.replace(pipeline_state(0), processes=(Process(here, os.getpid(), started=1),))
    assert standing(reused) == "lost", "another process has the id now"
    assert standing(pipeline_state(0, pid=2**22 + 1)) == "running", "of another machine nobody knows"


def test_narrow_tables_break_lines_between_words_and_cut_no_numbers() -> None:
    row = {"pipeline": "delays", "lag": 1_234_567, "rows_in": 920_000, "watermark": "2013-01-02 01:00:00"}
    console = Console(width=48, file=io.StringIO())
    console.print(table([row], tuple(row)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "1,234,567" in text and "920,000" in text and "2013-01-02" in text and "…" not in text
