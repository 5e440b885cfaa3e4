from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import StoreUnusable
from headrace.process import COLLECT_EACH, notify_systemd, prepare_folder
from tests.patience import PATIENCE_S


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_folder_is_made_private(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


def test_an_empty_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    prepare_folder(tmp_path / "data")
    assert mode(tmp_path / "data") == 0o700


def test_a_filled_folder_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    prepare_folder(tmp_path)
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("bits", [0o770, 0o707, 0o1777])
def test_a_filled_folder_in_which_others_write_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(bits)
    with pytest.raises(StoreUnusable, match=f"mode {bits:04o}"):
        prepare_folder(tmp_path)
    tmp_path.chmod(0o700)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StoreUnusable):
            prepare_folder(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes wherever it likes")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreUnusable):
        prepare_folder(tmp_path)
    tmp_path.chmod(0o700)


def test_systemd_hears_by_path_and_by_abstract_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abstract = f"headrace-test-{os.getpid()}"
    for bound, told in ((str(tmp_path / "s"), str(tmp_path / "s")), (f"\0{abstract}", f"@{abstract}")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(PATIENCE_S)
            manager.bind(bound)
            monkeypatch.setenv("NOTIFY_SOCKET", told)
            notify_systemd("READY=1")
            assert manager.recv(100) == b"READY=1"


def test_a_manager_that_went_away_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    notify_systemd("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify_systemd("READY=1")


def test_what_is_imported_is_never_looked_through_for_cycles() -> None:
    code = "import gc; from headrace import process; process.collect_seldom(); print(gc.get_freeze_count(), *gc.get_threshold())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    frozen, first, *_ = map(int, told.split())
    assert frozen > 1_000
    assert first == COLLECT_EACH
