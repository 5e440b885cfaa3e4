"""The guide's examples run, in its order, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import headrace
import headrace.stream as hs
from headrace.cli.stream_tests import run_tests
from tests.stream.runner.conftest import client as client  # noqa: PLC0414 (a fixture)

DOCS = Path(__file__).parents[2] / "docs"
FLIGHT = {"origin": "JFK", "carrier": "UA", "dep_delay": 75.0, "ts": "2013-01-01T05:17:00"}


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_guide_runs_from_top_to_bottom(
    client: headrace.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client.queue("flights", create=True).send_many([FLIGHT, b"no JSON"])
    names: dict[str, Any] = {"client": client}
    for block in examples("stream.md"):
        text = block.replace('"http://127.0.0.1:9324"', "client").replace('"./data"', "client")
        exec(compile(text, "stream.md", "exec"), names)
    assert {name for name, value in names.items() if isinstance(value, hs.Pipeline)} == {"pipeline", "cities"}
    [dead] = client.queue("delays-dead").receive()
    assert dead.json()["body"] == "no JSON"


def test_the_tests_of_the_guide_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = examples("stream.md")
    file = tmp_path / "delays.py"
    file.write_text(blocks[0] + next(block for block in blocks if block.startswith("def test_")))
    assert run_tests(file) == 0
    assert capsys.readouterr().err == "3 passed, 0 failed\n"


def test_pipeline_of_the_page_about_spark_runs_there_and_that_of_the_guide_does_not() -> None:
    restrictions_of = pytest.importorskip("headrace.stream.spark.restrictions").restrictions_of
    pages: list[dict[str, Any]] = [{}, {}]
    for page, names in zip(("spark.md", "stream.md"), pages, strict=True):
        exec(compile(examples(page)[0], page, "exec"), names)
    assert restrictions_of(pages[0]["pipeline"].plan) == []
    assert [refusal.construct for refusal in restrictions_of(pages[1]["pipeline"].plan)] == ["idle"]


def test_sources_of_the_page_about_them_can_be_written() -> None:
    [block] = examples("stream-connectors.md")
    names: dict[str, Any] = {}
    exec(compile(block, "stream-connectors.md", "exec"), names)
    assert isinstance(names["log"], hs.Stream) and isinstance(names["users"], hs.Table)
