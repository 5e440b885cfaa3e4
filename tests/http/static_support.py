"""What the tests of static files share: a folder with secrets around it, a request without a connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headrace.http.static import StaticFiles
from tests.http.fake_exchange import FakeExchange

OLD_S = 1_700_000_000
SECRET = b"the secret outside"


def age(path: Path, seconds: int = OLD_S) -> Path:
    os.utime(path, (seconds, seconds))
    return path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def write(path: Path, data: bytes, seconds: int = OLD_S) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return age(path, seconds)


def make_root(tmp_path: Path) -> Path:
    """A folder with pages, with what dots hide, and with secrets beside it."""
    folder = tmp_path / "root"
    write(folder / "index.html", b"<h1>home</h1>")
    write(folder / "a.txt", b"0123456789")
    write(folder / "docs/index.html", b"<h1>docs</h1>")
    write(folder / "docs/b.css", b"b{}")
    write(folder / "big.bin", bytes(range(256)) * 1024)
    write(folder / ".env", SECRET)
    write(folder / ".git/config", SECRET)
    write(folder / ".well-known/security.txt", b"Contact: us")
    (folder / "empty").mkdir()
    write(tmp_path / "secret.txt", SECRET)
    write(tmp_path / "root-sibling/secret.txt", SECRET)
    return folder


def get(
    files: StaticFiles,
    path: str,
    headers: Mapping[bytes, bytes] = {},
    *,
    method: str = "GET",
    root_path: str = "",
) -> FakeExchange:
    exchange = FakeExchange(path, headers, method=method)
    exchange.root_path = root_path
    files(exchange)
    assert exchange.done
    return exchange


def settled(files: StaticFiles) -> StaticFiles:
    """Lets every file be old enough to be remembered."""
    files._files._wall_ns = lambda: 1 << 62
    return files
