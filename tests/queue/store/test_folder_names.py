"""A folder that would be named by an address, by a slip, is not made: what is sent would be where nobody looks."""

from __future__ import annotations

from pathlib import Path

import pytest

import headrace
from headrace.errors import StoreUnusable
from headrace.process import prepare_folder
from headrace.queue.store.folder import Folder
from headrace.queue.store.new_folder import must_be_free

ADDRESSES = (
    "localhost:9324",
    "10.0.0.7:9324",
    "postgresql://shop:secret@db/queues",
    "http://localhost:9324",
    "sqlite:///x",
)


@pytest.mark.parametrize("name", ADDRESSES)
def test_address_is_no_folder(tmp_path: Path, name: str) -> None:
    for make in (Folder, must_be_free, prepare_folder):
        with pytest.raises(StoreUnusable, match="that is an address, and no folder") as refused:
            make(tmp_path / name)
        assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_client_says_how_a_broker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnusable, match="http://HOST:PORT"):
        headrace.connect("localhost:9324", patience=0)


def test_folder_that_is_there_opens_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "localhost:9324").mkdir(mode=0o700)
    Folder(tmp_path / "localhost:9324").close()


@pytest.mark.parametrize("name", ["data", "10:30", "a:b", "2026-11-26T21:34", "shop.example"])
def test_other_names_are_folders(tmp_path: Path, name: str) -> None:
    must_be_free(tmp_path / name)
