"""What else in the files tells about a damaged frame: earlier and later contents of its page, and its rows' checksums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from operator import eq
from pathlib import Path
from typing import Final

import msgspec

from headrace.queue.store import rows
from headrace.queue.store.pages import TABLE_LEAF, BadPage, Cell, Pages, chain, columns, payload, tree_page
from headrace.queue.store.wal_format import FRAME_HEADER_BYTES, MASK, Wal

COMPARED_PAGES_MAX: Final = 20_000  # 80 µs each
MESSAGE_COLUMNS: Final = 15
SECTOR_BYTES: Final = 512  # disks lose no less
CHUNK_BYTES: Final = 16
SAME_SHARE: Final = 0.9
_ALIKE_BYTES_MIN: Final = 8  # a page of few bytes, the commit's number and time, has a dozen


class Fix(msgspec.Struct, frozen=True):
    """A word that may be wrong: `change` is to be added to the one at byte `place` of the WAL."""

    place: int
    change: int

    def word(self, wal: Wal) -> bytes:
        """The word as it would be."""
        order = ">I" if wal.big_endian else "<I"
        (word,) = struct.unpack_from(order, wal.data, self.place)
        return struct.pack(order, (word + self.change) & MASK)

    def apply(self, wal: Wal) -> None:
        wal.data[self.place : self.place + 4] = self.word(wal)


# --- which word is wrong ---


def most_likely(wal: Wal, index: int, fixes: list[Fix], database: Path) -> Fix | None:
    """The fix that the rest of the files speaks for; None if that is not one.

    Rows that check after it, as they do not without, are a proof. Else the fix whose bytes are what the page held before
    or after, where the damaged ones are not.
    """
    start = wal.offset(index) + FRAME_HEADER_BYTES
    in_header = [fix for fix in fixes if fix.place < start]
    fixes = [fix for fix in fixes if fix.place >= start]
    if not header_possible(wal, index):
        possible = [fix for fix in in_header if header_possible(wal, index, fix)]
        return possible[0] if len(possible) == 1 else None
    versions = _other_versions(wal, index, database)
    verdicts = _judge_fixes(wal, index, fixes, database)
    ranked = sorted(
        [(verdicts[n], _likeness(wal, start, fix, versions), n) for n, fix in enumerate(fixes)], reverse=True
    )
    if not ranked:
        return None
    best = ranked[0]
    alone = len(ranked) == 1 or ranked[1][:2] != best[:2]
    # Several that are proven differ in bytes that mean nothing: room between the cells.
    return fixes[best[2]] if best[0] == _PROVEN or (alone and best[0] and best[1]) else None


def page_stands(wal: Wal, index: int, database: Path) -> bool:
    """Whether nothing speaks against the page as it is."""
    start = wal.offset(index) + FRAME_HEADER_BYTES
    return _judge_fixes(wal, index, [Fix(start, 0)], database) != [_REFUTED]


def header_possible(wal: Wal, index: int, fix: Fix | None = None) -> bool:
    """Whether page number and commit size of a frame can be, with `fix`."""
    offset = wal.offset(index)
    header = bytearray(wal.data[offset : offset + 8])
    if fix is not None:
        header[fix.place - offset : fix.place - offset + 4] = fix.word(wal)
    page, commit_pages = struct.unpack(">2I", header)
    before, size = sizes(wal, index)
    return bool(1 <= page <= size and (commit_pages == 0 or before <= commit_pages <= size))


def _likeness(wal: Wal, start: int, fix: Fix, versions: list[bytes]) -> int:
    """2 for each version of the page that has the fixed bytes, 1 where it has neither, 0 where the present ones."""
    at = fix.place - start
    now, fixed = wal.data[fix.place : fix.place + 4], fix.word(wal)
    changed = [place for place in range(4) if now[place] != fixed[place]]
    score = 0
    for version in versions:
        word = version[at : at + 4]
        if all(word[place] == fixed[place] for place in changed):
            score += 2
        elif any(word[place] != now[place] for place in changed):
            score += 1
    return score


def _other_versions(wal: Wal, index: int, database: Path) -> list[bytes]:
    """What the page held before, and what it holds in the next frame that has it."""
    number = _page_of(wal, index)
    later = next(
        (
            place
            for place in range(index + 1, len(wal.frames))
            if wal.frames[place].good and wal.frames[place].page == number
        ),
        None,
    )
    before = _version_before(wal, index, database)
    return [version for version in (wal.content(later) if later is not None else None, before) if version]


def _version_before(wal: Wal, index: int, database: Path) -> bytes | None:
    """What the page of a frame held before it."""
    number = _page_of(wal, index)
    for place in range(index - 1, -1, -1):
        if wal.frames[place].good and wal.frames[place].page == number:
            return wal.content(place)
    with database.open("rb") as file:
        file.seek((number - 1) * wal.page_size)
        before = file.read(wal.page_size)
    return before if len(before) == wal.page_size else None


def _page_of(wal: Wal, index: int) -> int:
    return int.from_bytes(wal.data[wal.offset(index) : wal.offset(index) + 4], "big")


_REFUTED, _POSSIBLE, _PROVEN = range(3)


def _judge_fixes(wal: Wal, index: int, fixes: list[Fix], database: Path) -> list[int]:
    """For each fix, whether the rows of the page, or those that go on in it, check with it."""
    first, last = _commit_of(wal, index)
    number = _page_of(wal, index)
    start = wal.offset(index) + FRAME_HEADER_BYTES
    frames = [frame.page if place != index else number for place, frame in enumerate(wal.frames[: last + 1])]
    newer: dict[int, bytes | memoryview] = {page: wal.view(place) for place, page in enumerate(frames)}
    pages = Pages(database, wal.page_size, newer)
    verdicts = []
    try:
        for fix in fixes:
            content = bytearray(wal.view(index))
            content[fix.place - start : fix.place - start + 4] = fix.word(wal)
            newer[number] = bytes(content)
            verdicts.append(_judge(pages, number, frames[first : last + 1]))
    finally:
        pages.close()
        newer.clear()  # no view stays on the WAL's data
    return verdicts


def _commit_of(wal: Wal, index: int) -> tuple[int, int]:
    """First and last frame of the commit that a frame belongs to."""
    ends = [place for place, frame in enumerate(wal.frames) if frame.salted and frame.commit_pages and place != index]
    first = max([place for place in ends if place < index], default=-1) + 1
    return first, min([place for place in ends if place >= index], default=len(wal.frames) - 1)


def _judge(pages: Pages, number: int, together: list[int]) -> int:
    try:
        tree = tree_page(pages.page(number), number)
    except BadPage:
        return _judge_overflow(pages, number, together)
    if not tree.whole or None in tree.cells:
        return _REFUTED
    if not tree.cells:
        return _PROVEN  # nothing on it that could be wrong
    if tree.kind != TABLE_LEAF:
        return _POSSIBLE
    return min([_judge_row(pages, cell) for cell in tree.cells if cell is not None], default=_POSSIBLE)


def _judge_overflow(pages: Pages, number: int, together: list[int]) -> int:
    """An overflow page is judged by the row that goes on in it, which was written in the same commit."""
    for other in set(together) - {number}:
        try:
            tree = tree_page(pages.page(other), other)
        except BadPage:
            continue
        for cell in tree.cells if tree.kind == TABLE_LEAF else ():
            if cell is not None and cell.overflow and _goes_over(pages, cell, number):
                return _judge_row(pages, cell)
    return _POSSIBLE


def _goes_over(pages: Pages, cell: Cell, number: int) -> bool:
    try:
        return any(number == page for page, _ in chain(pages, cell))
    except BadPage:
        return True  # the chain breaks there


def _judge_row(pages: Pages, cell: Cell) -> int:
    try:
        values = columns(payload(pages, cell))
    except BadPage:
        return _REFUTED
    if len(values) != MESSAGE_COLUMNS:
        return _POSSIBLE
    if rows.refers(values):
        return _POSSIBLE  # its checksum is over a body that stands elsewhere
    _, message = rows.from_row((cell.key, *values[1:-1]))
    return _PROVEN if message is not None else _REFUTED


# --- which page a frame holds, when its header is hit ---


def place(wal: Wal, index: int, database: Path) -> bool:
    """Make sure that a frame that could not be mended names the right page; False if nobody can tell.

    A wrong number would put one page's damage upon another page. Salts that are right vouch for the number beside them.
    Otherwise it is the one new page of its commit that no other frame holds, or the page whose earlier content is most
    like what is left of this one.
    """
    frame = wal.frames[index]
    size_before, size = sizes(wal, index)
    if not (frame.salted and 1 <= frame.page <= size):
        page = _likely_page(wal, index, size_before, size, database)
        if page is None:
            return False
        struct.pack_into(">I", wal.data, wal.offset(index), page)
    if not frame.salted or not (frame.commit_pages == 0 or size_before <= frame.commit_pages <= size):
        # Joined to the commit behind it; the last frame of all ends its own.
        commit_pages = size if index + 1 == len(wal.frames) else 0
        struct.pack_into(">I", wal.data, wal.offset(index) + 4, commit_pages)
    return True


def _likely_page(wal: Wal, index: int, size_before: int, size: int, database: Path) -> int | None:
    first, last = _commit_of(wal, index)
    # SQLite writes a commit's pages in order.
    low = wal.frames[index - 1].page if index > first else 0
    high = wal.frames[index + 1].page if index < last else size + 1
    if high <= low:  # the frame behind begins the next commit
        high, last = size + 1, index
    others = [place for place in range(first, last + 1) if place != index and wal.frames[place].salted]
    open_ = set(range(low + 1, high)) - {wal.frames[place].page for place in others}
    # A commit writes every page by which the database grows, and every one to which it begins to point.
    grown = open_ & set(range(size_before + 1, (wal.frames[last].commit_pages if last != index else size) + 1))
    for sure in (open_, grown):
        if len(sure) == 1:
            return min(sure)
    page, share = _most_alike(wal, index, database, open_)
    pointed = open_ & _new_references(wal, others, database)
    # A row that moved between pages brings its overflow page along: likeness that is nearly sameness comes first.
    return min(pointed) if len(pointed) == 1 and share < SAME_SHARE else page


def _new_references(wal: Wal, others: list[int], database: Path) -> set[int]:
    """The pages that frames of a commit point to and the earlier contents of the same pages did not."""
    now: set[int] = set()
    then: set[int] = set()
    for place in others:
        number = wal.frames[place].page
        before = _version_before(wal, place, database)
        now |= _references(wal.content(place), number) if wal.frames[place].good else set()
        then |= _references(before, number) if before else set()
    return now - then


def _references(page: bytes, number: int) -> set[int]:
    """The pages that a page points to: children, overflow pages, or the next page of a chain."""
    try:
        tree = tree_page(page, number)
    except BadPage:
        return {int.from_bytes(page[:4], "big")}
    cells = [cell for cell in tree.cells if cell is not None]
    return {tree.right, *[cell.child for cell in cells], *[cell.overflow for cell in cells]}


def sizes(wal: Wal, index: int) -> tuple[int, int]:
    """How many pages the database had before this frame's commit, and after it."""
    most = max([frame.commit_pages for frame in wal.frames if frame.good], default=0)
    ends = [
        (place, frame.commit_pages)
        for place, frame in enumerate(wal.frames)
        if frame.salted and 0 < frame.commit_pages <= most and place != index
    ]
    before = max((pages for place, pages in ends if place < index), default=1)
    after = next((pages for place, pages in ends if place > index), before)
    return before, max([before, after, *[frame.page for frame in wal.frames if frame.good]])


def _most_alike(wal: Wal, index: int, database: Path, open_: set[int]) -> tuple[int | None, float]:
    """The page whose earlier or later content is most like what is left of this one: its bytes in their places, or
    moved. And how much of it is."""
    hit = -wal.offset(index) % SECTOR_BYTES - FRAME_HEADER_BYTES  # the frame's header is wrong: so is its sector
    content = wal.content(index)
    places = [place for place, byte in enumerate(content) if byte and place >= hit]
    wanted = [content[place] for place in places]
    chunks = [content[place : place + CHUNK_BYTES] for place in places[:: 4 * CHUNK_BYTES]]
    best_of: dict[int, int] = {}
    for number, version in _versions(wal, index, database, open_):
        alike = sum(map(eq, wanted, [version[place] for place in places]))
        moved = sum(chunk in version for chunk in chunks) * len(places) // max(1, len(chunks))
        best_of[number] = max(best_of.get(number, 0), alike, moved)
    scores = [(score, number) for number, score in best_of.items()]
    scores.sort(reverse=True)
    (best, page), second = (scores or [(0, 0)])[0], scores[1][0] if len(scores) > 1 else 0
    clear = best >= max(_ALIKE_BYTES_MIN, len(places) // 3) and best > 1.2 * second
    return (page, best / len(places)) if clear else (None, 0.0)


def _versions(wal: Wal, index: int, database: Path, open_: set[int]) -> Iterator[tuple[int, bytes]]:
    """Pages and what they held before frame `index`, and what they hold next: of a large database its last pages, and all
    that the WAL has."""
    before: dict[int, bytes] = {}
    with database.open("rb") as file:
        held = file.seek(0, 2) // wal.page_size
        for number in sorted(open_ & set(range(max(1, held - COMPARED_PAGES_MAX), held + 1))):
            file.seek((number - 1) * wal.page_size)
            before[number] = file.read(wal.page_size)
    after: dict[int, bytes] = {}
    for place, frame in enumerate(wal.frames):
        if frame.good and frame.page in open_ and place < index:
            before[frame.page] = wal.content(place)
        elif frame.good and frame.page in open_ and place > index:
            after.setdefault(frame.page, wal.content(place))
    yield from before.items()
    yield from after.items()
