"""Putting a damaged WAL right, by what its checksums tell.

Each checksum continues from the one before, and both stand in the file; the next frame tells whether a stored one is
right. The sums are linear in the words that they cover, so a single wrong word is found and restored; where a change of
its high bits could stand in several places, other frames and the rows' own checksums tell which (`wal_evidence.py`). What
cannot be restored keeps its place: its page is written as it is, checksums are made to agree, and every commit behind it
stands.
"""

from __future__ import annotations

import struct
from pathlib import Path

from headrace.queue.store.wal_evidence import Fix, header_possible, most_likely, page_stands
from headrace.queue.store.wal_format import FRAME_HEADER_BYTES, HEADER_BYTES, MAGIC, MASK, VERSION, Sums, Wal, checksum

# --- the header ---


def mend_header(data: bytearray, page_size: int) -> bool:
    """Put the 32-byte header right, in place. Its salts stand in every frame, the first frame's checksum continues from
    its own, the rest is known. Whether anything was changed.

    Args:
        page_size: of the database, in bytes.
    """
    frames = [HEADER_BYTES + index * (FRAME_HEADER_BYTES + page_size) for index in range(3)]
    if len(data) < frames[1] or _header_checks(data):
        return False
    before = bytes(data[:HEADER_BYTES])
    present = [
        offset
        for offset in frames[:2]
        if offset + FRAME_HEADER_BYTES + page_size <= len(data) and any(data[offset : offset + FRAME_HEADER_BYTES])
    ]
    for surely in (True, False):
        for offset in present:
            for big_endian in (False, True):
                data[16:24] = data[offset + 8 : offset + 16]
                struct.pack_into(">3I", data, 0, MAGIC | big_endian, VERSION, page_size)
                wal = Wal(data, page_size, big_endian)
                if _settle_header(wal) if surely else _rebuild_header(wal):
                    return True
                data[:HEADER_BYTES] = before
    return False


def _header_checks(data: bytearray) -> bool:
    magic, _version, page_size = struct.unpack_from(">3I", data)
    if magic & ~1 != MAGIC or not page_size:
        return False
    wal = Wal(data, page_size, bool(magic & 1))
    return checksum(wal.words(0, 24), 0, 0) == wal.stored(-1)


def _settle_header(wal: Wal) -> bool:
    """With magic, version, page size and salts as they must be: is the header whole, or its checksum or number known?"""
    computed, stored = checksum(wal.words(0, 24), 0, 0), wal.stored(-1)
    if computed == stored:
        return True
    if wal.computed(0, computed) == wal.stored(0):
        wal.store(-1, computed)
        return True
    if wal.computed(0, stored) != wal.stored(0):
        return False
    change = _solve(*_factors(6)[3], _difference(stored, computed))
    if change is not None:
        order = ">" if wal.big_endian else "<"
        (number,) = struct.unpack_from(f"{order}I", wal.data, 12)
        struct.pack_into(f"{order}I", wal.data, 12, (number + change) & MASK)
    return change is not None


def _rebuild_header(wal: Wal) -> bool:
    """Header and first frame are both hit: a header that fits the frames behind, if those hang together."""
    if len(wal.data) < wal.offset(3) or any(
        wal.data[wal.offset(index) + 8 : wal.offset(index) + 16] != wal.salts for index in (1, 2)
    ):
        return False
    if wal.computed(2, wal.stored(1)) != wal.stored(2):
        return False
    wal.store(-1, checksum(wal.words(0, 24), 0, 0))
    return True


# --- frames ---


def mend(wal: Wal, index: int, database: Path) -> bool:
    """Put a damaged frame right, in place: by its salts, its stored checksum, or one word of what it covers."""
    before = wal.stored(index - 1)
    offset = wal.offset(index)
    salts = bytes(wal.data[offset + 8 : offset + 16])
    wal.data[offset + 8 : offset + 16] = wal.salts
    stored = wal.stored(index)
    computed = wal.computed(index, before)
    if computed == stored:
        return True
    last = index + 1 == len(wal.frames)
    # In the last frame of all, the second sum may be what is wrong, and words too: the page itself tells.
    doubtful = last and computed[0] == stored[0]
    if _next_agrees(wal, index, computed) or (doubtful and page_stands(wal, index, database)):
        wal.store(index, computed)
        return True
    if (last or _next_agrees(wal, index, stored)) and _mend_word(wal, index, before, database):
        return True
    if any(_mend_header_words(wal, index, before, sums) for sums in _possible_sums(wal, index)):
        return True
    wal.data[offset + 8 : offset + 16] = salts
    return False


def rechain(wal: Wal, index: int) -> None:
    """Let the checksums agree with what the frames from `index` on hold, damaged or not."""
    for place in range(index, len(wal.frames)):
        offset = wal.offset(place)
        wal.data[offset + 8 : offset + 16] = wal.salts
        wal.store(place, wal.computed(place, wal.stored(place - 1)))


def _next_agrees(wal: Wal, index: int, sums: Sums) -> bool:
    """Whether the frame behind checks when this one's checksum is `sums`."""
    return index + 1 < len(wal.frames) and wal.computed(index + 1, sums) == wal.stored(index + 1)


def _possible_sums(wal: Wal, index: int) -> list[Sums]:
    """What the frame's checksum may be: as stored, or as the frame behind goes on from."""
    if index + 1 == len(wal.frames):
        return [wal.stored(index)]
    offset = wal.offset(index + 1)
    start = offset + FRAME_HEADER_BYTES
    words = wal.words(offset, offset + 8) + wal.words(start, start + wal.page_size)
    sum_0, sum_1 = wal.stored(index + 1)
    for place in range(len(words) - 2, -1, -2):
        sum_1 = (sum_1 - words[place + 1] - sum_0) & MASK
        sum_0 = (sum_0 - words[place] - sum_1) & MASK
    return [wal.stored(index), (sum_0, sum_1)]


def _mend_header_words(wal: Wal, index: int, before: Sums, sums: Sums) -> bool:
    """Page number and commit size, if the page itself is whole: two sums tell two words. They are right if they can be:
    wrong ones would be numbers anywhere in 64 bits."""
    offset = wal.offset(index)
    (a, b), (c, d) = _factors(2 + wal.page_size // 4)[:2]
    inverse = pow(a * d - b * c, -1, 1 << 32)
    first, second = _difference(sums, wal.computed(index, before))
    changes = ((d * first - c * second) * inverse, (a * second - b * first) * inverse)
    header = bytes(wal.data[offset : offset + 8])
    for place, change in zip((offset, offset + 4), changes, strict=True):
        Fix(place, change & MASK).apply(wal)
    if header_possible(wal, index):
        wal.store(index, sums)
        return True
    wal.data[offset : offset + 8] = header
    return False


def _mend_word(wal: Wal, index: int, before: Sums, database: Path) -> bool:
    """Find the one word whose change explains the difference of the sums, and undo it.

    A change d of word i adds f(n)·d and f(n+1)·d to the sums, f the Fibonacci numbers, n fixed by the place of i. Modulo
    2^32 they repeat, the sooner the higher the bits of d: below bit 23 one place of a page fits, at bit 31 every third.
    """
    stored = wal.stored(index)
    difference = _difference(stored, wal.computed(index, before))
    offset = wal.offset(index)
    start = offset + FRAME_HEADER_BYTES
    places = [offset, offset + 4, *range(start, start + wal.page_size, 4)]
    found = []
    for place, factors in zip(places, _factors(len(places)), strict=True):
        change = _solve(*factors, difference)
        if change is not None:
            found.append(Fix(place, change))
    fix = found[0] if len(found) == 1 else most_likely(wal, index, found, database)
    if fix is None:
        return False
    fix.apply(wal)
    return wal.computed(index, before) == stored


def _difference(stored: Sums, computed: Sums) -> Sums:
    return (stored[0] - computed[0]) & MASK, (stored[1] - computed[1]) & MASK


def _factors(count: int) -> list[Sums]:
    """For each word of `count`: by how much a change of 1 in it changes the two sums at the end."""
    out = []
    from_0, from_1 = (1, 0), (0, 1)  # what a change of sum_0, of sum_1 at this point does to both at the end
    for _ in range(count // 2):
        # one step back: sum_0' = sum_0 + w0 + sum_1 ; sum_1' = sum_1 + w1 + sum_0'
        word_1 = from_1
        word_0 = ((from_0[0] + from_1[0]) & MASK, (from_0[1] + from_1[1]) & MASK)
        out += [word_1, word_0]
        from_0, from_1 = word_0, ((word_0[0] + from_1[0]) & MASK, (word_0[1] + from_1[1]) & MASK)
    return out[::-1]


def _solve(factor_0: int, factor_1: int, difference: Sums) -> int | None:
    """The change d with factor_0·d and factor_1·d equal to both differences, modulo 2^32."""
    factor, wanted = (factor_0, difference[0]) if factor_0 & 1 else (factor_1, difference[1])
    if not factor & 1:
        return None
    change = wanted * pow(factor, -1, 1 << 32) & MASK
    fits = factor_0 * change & MASK == difference[0] and factor_1 * change & MASK == difference[1]
    return change if fits else None
