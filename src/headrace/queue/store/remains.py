"""What a damaged database still holds: its tables' rows, read page by page, without SQLite.

Each table's tree is walked from its root. Where an inner page is hit, the leaves behind it belong to nobody any more:
every page that no tree, row or free list accounts for is looked at, and its rows are taken if they are a table's by their
shape. Messages are told by their checksum, so none is taken for whole that is not.

Pages on the free list hold rows that were deleted: they are never looked at. Of a page whose header is hit, only rows
that lie in its content area count, for the same reason.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import apsw
import msgspec

from headrace.queue.store import schema
from headrace.queue.store.pages import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    BadPage,
    Cell,
    Pages,
    Tree,
    Values,
    chain,
    columns,
    mended_page,
)

SCHEMA: Final = "sqlite_schema"
_DEPTH_MAX: Final = 40  # SQLite's own limit is 20


class Row(msgspec.Struct, frozen=True):
    """A row of a table: its key, and its columns as stored, or None if they cannot be read.

    `sure`: its page's header is whole, so that it is no deleted row.
    """

    key: int
    values: Values | None
    sure: bool


class Root(msgspec.Struct, frozen=True):
    """A table or index as the schema has it."""

    name: str
    page: int
    sql: str | None


def reference(version: int = schema.VERSION) -> dict[str, Root]:
    """The tables and indexes of a version, and the pages that their roots have in a new database."""
    with apsw.Connection(":memory:") as db:
        for step in schema.STEPS[:version]:
            db.execute(step).fetchall()
        found: list[Any] = db.execute("SELECT name, rootpage, sql FROM sqlite_schema").fetchall()
    return {name: Root(name, page, sql) for name, page, sql in found}


def _version_of(found: dict[str, Root]) -> dict[str, Root]:
    """The tables that the store should have. Those of an older version only if the schema has them all, and no other: where a
    newer version has its tables, an older store has messages."""
    for version in range(1, schema.VERSION):
        expected = reference(version)
        if {root.name: root.sql for root in found.values()} == {root.name: root.sql for root in expected.values()}:
            return expected
    return reference()


class Remains:
    """The rows that are left in `pages`, by table.

    `damaged`: names of the tables whose trees had a page that made no sense; `sqlite_schema` for the first page's.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._reached: set[int] = set()
        self._free = self._free_pages()
        self._now = SCHEMA
        self.damaged: set[str] = set()
        found = self._read_schema()
        self._expected = _version_of(found)
        self._roots = self._find_roots(found)

    def rows(self, name: str) -> Iterator[Row]:
        """The rows of a table or index, as far as its tree leads to them. None if the store's version had no such table."""
        if name not in self._roots:
            return
        self._now = name
        yield from self._walk(self._roots[name].page)
        usual = self._expected[name].page
        if name in self.damaged and usual not in self._reached:
            yield from self._walk(usual)

    def stray_rows(self) -> Iterator[Row]:
        """The rows of table leaves that no tree leads to. Call after all tables have been read."""
        for number in range(2, self._pages.count + 1):
            if number in self._reached or number in self._free:
                continue
            try:
                tree = mended_page(self._pages.page(number), number)
            except BadPage:
                continue
            if tree.kind == TABLE_LEAF:
                yield from self._leaf_rows(tree)

    # --- roots and free pages ---

    def _read_schema(self) -> dict[str, Root]:
        found = {}
        for row in self._walk(1):
            values = row.values or ()
            if len(values) == 5 and isinstance(values[1], str) and isinstance(values[3], int):
                found[values[1]] = Root(values[1], values[3], values[4])
        return found

    def _find_roots(self, found: dict[str, Root]) -> dict[str, Root]:
        """Where the schema says they are; where a new database has them, for what it does not say."""
        expected = self._expected
        pages = [root.page for name, root in found.items() if name in expected]
        good = {
            name: found[name]
            for name, root in expected.items()
            if name in found
            and found[name].sql == root.sql
            and pages.count(found[name].page) == 1
            and 1 < found[name].page <= self._pages.count
        }
        if len(good) < len(expected):
            self.damaged.add(SCHEMA)
        return expected | good

    def _free_pages(self) -> set[int]:
        """The free list: pages whose rows were deleted. Empty if it is not as long as it says, since then it may name
        pages in use."""
        free: set[int] = set()
        try:
            trunk, length = struct.unpack_from(">2I", self._pages.page(1), 32)
            while trunk and trunk not in free:
                page = self._pages.page(trunk)
                free.add(trunk)
                trunk, count = struct.unpack_from(">2I", page)
                free.update(struct.unpack_from(f">{min(count, len(page) // 4 - 2)}I", page, 8))
        except BadPage:
            return set()
        return free if len(free) == length and max(free, default=0) <= self._pages.count else set()

    # --- trees ---

    def _walk(self, root: int) -> Iterator[Row]:
        stack: list[tuple[int, int]] = [(root, 0)]
        while stack:
            number, depth = stack.pop()
            tree = self._take(number, depth)
            if tree is None:
                yield Row(0, None, sure=False)
                continue
            if tree.kind != TABLE_INTERIOR:
                yield from self._leaf_rows(tree)
            if tree.interior:
                children = [cell.child for cell in tree.cells if cell is not None]
                stack += [(child, depth + 1) for child in (tree.right, *children[::-1])]

    def _take(self, number: int, depth: int) -> Tree | None:
        """A page of the tree that is being walked, if it can be that."""
        if number in self._reached or number in self._free or depth > _DEPTH_MAX:
            self.damaged.add(self._now)
            return None
        try:
            tree = mended_page(self._pages.page(number), number)
        except BadPage:
            self.damaged.add(self._now)
            return None
        self._reached.add(number)
        if not tree.whole or None in tree.cells:
            self.damaged.add(self._now)
        return tree

    def _leaf_rows(self, tree: Tree) -> Iterator[Row]:
        for cell in tree.cells:
            if cell is not None:
                yield Row(cell.key, self._values(cell), tree.whole or cell.start >= tree.content)
            elif tree.kind not in (INDEX_INTERIOR, INDEX_LEAF):
                yield Row(0, None, sure=False)

    def _values(self, cell: Cell) -> Values | None:
        try:
            parts = list(chain(self._pages, cell))
            values = columns(cell.local + b"".join([part for _, part in parts]))
        except BadPage:
            self.damaged.add(self._now)
            return None
        self._reached.update([number for number, _ in parts])
        return values
