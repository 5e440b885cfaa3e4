"""What the doctor says of a data folder and its disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.doctor.disk import (
    existing,
    file_system,
    judge_file_system,
    judge_folder,
    judge_room,
    judge_syncs,
    look_at_disk,
    sync_times,
)

MOUNTS = """\
21 1 0:20 / / rw,relatime - overlay overlay rw
22 21 0:21 / /var/lib rw - ext4 /dev/vda rw
23 21 0:22 / /var/lib/head\\040race rw - nfs4 host:/x rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "level"),
    [
        ("/var/lib/headrace", "ext4", "ok"),
        ("/var/lib/head race/data", "nfs4", "problem"),
        ("/home", "overlay", "warning"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(folder: str, kind: str, level: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind
    assert judge_file_system(kind).level == level


def test_memory_is_no_disk() -> None:
    assert judge_file_system("tmpfs").level == "problem"


@pytest.mark.parametrize(("free", "level"), [(10 << 20, "problem"), (500 << 20, "warning"), (5 << 30, "ok")])
def test_little_room_is_told(free: int, level: str) -> None:
    assert judge_room(free, 100 << 30).level == level


@pytest.mark.parametrize(("seconds", "level"), [(5e-6, "warning"), (2e-4, "ok"), (0.05, "warning")])
def test_syncs_that_are_too_fast_to_be_true_or_slow_are_told(seconds: float, level: str) -> None:
    assert judge_syncs([seconds] * 100, "ext4").level == level


def test_folder_open_to_others_and_missing_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert existing(data / "deeper") == tmp_path
    assert [line.level for line in judge_folder(data, tmp_path)] == ["ok"]
    data.mkdir(mode=0o755)
    [line] = judge_folder(data, data)
    assert (line.level, line.advice) == ("warning", f"chmod 700 {data}")


def test_look_leaves_nothing_behind(tmp_path: Path) -> None:
    assert {line.subject for line in look_at_disk(tmp_path, "")} >= {"data folder", "file system", "room", "sync"}
    assert len(sync_times(tmp_path, count=5)) == 5
    assert list(tmp_path.iterdir()) == []
