"""How the tests are shared out among processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import LONG, rank_of, scope_of

ROOT = Path(__file__).parents[1]


def test_a_file_s_tests_run_in_one_process() -> None:
    assert scope_of("tests/sqs/test_x.py::TestA::test_b[c]") == "tests/sqs/test_x.py"


def test_all_tests_with_a_spark_session_run_in_one_process() -> None:
    files = [str(file.relative_to(ROOT)) for file in (ROOT / "tests/stream").rglob("test_*.py")]
    with_session = [file for file in files if "SparkSession" in (ROOT / file).read_text()]
    assert len(with_session) >= 5
    assert {scope_of(f"{file}::test_a") for file in with_session} == {"spark"}


def test_what_takes_long_begins_first() -> None:
    assert rank_of("tests/stream/spark/test_run.py::test_a") < rank_of("tests/cli/test_a.py::test_b")
    assert rank_of("tests/cli/test_a.py::test_b") < rank_of("tests/test_docs.py::test_a")


@pytest.mark.parametrize("path", LONG)
def test_what_begins_first_is_there(path: str) -> None:
    assert (ROOT / path).exists()
