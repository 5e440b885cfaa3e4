"""Limits, groups, the clock, versions."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from headrace.clock import Anchor, boot_id, uptime_ns
from headrace.doctor.machine import (
    UNSYNCHRONISED,
    judge_libraries,
    judge_limit,
    judge_step,
    judge_synchronised,
    look_at_cgroup,
    within,
)


def test_limit_below_what_a_server_needs_is_a_warning() -> None:
    levels = [
        judge_limit("descriptors", limit, 4_096, "nofile").level for limit in (1_024, 4_096, resource.RLIM_INFINITY)
    ]
    assert levels == ["warning", "ok", "ok"]


def test_tightest_limit_of_the_groups_above_counts(tmp_path: Path) -> None:
    inner = tmp_path / "root" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text(f"{100 << 20}\n")
    (inner / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "membership").write_text("0::/a/b\n")
    cpu, memory = look_at_cgroup(tmp_path / "membership", tmp_path / "root")
    assert cpu.fact.endswith("limited to 1.5")
    assert (memory.level, memory.fact) == ("warning", "limited to 100 MiB")


def test_clock_that_nobody_keeps_and_one_that_was_set() -> None:
    assert [judge_synchronised(state).level for state in (UNSYNCHRONISED, 0, None)] == ["warning", "ok", "ok"]
    anchor = Anchor(boot_id(), uptime_ns(), 1_000_000_000)
    assert judge_step(anchor, wall_ms=1_000_000_000).level == "ok"
    assert "60 s behind the wall clock" in judge_step(anchor, wall_ms=1_000_060_000).fact


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("1.5.0", ">=1.5,<3", True),
        ("1.4.9", ">=1.5,<3", False),
        ("3.0", ">=1.5,<3", False),
        ("3.54.1.0", ">=3.50", True),
    ],
)
def test_versions_are_compared_by_number(version: str, bounds: str, fits: bool) -> None:
    assert within(version, bounds) == fits


def test_missing_library_of_the_base_is_a_problem_and_of_an_extra_is_none() -> None:
    wanted = ["apsw>=3.50", "duckdb<3,>=1.5; extra == 'stream'"]
    assert [line.level for line in judge_libraries(wanted, {"apsw": "3.51"})] == ["ok"]
    assert [line.level for line in judge_libraries(wanted, {})] == ["problem"]
    assert [line.fact for line in judge_libraries(wanted, {"apsw": "3.51", "duckdb": "3.0"})] == ["duckdb is 3.0"]
