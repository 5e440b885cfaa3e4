"""A look at the WAL before SQLite opens it.

SQLite takes a WAL up to the first frame that does not check and forgets the rest in silence: one flipped byte cost 37
of 40 acknowledged commits. But only the torn tail of the last commit may be missing after a crash, because a commit
begins after the one before is synced. So a bad frame with good commits behind it is damage, and it can be mended: the
checksum of each frame continues from the one before, which stands in that frame's header. A frame whose page was hit by
one wrong 32-bit word is restored exactly (the checksums are linear in the words, so they tell which word, and by how
much). Source: sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from headrace.queue.store import files

log = logging.getLogger("headrace.store")

HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
MAGIC: Final = 0x377F0682  # the last bit tells the byte order of the checksums: 1 is big-endian
_MASK: Final = 0xFFFFFFFF


class Frame(msgspec.Struct, frozen=True):
    """Where a frame stands, and whether it checks. `commit_pages`: not 0 in the last frame of a commit."""

    offset: int
    page: int
    commit_pages: int
    good: bool


class Wal(msgspec.Struct):
    """A WAL file taken apart: `frames` of the present generation, good and bad, in order."""

    data: bytearray
    page_size: int
    big_endian: bool
    frames: list[Frame] = []

    def words(self, start: int, end: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{'>' if self.big_endian else '<'}{(end - start) // 4}I", self.data, start)


def check_wal(database: Path, *, keep: Callable[[], Path], tail: bool = False) -> int:
    """Mend the WAL of `database` if it is damaged. Call before SQLite opens it, with nobody else having it open.

    A frame that cannot be mended keeps its wrong page: what lies on it is found damaged when it is read, and every
    commit behind it stands.

    Args:
        keep: copies the folder's files aside before anything is changed, and says where.
        tail: the last commit was acknowledged, so bad frames at the end are damage too, not a torn write.

    Returns:
        How many frames were damaged.
    """
    path = database.with_name(database.name + "-wal")
    wal = read(path) if path.exists() else None
    if wal is None:
        return 0
    damaged = [
        index for index, frame in enumerate(wal.frames) if not frame.good and (tail or _commits_behind(wal, index) > 1)
    ]
    if not damaged:
        return 0
    kept = keep()
    for index in damaged:
        frame = wal.frames[index]
        mended = mend(wal, frame)
        if not mended:
            rechain(wal, index)
        log.error(
            "WAL frame at byte %d (page %d) was damaged and %s; a copy of the files is in %s", frame.offset, frame.page,
            "has been mended" if mended else "its page cannot be mended", kept, extra={"action": "wal.damaged"},
        )  # fmt: skip
    fd = os.open(path, os.O_RDWR)
    try:
        files.overwrite(fd, bytes(wal.data))
        files.sync_data(fd)
    finally:
        os.close(fd)
    return len(damaged)


def _commits_behind(wal: Wal, index: int) -> int:
    """How many whole commits follow a frame. The last commit alone may be torn: its frames were not synced yet."""
    return sum(1 for frame in wal.frames[index + 1 :] if frame.good and frame.commit_pages)


def rechain(wal: Wal, index: int) -> None:
    """Let the checksums agree with what the frames from `index` on hold, damaged or not."""
    size = FRAME_HEADER_BYTES + wal.page_size
    for frame in wal.frames[index:]:
        offset = frame.offset
        before = struct.unpack_from(">2I", wal.data, offset - size + 16 if offset > HEADER_BYTES else 24)
        wal.data[offset + 8 : offset + 16] = wal.data[16:24]
        struct.pack_into(">2I", wal.data, offset + 16, *_frame_checksum(wal, offset, before))


def read(path: Path) -> Wal | None:
    """The WAL's frames, or None when there is nothing that SQLite would read."""
    data = bytearray(path.read_bytes())
    if len(data) < HEADER_BYTES + FRAME_HEADER_BYTES:
        return None
    magic, _version, page_size, _number, salt_1, salt_2, sum_0, sum_1 = struct.unpack_from(">8I", data)
    if magic & ~1 != MAGIC or not page_size:
        return None
    wal = Wal(data, page_size, bool(magic & 1))
    if checksum(wal.words(0, 24), 0, 0) != (sum_0, sum_1):
        return None
    before = (sum_0, sum_1)
    offset, size = HEADER_BYTES, FRAME_HEADER_BYTES + page_size
    while offset + size <= len(data):
        page, commit_pages, frame_salt_1, frame_salt_2, sum_0, sum_1 = struct.unpack_from(">6I", data, offset)
        computed = _frame_checksum(wal, offset, before)
        good = computed == (sum_0, sum_1) and (frame_salt_1, frame_salt_2) == (salt_1, salt_2)
        if not good and (frame_salt_1, frame_salt_2) != (salt_1, salt_2) and not _follows(wal, offset, computed):
            break  # a frame of an earlier generation: the end
        wal.frames.append(Frame(offset, page, commit_pages, good))
        before = (sum_0, sum_1)
        offset += size
    return wal


def _follows(wal: Wal, offset: int, computed: tuple[int, int]) -> bool:
    """Whether the next frame checks as a successor of this one: then only this one's salts are damaged."""
    next_offset = offset + FRAME_HEADER_BYTES + wal.page_size
    if next_offset + FRAME_HEADER_BYTES + wal.page_size > len(wal.data):
        return False
    stored = struct.unpack_from(">2I", wal.data, offset + 16)
    following = struct.unpack_from(">2I", wal.data, next_offset + 16)
    salts = bytes(wal.data[16:24])
    return (
        computed == stored
        and bytes(wal.data[next_offset + 8 : next_offset + 16]) == salts
        and _frame_checksum(wal, next_offset, stored) == following
    )


def checksum(words: tuple[int, ...], sum_0: int, sum_1: int) -> tuple[int, int]:
    """SQLite's WAL checksum over pairs of 32-bit words, continued from (sum_0, sum_1)."""
    for index in range(0, len(words), 2):
        sum_0 = (sum_0 + words[index] + sum_1) & _MASK
        sum_1 = (sum_1 + words[index + 1] + sum_0) & _MASK
    return sum_0, sum_1


def _frame_checksum(wal: Wal, offset: int, before: tuple[int, int]) -> tuple[int, int]:
    """What the checksum of the frame at `offset` should be: over 8 bytes of its header, then its page."""
    start = offset + FRAME_HEADER_BYTES
    return checksum(wal.words(offset, offset + 8) + wal.words(start, start + wal.page_size), *before)


def mend(wal: Wal, frame: Frame) -> bool:
    """Put a damaged frame right, in `wal.data`: by its salts, its stored checksum, or one word of what it covers."""
    index = wal.frames.index(frame)
    offset = frame.offset
    size = FRAME_HEADER_BYTES + wal.page_size
    before_offset = offset - size + 16 if index else 24
    before = struct.unpack_from(">2I", wal.data, before_offset)
    wal.data[offset + 8 : offset + 16] = wal.data[16:24]
    stored = struct.unpack_from(">2I", wal.data, offset + 16)
    computed = _frame_checksum(wal, offset, before)
    if computed == stored:
        return True
    if _next_agrees(wal, index, computed):
        struct.pack_into(">2I", wal.data, offset + 16, *computed)
        return True
    last = index + 1 == len(wal.frames)
    return (last or _next_agrees(wal, index, stored)) and _mend_word(wal, offset, before, stored, computed)


def _next_agrees(wal: Wal, index: int, sums: tuple[int, int]) -> bool:
    """Whether the frame behind checks when this one's checksum is `sums`."""
    if index + 1 >= len(wal.frames):
        return False
    following = wal.frames[index + 1].offset
    return _frame_checksum(wal, following, sums) == struct.unpack_from(">2I", wal.data, following + 16)


def _mend_word(
    wal: Wal, offset: int, before: tuple[int, int], stored: tuple[int, int], computed: tuple[int, int]
) -> bool:
    """Find the one word whose change explains the difference of the sums, and undo it.

    A change d of word i adds f(n)·d and f(n+1)·d to the sums, f the Fibonacci numbers, n fixed by the place of i.
    """
    difference = ((stored[0] - computed[0]) & _MASK, (stored[1] - computed[1]) & _MASK)
    start = offset + FRAME_HEADER_BYTES
    places = [offset, offset + 4, *range(start, start + wal.page_size, 4)]
    order = ">I" if wal.big_endian else "<I"
    factors = _factors(len(places))
    for place, (factor_0, factor_1) in zip(places, factors, strict=True):
        change = _solve(factor_0, factor_1, difference)
        if change is None:
            continue
        (word,) = struct.unpack_from(order, wal.data, place)
        struct.pack_into(order, wal.data, place, (word + change) & _MASK)
        if _frame_checksum(wal, offset, before) == stored:
            return True
        struct.pack_into(order, wal.data, place, word)
    return False


def _factors(count: int) -> list[tuple[int, int]]:
    """For each word of `count`: by how much a change of 1 in it changes the two sums at the end."""
    out = []
    from_0, from_1 = (1, 0), (0, 1)  # what a change of sum_0, of sum_1 at this point does to both at the end
    for _ in range(count // 2):
        # one step back: sum_0' = sum_0 + w0 + sum_1 ; sum_1' = sum_1 + w1 + sum_0'
        word_1 = from_1
        word_0 = ((from_0[0] + from_1[0]) & _MASK, (from_0[1] + from_1[1]) & _MASK)
        out += [word_1, word_0]
        from_0, from_1 = word_0, ((word_0[0] + from_1[0]) & _MASK, (word_0[1] + from_1[1]) & _MASK)
    return out[::-1]


def _solve(factor_0: int, factor_1: int, difference: tuple[int, int]) -> int | None:
    """The change d with factor_0·d and factor_1·d equal to both differences, modulo 2^32."""
    factor, wanted = (factor_0, difference[0]) if factor_0 & 1 else (factor_1, difference[1])
    if not factor & 1:
        return None
    change = wanted * pow(factor, -1, 1 << 32) & _MASK
    fits = factor_0 * change & _MASK == difference[0] and factor_1 * change & _MASK == difference[1]
    return change if fits else None
