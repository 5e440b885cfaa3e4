"""Each how-to page does what it says, as a reader would type it; of coming-from.md, headrace's half."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.walkthrough import DOCS, walk

PAGES = [*sorted((DOCS / "how-to").glob("*.md")), DOCS / "coming-from.md"]
NEEDS = {"nginx": "nginx", "tls": "openssl", "exactly-once": "sqlite3"}
"""Page → the program that it tells to run, and not every machine has."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    if (program := NEEDS.get(page.stem)) and shutil.which(
        program, path="/usr/bin:/usr/sbin:/bin:/usr/local/bin"
    ) is None:
        pytest.skip(f"{program} is not installed")
    with walk(tmp_path) as reader:
        assert reader.through(page.read_text(encoding="utf-8")) > 0
