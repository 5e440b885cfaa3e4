"""A browser shows a static page: module, style, data, packed sibling, listing, each with the type that it insists on."""

from __future__ import annotations

import gzip
import html.parser
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.http.static import StaticFiles
from tests.http.streamed import StreamServer, stream_serving
from tests.patience import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="no chromium here: apt-get install chromium"
    ),
]

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Static</title>
<link rel="stylesheet" href="style.css"><script type="module" src="app.mjs"></script></head>
<body><p id="said">nothing yet</p><p id="looks"></p><p id="sum"></p></body></html>"""
MODULE = """const data = await (await fetch("data/numbers.json")).json();
document.getElementById("said").textContent = data.word;
document.getElementById("looks").textContent = getComputedStyle(document.getElementById("said")).color;
const wasm = await WebAssembly.instantiateStreaming(fetch("add.wasm"));
document.getElementById("sum").textContent = String(wasm.instance.exports.add(20, 22));
"""
ADD = bytes.fromhex("0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StreamServer]:
    root = tmp_path / "site"
    (root / "data").mkdir(parents=True)
    (root / "index.html").write_text(PAGE)
    (root / "style.css").write_text("this is not what browsers get")
    (root / "style.css.gz").write_bytes(gzip.compress(b"#said { color: rgb(1, 2, 3) }"))
    (root / "app.mjs").write_text(MODULE + "// a comment that is worth packing\n" * 100)
    (root / "add.wasm").write_bytes(ADD)
    (root / "data/numbers.json").write_text('{"word": "grüezi"}')
    (root / "data/<b>not bold & 100%.txt").write_text("odd name")
    with stream_serving(StaticFiles(root, index=True, compress=True)) as server:
        yield server


def browse(url: str, profile: Path) -> str:
    """The page as it is after its scripts have run."""
    assert CHROMIUM is not None, "CI is meant to have chromium"
    arguments = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
        "--disable-background-networking", f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom",
    )  # fmt: skip
    done = subprocess.run([CHROMIUM, *arguments, url], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout


class Texts(html.parser.HTMLParser):
    """The text of each element that has an id, and where the links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.by_id: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self._id = self._href = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._id, self._href = found.get("id") or "", found.get("href") or ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.by_id.setdefault(self._id, data)
        if self._href:
            self.links.setdefault(data, self._href)
        self._id = self._href = ""


def test_page_runs_its_module_with_style_data_and_wasm(server: StreamServer, tmp_path: Path) -> None:
    page = Texts(browse(f"http://127.0.0.1:{server.port}/", tmp_path / "profile"))
    assert page.by_id == {"said": "grüezi", "looks": "rgb(1, 2, 3)", "sum": "42"}


def test_listing_shows_odd_names_as_they_are(server: StreamServer, tmp_path: Path) -> None:
    page = Texts(browse(f"http://127.0.0.1:{server.port}/data/", tmp_path / "profile"))
    assert page.links["<b>not bold & 100%.txt"] == "./%3Cb%3Enot%20bold%20%26%20100%25.txt"
