"""Folders to spill into, and those that were left."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from headrace.stream.engine.queries import spill_folder


def test_what_a_killed_process_left_is_removed_and_what_is_used_or_new_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, new = tmp_path / "headrace-stream-left", tmp_path / "headrace-stream-new"
    for folder in (left, new):
        folder.mkdir()
        (folder / "spilled").touch()
    os.utime(left, (0, 0))
    with spill_folder() as used:
        os.utime(used, (0, 0))
        with spill_folder() as other:
            assert set(tmp_path.iterdir()) == {new, Path(used), Path(other)}
    assert list(tmp_path.iterdir()) == [new]
