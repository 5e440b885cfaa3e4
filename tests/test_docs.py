"""The documents say what is there: links lead somewhere, examples run, names exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import headrace
from tests.broker_process import BrokerProcess
from tests.broker_process import broker as running
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with running(tmp_path / "data") as process:
        yield process


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_to_a_file(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_links_every_page_of_docs() -> None:
    linked = {target for target, _ in LINK.findall(README)}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_readme_has_examples_for_boto3_and_for_the_own_client() -> None:
    blocks = PYTHON.findall(README)
    assert ["boto3" in block for block in blocks] == [True, False, False, False]


@pytest.mark.parametrize("example", PYTHON.findall(README)[:2], ids=["boto3", "headrace"])
def test_readme_example_runs_against_a_broker(
    example: str, broker: BrokerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {}
    exec(example.replace("http://127.0.0.1:9324", broker.url), names)
    with headrace.connect(broker.url) as client:
        counts = client.queue("orders").counts()
    assert (counts.sent, counts.deleted, counts.visible, counts.in_flight) == (1, 1, 0, 0)
    assert ("7" in capsys.readouterr().out) == ("print" in example)


def test_readme_example_runs_without_a_broker_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = PYTHON.findall(README)[1].replace("http://127.0.0.1:9324", str(tmp_path / "store"))
    exec(example, {})
    assert capsys.readouterr().out == "{'book': 7}\n"


def test_readme_example_of_tasks_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "tasks"}
    exec(
        compile(
            PYTHON.findall(README)[2].replace("http://127.0.0.1:9324", str(tmp_path / "store")), "tasks.py", "exec"
        ),
        names,
    )
    handle = names["pack"].send("Emma", 2)
    names["app"].run_pending()
    assert handle.result(timeout=PATIENCE_S) == "packed 2 of Emma"
    names["app"].close()


def test_readme_example_of_streams_is_a_pipeline_that_counts(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(PYTHON.findall(README)[3], names)
    with headrace.connect(tmp_path / "store") as client:
        flights = client.queue("flights", create=True)
        flights.send_many([{"origin": "JFK", "dep_delay": delay, "ts": "2013-01-01T05:17:00"} for delay in (1, 5)])
        names["pipeline"].run(client, until="end")
        [message] = client.queue("delays").receive()
        assert message.json() == {"window_start": "2013-01-01T05:00:00.000000Z", "origin": "JFK", "n": 2, "delay": 3.0}


def test_make_tasks_in_the_documents_exist_and_are_listed_by_help() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert named <= targets


def test_continuous_integration_runs_lint_and_test() -> None:
    assert "make lint test" in (ROOT / ".ci" / "run").read_text()


def test_glossary_is_sorted_and_has_each_word_once() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [row for row in rows if row not in ("term", "---")]
    assert words == sorted(set(words), key=str.lower)


def test_architecture_names_every_part_of_the_package() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    skipped = {"__init__.py", "_version.py", "__main__.py", "__pycache__", "py.typed", "clock.py", "errors.py"}
    parts = [path for path in (ROOT / "src" / "headrace").iterdir() if path.name not in skipped]
    names = [f"`{path.name}/" if path.is_dir() else f"`{path.name}`" for path in parts]
    assert [name for name in names if name not in page] == []


def test_architecture_names_every_file_of_the_queue() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    files = [path.name for path in (ROOT / "src" / "headrace" / "queue").glob("*.py") if path.name != "__init__.py"]
    assert [name for name in files if name not in page] == []


def test_changelog_has_the_version() -> None:
    assert f"## [{headrace.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_pin_every_dependency_and_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.split(r"[\[>=<]", name)[0].lower() for name in wanted} - {"headrace"}
    assert names <= pinned, names - pinned
    assert [line for line in lines if "://" in line] == []


def test_each_action_of_the_log_is_documented() -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    actions = set(re.findall(r'(?:"action": |\baction=)"([a-z_]+\.[a-z_.]+)"', written))
    documented = (ROOT / "docs/operations.md").read_text()
    assert len(actions) > 20
    assert sorted(action for action in actions if f"`{action}`" not in documented) == []
