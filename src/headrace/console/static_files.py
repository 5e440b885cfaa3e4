"""The console's own files, in memory: style, scripts, icon. Their addresses carry a hash, so browsers keep them for ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

PREFIX: Final = "/static/"
_TYPES: Final = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "LICENSE": b"text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file: its bytes, its type, and the start of its hash."""

    body: bytes
    content_type: bytes
    version: str


@lru_cache(maxsize=1)
def files() -> dict[str, StaticFile]:
    """All of them, by name below `static/`."""
    return dict(_walk(resources.files("headrace.console") / "static", ""))


def address(name: str) -> str:
    """Where a page finds a file. Raises KeyError: there is none of that name."""
    return f"{PREFIX}{name}?v={files()[name].version}"


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif (kind := _TYPES.get(entry.name.rpartition(".")[2])) is not None:
            body = entry.read_bytes()
            found.append((prefix + entry.name, StaticFile(body, kind, hashlib.sha256(body).hexdigest()[:12])))
    return found
