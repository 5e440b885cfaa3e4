"""`headrace doctor` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.doctor import disk
from tests.cli.conftest import CommandLine


def test_doctor_prints_a_line_for_each_thing_and_fails_on_problems(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_BROKER__PORT", "0")
    lines = run("doctor", "--data", str(tmp_path), "-o", "json").json
    assert {line["subject"] for line in lines} >= {
        "data folder",
        "sync",
        "descriptors",
        "clock",
        "versions",
        "settings",
    }
    monkeypatch.setattr(disk, "FREE_MIN_BYTES", 1 << 62)
    found = run("doctor", "--data", str(tmp_path), "-o", "table")
    assert found.code == 1 and "problem  room: " in found.out and "→ free some" in found.out
