from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw
import pytest

from headrace.errors import StoreDamaged
from headrace.queue.store.wal import PAGE_BYTES, check_wal, wal_path
from headrace.queue.store.wal_format import FRAME_HEADER_BYTES, HEADER_BYTES, Wal, checksum, scan
from headrace.testing.driver import StoreDriver, entry
from headrace.testing.stores import SQLITE
from tests.queue.store.bit_rot import FRAME_BYTES, HOUR_MS, PLAIN, Sample, judge, make_sample
from tests.queue.store.bit_rot import Damage as SampleDamage

SEED: Final = int(os.environ.get("HEADRACE_SEED", "20241124"))

Damage = Callable[[bytearray], None]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A killed store: all that it has is in a WAL of some fifty frames."""
    return make_sample(tmp_path_factory.mktemp("wal") / "sample", messages=20, killed=True)


@pytest.fixture
def database(sample: Sample, tmp_path: Path) -> Path:
    """A copy of the sample's database and WAL, without a broker's folder."""
    for name in ("headrace.db", "headrace.db-wal"):
        (tmp_path / name).write_bytes((sample.folder / name).read_bytes())
    return tmp_path / "headrace.db"


def mended(database: Path, damage: Damage, *, tail: bool = False) -> tuple[bytes, bytes, int]:
    """(the WAL before the damage, the WAL after the check, how many frames were not mended)."""
    path = wal_path(database)
    before = path.read_bytes()
    data = bytearray(before)
    damage(data)
    path.write_bytes(data)
    unmended = check_wal(database, keep=lambda: database.parent, tail=tail)
    return before, path.read_bytes(), unmended


def whole(data: bytes) -> bool:
    wal = scan(bytearray(data))
    return wal is not None and all(frame.good for frame in wal.frames)


def rows(database: Path) -> list[tuple[object, ...]]:
    with closing(apsw.Connection(str(database))) as connection:
        return list(connection.execute("SELECT * FROM message ORDER BY key"))


# --- format ---


def test_checksums_of_all_frames_at_once_agree_with_one_by_one(database: Path) -> None:
    data = bytearray(wal_path(database).read_bytes())
    wal = scan(data)
    assert wal is not None and len(wal.frames) > 20
    assert all(frame.good for frame in wal.frames)
    assert all(wal.computed(index, wal.stored(index - 1)) == wal.stored(index) for index in range(len(wal.frames)))


@pytest.mark.parametrize("hit", [0, 1, 7, 8, 20])
def test_frame_that_does_not_check_is_told_apart(database: Path, hit: int) -> None:
    data = bytearray(wal_path(database).read_bytes())
    data[HEADER_BYTES + hit * FRAME_BYTES + 1_000] ^= 4
    wal = scan(data)
    assert wal is not None
    assert [index for index, frame in enumerate(wal.frames) if not frame.good] == [hit]


def test_big_endian_checksums_are_read(database: Path) -> None:
    """What a big-endian machine would have written: other magic, sums over swapped words."""
    data = bytearray(wal_path(database).read_bytes())
    struct.pack_into(">I", data, 0, 0x377F0683)
    wal = Wal(data, PAGE_BYTES, big_endian=True)
    wal.store(-1, checksum(wal.words(0, 24), 0, 0))
    count = (len(data) - HEADER_BYTES) // FRAME_BYTES
    for index in range(count):
        wal.store(index, wal.computed(index, wal.stored(index - 1)))
    found = scan(data)
    assert found is not None and len(found.frames) == count
    assert all(frame.good for frame in found.frames)


def test_frames_of_an_earlier_generation_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("CREATE TABLE t (x)")
        for _ in range(20):
            connection.execute("INSERT INTO t VALUES (zeroblob(3000))")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        connection.execute("INSERT INTO t VALUES (1)")
        wal = scan(bytearray(wal_path(path).read_bytes()))
        assert wal is not None and 0 < len(wal.frames) < 5
        assert all(frame.good for frame in wal.frames)


@pytest.mark.parametrize("data", [b"", b"\x37\x7f\x06\x82", bytes(HEADER_BYTES + FRAME_BYTES)])
def test_file_that_is_no_wal_is_left_alone(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.db").touch()
    wal_path(tmp_path / "x.db").write_bytes(data)
    assert check_wal(tmp_path / "x.db", keep=lambda: pytest.fail("nothing is to be kept")) == 0
    assert wal_path(tmp_path / "x.db").read_bytes() == data


def test_good_wal_is_not_touched(database: Path) -> None:
    before = wal_path(database).read_bytes()
    assert check_wal(database, keep=lambda: pytest.fail("nothing is to be kept"), tail=False) == 0
    assert wal_path(database).read_bytes() == before


# --- mending ---


@pytest.mark.parametrize("position", range(HEADER_BYTES))
@pytest.mark.parametrize("value", [0x01, 0x80, 0xFF])
def test_header_is_mended(database: Path, position: int, value: int) -> None:
    def damage(data: bytearray) -> None:
        data[position] ^= value

    before, after, unmended = mended(database, damage)
    assert after == before
    assert unmended == 0


def test_flip_in_any_part_of_any_frame_is_mended(database: Path) -> None:
    """A stride that meets every byte of a frame's header, and pages at every distance modulo 4."""
    original = wal_path(database).read_bytes()
    wal = scan(bytearray(original))
    assert wal is not None
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    wrong = []
    positions = [
        HEADER_BYTES + index * FRAME_BYTES + at
        for index in range(len(wal.frames))
        for at in [index % FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + chance.randrange(PAGE_BYTES)]
    ]
    for position in positions:
        bit = 1 << chance.randrange(8)

        def damage(data: bytearray, position: int = position, bit: int = bit) -> None:
            data[position] ^= bit

        _, after, _ = mended(database, damage, tail=True)
        wrong += [] if whole(after) and same_messages(original, after) else [(position, bit)]
        wal_path(database).write_bytes(original)
    assert not wrong


def same_messages(original: bytes, after: bytes) -> bool:
    """Whether the files differ at most in one word, which may lie between the cells of a page."""
    return sum(one != other for one, other in zip(original, after, strict=True)) <= 8


def test_flipped_top_bits_are_put_right_in_the_row_that_does_not_check(tmp_path: Path) -> None:
    """Changes of a word's top bits fit many places of a page: the rows' own checksums tell which."""
    driver = StoreDriver(SQLITE, tmp_path)
    queue = driver.create("q")
    bodies = [b"%d:" % number + random.Random(number).randbytes(700) for number in range(20)]
    driver.send_all(queue, [entry(body) for body in bodies])
    driver.send(queue, "behind")
    database = driver.folder / "headrace.db"
    content = wal_path(database).read_bytes()
    for number in range(0, 20, 3):
        at = content.rindex(bodies[number][100:400])
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        (copy / "headrace.db").write_bytes(database.read_bytes())
        damaged = bytearray(content)
        at += -(at - HEADER_BYTES) % 4 + 3  # the top byte of a little-endian word
        damaged[at] ^= 0x80
        wal_path(copy / "headrace.db").write_bytes(damaged)
        assert check_wal(copy / "headrace.db", keep=lambda copy=copy: copy, tail=True) == 0  # type: ignore[misc]
        assert {row[2] for row in rows(copy / "headrace.db")} == {*bodies, b"behind"}
    driver.close()


def test_torn_tail_is_left_to_sqlite(database: Path) -> None:
    """The last commit alone may be torn by a power cut: nobody was told that it is done."""
    data = wal_path(database).read_bytes()
    wal = scan(bytearray(data))
    assert wal is not None

    def tear(data: bytearray) -> None:
        at = wal.offset(len(wal.frames) - 1) + 2_000
        data[at : at + 512] = bytes(range(256)) * 2

    _, after, unmended = mended(database, tear)
    assert unmended == 0
    found = scan(bytearray(after))
    assert found is not None and not found.frames[-1].good


def test_last_commit_is_mended_when_it_was_acknowledged(database: Path) -> None:
    wal = scan(bytearray(wal_path(database).read_bytes()))
    assert wal is not None

    def damage(data: bytearray) -> None:
        data[wal.offset(len(wal.frames) - 1) + 2_000] ^= 1

    before, after, unmended = mended(database, damage, tail=True)
    assert (after, unmended) == (before, 0)


def test_frame_whose_page_nobody_knows_is_refused_and_nothing_changed(database: Path) -> None:
    def damage(data: bytearray) -> None:
        start = HEADER_BYTES + 22 * FRAME_BYTES
        data[start : start + 2 * FRAME_BYTES] = bytes(2 * FRAME_BYTES)

    path = wal_path(database)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match="cannot be mended"):
        check_wal(database, keep=lambda: database.parent)
    assert path.read_bytes() == data
    assert check_wal(database, keep=lambda: database.parent, acknowledged=False) > 0
    assert path.read_bytes() == data


# --- in a store ---


@pytest.mark.parametrize("filling", ["zeros", "noise"])
@pytest.mark.parametrize("part", ["header", "page", "sector with a frame's header"])
def test_lost_sector_costs_at_most_its_page(sample: Sample, tmp_path: Path, part: str, filling: str) -> None:
    wal = scan(bytearray((sample.folder / "headrace.db-wal").read_bytes()))
    assert wal is not None
    refused = []
    for index in range(0, len(wal.frames) - 1, 7):
        start = wal.offset(index)
        offset = {"header": start, "page": start + FRAME_HEADER_BYTES}.get(part, start - start % 512)
        size = {"header": 8, "page": PAGE_BYTES}.get(part, 512)
        data = bytes(size) if filling == "zeros" else random.Random(index).randbytes(size)
        verdict = judge(sample, SampleDamage("headrace.db-wal", offset, data), tmp_path / f"{index}")
        assert not verdict.wrong, (index, verdict.wrong)
        refused += [index] if verdict.refused else []
    # With header and page both hit, what is left of a page must tell which it was.
    assert len(refused) <= (1 if part.startswith("sector") else 0), refused


def test_lost_header_costs_nothing(sample: Sample, tmp_path: Path) -> None:
    for data in (bytes(HEADER_BYTES), b"\x5a" * HEADER_BYTES):
        verdict = judge(sample, SampleDamage("headrace.db-wal", 0, data), tmp_path / f"{data[0]}")
        assert (verdict.refused, verdict.missing, verdict.wrong) == ("", 0, [])


def test_mended_wal_keeps_a_copy_of_the_damaged_one(sample: Sample, tmp_path: Path) -> None:
    data = bytearray((sample.folder / "headrace.db-wal").read_bytes())
    data[HEADER_BYTES + 20 * FRAME_BYTES + 300] ^= 1

    def prepare(folder: Path) -> None:
        for path in sample.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "headrace.db-wal").write_bytes(data)

    driver = StoreDriver(SQLITE, tmp_path, now_ms=sample.now_ms, prepare=prepare)
    kept = list(driver.folder.glob("damaged-*/headrace.db-wal"))
    assert [path.read_bytes() for path in kept] == [bytes(data)]
    driver.pass_time(HOUR_MS)
    assert {one.message.body for one in driver.peek(PLAIN)} <= sample.alive.keys()
    driver.close()
