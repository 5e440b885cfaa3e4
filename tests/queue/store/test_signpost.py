"""A folder whose broker is on a database: nobody opens, copies or checks a store there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import headrace
from headrace.errors import StoreUnusable
from headrace.queue.store import signpost
from headrace.queue.store.backup import take_backup
from headrace.queue.store.fsck import examine

PLACE = "postgresql://me@db/queues"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda folder: headrace.connect(folder).close(), id="open"),
        pytest.param(lambda folder: examine(folder, progress=lambda *_: None), id="fsck"),
        pytest.param(
            lambda folder: take_backup(folder, folder.parent / "copy", version="1", progress=lambda *_: None),
            id="backup",
        ),
    ],
)
def test_whoever_wants_the_store_is_told_where_it_is(tmp_path: Path, use: Callable[[Path], object]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    signpost.put(folder, PLACE)
    with pytest.raises(StoreUnusable, match=f"in {PLACE}; start that one"):
        use(folder)
    assert [path.name for path in folder.iterdir()] == [signpost.NAME]


def test_folder_whose_signpost_is_removed_has_a_store_again(tmp_path: Path) -> None:
    signpost.put(tmp_path, PLACE)
    (tmp_path / signpost.NAME).unlink()
    headrace.connect(tmp_path).close()


def test_signpost_that_is_there_is_not_written_again_and_another_place_is(tmp_path: Path) -> None:
    signpost.put(tmp_path, PLACE)
    before = (tmp_path / signpost.NAME).stat().st_ino
    signpost.put(tmp_path, PLACE)
    assert (tmp_path / signpost.NAME).stat().st_ino == before
    signpost.put(tmp_path, "postgresql://other/db")
    assert (tmp_path / signpost.NAME).read_text() == "postgresql://other/db\n"


def test_nodes_that_start_together_may_share_a_folder(tmp_path: Path) -> None:
    """Each writes beside the file: under one name, one renamed what the other was about to."""
    places = [f"postgresql://host-{number}/db" for number in range(4)]

    def put_often(place: str) -> None:
        for _ in range(50):
            signpost.put(tmp_path, place)

    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(put_often, places))
    assert (tmp_path / signpost.NAME).read_text().strip() in places
    assert [path.name for path in tmp_path.iterdir()] == [signpost.NAME]
