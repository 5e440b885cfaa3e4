"""What the doctor says of a broker's PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.doctor.services import Wanted, look_at_services
from headrace.doctor.store import look_at_store
from headrace.testing.postgres import databases, find_programs, server

psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")


@pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")
def test_database_that_the_settings_name_is_looked_at(tmp_path: Path) -> None:
    url = databases().of(tmp_path)
    wanted = Wanted({"HEADRACE_BROKER__STORE": url, "HEADRACE_BROKER__PORT": "0"}, tmp_path, None)
    lines = {line.subject: line for line in look_at_services(wanted, tmp_path / "data")}
    assert lines["store, format"].level == "ok"
    assert lines["store, fsync"].level == "warning"


@pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")
def test_all_databases_of_a_divided_store_are_looked_at_once(tmp_path: Path) -> None:
    one, other = databases().of(tmp_path), server().url()
    settings = f'[broker]\nport = 0\nstore = "{one}"\nstore_of = ["a*={other}", "b*={other}", "c*={one}"]\n'
    (tmp_path / "headrace.toml").write_text(settings)
    subjects = [line.subject for line in look_at_services(Wanted({}, tmp_path, None), tmp_path / "data")]
    assert [one for one in subjects if one.endswith(", format")] == ["store, format", "store of a*, format"]


def test_database_that_is_away_is_a_problem_without_a_password() -> None:
    (line,) = look_at_store("store", "postgresql://me:secret@127.0.0.1:1/nowhere")
    assert line.level == "problem"
    assert "127.0.0.1:1" in line.fact
    assert "secret" not in line.fact
