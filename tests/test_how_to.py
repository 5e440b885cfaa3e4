"""Each how-to page does what it says, as a reader would type it; of coming-from.md, headrace's half."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.testing.postgres import find_programs, server
from tests.walkthrough import DOCS, Walk, walk

PAGES = [*sorted((DOCS / "how-to").glob("*.md")), DOCS / "coming-from.md"]
NEEDS = {"nginx": "nginx", "tls": "openssl", "exactly-once": "sqlite3"}
"""Page → the program that it tells to run, and not every machine has."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    if (program := NEEDS.get(page.stem)) and shutil.which(
        program, path="/usr/bin:/usr/sbin:/bin:/usr/local/bin"
    ) is None:
        pytest.skip(f"{program} is not installed")
    with walk(tmp_path) as reader, _postgres(page, reader):
        assert reader.through(page.read_text(encoding="utf-8")) > 0


@contextmanager
def _postgres(page: Path, reader: Walk) -> Iterator[None]:
    """For the page that needs it: its programs, and a server that they find."""
    if page.stem != "outbox":
        yield
        return
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL 15 or later on this machine: install the package `postgresql`")
    reader.env["PATH"] += f":{programs}"
    reader.env |= {"PGHOST": "127.0.0.1", "PGPORT": str(server().port), "PGUSER": "headrace"}
    try:
        yield
    finally:
        reader.end()
        server().run("dropdb", "-h", "127.0.0.1", "-p", str(server().port), "-U", "headrace", "--force", "shop")
