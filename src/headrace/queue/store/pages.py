"""SQLite's pages read without SQLite: for what it refuses to read, and for judging whether a page is whole.

A table's rows lie in the leaves of a tree, under their 64-bit keys; an index's (and a table's without row ids) in all its
pages. A page lists its cells by offsets; the cells grow from its end. What does not fit a cell goes on in a chain of
overflow pages. Nothing here trusts what it reads: whatever makes no sense raises BadPage. Source:
sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

INDEX_INTERIOR: Final = 2
TABLE_INTERIOR: Final = 5
INDEX_LEAF: Final = 10
TABLE_LEAF: Final = 13
KINDS: Final = (INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF)

FILE_HEADER_BYTES: Final = 100  # the first page's tree starts behind it
PAYLOAD_BYTES_MAX: Final = 64 * 1_048_576  # no row is larger: a size beyond is damaged

Values: TypeAlias = tuple[Any, ...]
"""A row's columns as stored: None, int, float, bytes, or str (bytes that are no UTF-8 as lone surrogates)."""


class BadPage(ValueError):
    """What a page says cannot be."""


class Pages:
    """The pages of a database as SQLite would read them: `newer` (page number -> content) before the file's own.

    Numbers start at 1. Opens the file; `close` it.
    """

    def __init__(self, database: Path, page_size: int, newer: Mapping[int, bytes | memoryview]) -> None:
        self.page_size = page_size
        self._newer = newer
        self._file = database.open("rb")
        self._held = self._file.seek(0, 2) // page_size
        self.count = max([self._held, *newer])

    def page(self, number: int) -> bytes:
        newer = self._newer.get(number)
        if newer is not None:
            return bytes(newer)
        if not 1 <= number <= self._held:
            raise BadPage(f"there is no page {number}")
        self._file.seek((number - 1) * self.page_size)
        return self._file.read(self.page_size)

    def close(self) -> None:
        self._file.close()


class Cell(msgspec.Struct, frozen=True):
    """A cell: `key` of tables, `child` (the page of smaller keys) of interior pages, and where its payload lies.

    `start` and `end` bound the cell in its page; `local` is the payload's part in it, `overflow` the next part's page.
    """

    start: int
    end: int
    key: int = 0
    child: int = 0
    size: int = 0
    local: bytes = b""
    overflow: int = 0


class Tree(msgspec.Struct, frozen=True):
    """One page of a tree. `cells` in their order, None for one that makes no sense. `whole`: cells, free blocks and the
    gap fill the page exactly, as SQLite leaves it. `content`: where its cells begin. `right`: the child of the largest
    keys."""

    kind: int
    cells: list[Cell | None]
    whole: bool
    content: int
    right: int = 0

    @property
    def interior(self) -> bool:
        return self.kind in (INDEX_INTERIOR, TABLE_INTERIOR)


def tree_page(page: bytes, number: int) -> Tree:
    """Take a tree's page apart, as its header says; raises BadPage if it is none."""
    head = FILE_HEADER_BYTES if number == 1 else 0
    kind, _, count, content = struct.unpack_from(">BHHH", page, head)
    if kind not in KINDS:
        raise BadPage(f"page {number} is not a tree's: {kind}")
    return _take_apart(page, head, kind, count, content or 65_536)


def mended_page(page: bytes, number: int) -> Tree:
    """As `tree_page`, but a page whose header is wrong in one field (kind, number of cells, where they begin) is read as
    if it were right: cells and free blocks then fill it exactly."""
    head = FILE_HEADER_BYTES if number == 1 else 0
    kind, free, count, content = struct.unpack_from(">BHHH", page, head)
    content = content or 65_536
    tree = _take_apart(page, head, kind, count, content) if kind in KINDS else None
    if tree is not None and tree.whole:
        return tree
    for other in (other for other in KINDS if other != kind and any(page)):
        mended = _take_apart(page, head, other, count, content)
        if mended.whole and mended.cells:
            return mended
    if tree is None:
        raise BadPage(f"page {number} is not a tree's: {kind}")
    return _recount(page, head, kind, content) or _refill(page, head, tree, free) or tree


def _recount(page: bytes, head: int, kind: int, content: int) -> Tree | None:
    """The page with the number of cells that fills it."""
    every = _take_apart(page, head, kind, len(page) // 6, content)
    starts: set[int] = set()
    for count, cell in enumerate(every.cells, 1):
        gap = _first_pointer(head, kind) + 2 * count
        if cell is None or cell.start < gap or cell.start in starts:
            break  # no cell, so no pointer to one
        starts.add(cell.start)
        if _fills(page, head, every.cells[:count], gap, content):
            return Tree(kind, every.cells[:count], True, content, every.right)
    return None


def _refill(page: bytes, head: int, tree: Tree, free: int) -> Tree | None:
    """The page with its cells beginning where the first of them does."""
    begins = min([cell.start for cell in tree.cells if cell is not None] + ([free] if free else []), default=0)
    mended = _take_apart(page, head, tree.kind, len(tree.cells), begins)
    return mended if mended.whole and mended.cells else None


def _take_apart(page: bytes, head: int, kind: int, count: int, content: int) -> Tree:
    interior = kind in (INDEX_INTERIOR, TABLE_INTERIOR)
    first = _first_pointer(head, kind)
    held = min(count, (len(page) - first) // 2)
    cells = [_cell_or_none(page, kind, offset) for offset in struct.unpack_from(f">{held}H", page, first)]
    whole = held == count and None not in cells and _fills(page, head, cells, first + 2 * count, content)
    return Tree(kind, cells, whole, content, int.from_bytes(page[head + 8 : head + 12], "big") if interior else 0)


def _first_pointer(head: int, kind: int) -> int:
    return head + (12 if kind in (INDEX_INTERIOR, TABLE_INTERIOR) else 8)


def _fills(page: bytes, head: int, cells: list[Cell | None], gap: int, content: int) -> bool:
    """Whether cells and free blocks, and as many loose bytes as the header says, fill the page from `content` on."""
    free, fragments = int.from_bytes(page[head + 1 : head + 3], "big"), page[head + 7]
    parts = [(cell.start, cell.end) for cell in cells if cell is not None]
    while free:
        if free + 4 > len(page):
            return False
        following, size = struct.unpack_from(">2H", page, free)
        parts.append((free, free + size))
        free = following if following > free else 0
    parts.sort()
    position, loose = content, 0
    for start, end in parts:
        if start < position:
            return False
        loose += start - position
        position = end
    return gap <= content and position <= len(page) and loose + len(page) - position == fragments


def _cell_or_none(page: bytes, kind: int, offset: int) -> Cell | None:
    try:
        return _cell(page, kind, offset)
    except (BadPage, IndexError, struct.error):
        return None


def _cell(page: bytes, kind: int, start: int) -> Cell:
    position, child, key, size = start, 0, 0, 0
    if kind in (INDEX_INTERIOR, TABLE_INTERIOR):
        child = int.from_bytes(page[start : start + 4], "big")
        position += 4
    if kind == TABLE_INTERIOR:
        key, position = varint(page, position)
        return Cell(start, max(position, start + 4), _signed(key), child)
    size, position = varint(page, position)
    if kind == TABLE_LEAF:
        key, position = varint(page, position)
    if not 0 < size <= PAYLOAD_BYTES_MAX:
        raise BadPage(f"a row of {size} bytes")
    local = _local_bytes(size, len(page), table=kind == TABLE_LEAF)
    end = position + local
    overflow = 0
    if local < size:
        overflow = int.from_bytes(page[end : end + 4], "big")
        end += 4
    if end > len(page):
        raise BadPage("a cell runs over the page's end")
    return Cell(start, max(end, start + 4), _signed(key), child, size, page[position : position + local], overflow)


def _local_bytes(size: int, page_size: int, *, table: bool) -> int:
    """How much of a payload stays in its cell."""
    most = page_size - 35 if table else (page_size - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (page_size - 12) * 32 // 255 - 23
    kept = least + (size - least) % (page_size - 4)
    return kept if kept <= most else least


def chain(pages: Pages, cell: Cell) -> Iterator[tuple[int, bytes]]:
    """The overflow pages of a cell: (number, its part of the payload)."""
    left, number = cell.size - len(cell.local), cell.overflow
    while left > 0:
        page = pages.page(number)
        part = page[4 : 4 + min(left, pages.page_size - 4)]
        yield number, part
        left -= len(part)
        number = int.from_bytes(page[:4], "big")
    if number and cell.overflow:
        raise BadPage("an overflow chain does not end")


def payload(pages: Pages, cell: Cell) -> bytes:
    return cell.local + b"".join([part for _, part in chain(pages, cell)])


def columns(data: bytes) -> Values:
    """A record's columns; raises BadPage."""
    try:
        return tuple(_columns(data))
    except (IndexError, struct.error) as error:
        raise BadPage("a record is cut") from error


def _columns(data: bytes) -> Iterator[Any]:
    header_end, position = varint(data, 0)
    if header_end > len(data):
        raise BadPage("a record's header runs over its end")
    at = header_end
    while position < header_end:
        kind, position = varint(data, position)
        size = _SIZES[kind] if kind < len(_SIZES) else (kind - 12) // 2
        if size < 0 or at + size > len(data):
            raise BadPage("a column runs over the record's end")
        yield _value(kind, data[at : at + size])
        at += size
    if at != len(data) or position != header_end:
        raise BadPage("columns and record end apart")


_SIZES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, -1, -1)


def _value(kind: int, data: bytes) -> Any:
    if kind >= len(_SIZES):
        return data.decode(errors="surrogateescape") if kind & 1 else data
    if kind == 0:
        return None
    if kind == 7:
        return struct.unpack(">d", data)[0]
    return kind - 8 if kind >= 8 else int.from_bytes(data, "big", signed=True)


def varint(data: bytes, position: int) -> tuple[int, int]:
    """(the unsigned number, where it ends). Raises IndexError at the end of the data."""
    value = 0
    for place in range(position, position + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | data[position + 8], position + 9


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number
