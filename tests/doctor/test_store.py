"""What the doctor says of a broker's PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.doctor.parts import Wanted, look_at_parts
from headrace.doctor.store import look_at_store
from headrace.testing.postgres import databases, find_programs

psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")


@pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")
def test_database_that_the_settings_name_is_looked_at(tmp_path: Path) -> None:
    url = databases().of(tmp_path)
    wanted = Wanted({"HEADRACE_BROKER__STORE": url, "HEADRACE_BROKER__PORT": "0"}, tmp_path, None)
    lines = {line.subject: line for line in look_at_parts(wanted, tmp_path / "data")}
    assert lines["store, format"].level == "ok"
    assert lines["store, fsync"].level == "warning"


def test_database_that_is_away_is_a_problem_without_a_password() -> None:
    (line,) = look_at_store("postgresql://me:secret@127.0.0.1:1/nowhere")
    assert line.level == "problem"
    assert "127.0.0.1:1" in line.fact
    assert "secret" not in line.fact
