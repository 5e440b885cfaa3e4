"""Which files a path means: one file, a folder with all below it, or a glob; sorted by name.

Hidden files and folders, and those that are still being written (`.x`, `_x`, `x.tmp`, `x.part`, `x~`), are left out.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNFINISHED: Final = (".tmp", ".part", ".crc", "~")
_SUFFIXES: Final = {"parquet": (".parquet", ".pq"), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json")}
COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A file. `name`: its path below what was asked for, with `/`; by it files are ordered, and known again."""

    name: str
    path: Path
    size_bytes: int


def list_files(path: str, form: str) -> list[Listed]:
    """The files there now, sorted by name. In a folder only those whose suffix is the format's; a file or glob is taken
    at its word."""
    root, found = _find(path)
    listed = [_listed(root, file) for file in found]
    in_folder = Path(path).is_dir()
    return sorted(
        (file for file in listed if file is not None and _wanted(file.name) and not (in_folder and _other(file, form))),
        key=lambda file: file.name,
    )


def _find(path: str) -> tuple[Path, list[Path]]:
    """(what names are relative to, the files)."""
    place = Path(path)
    if place.is_dir():
        return place, [Path(folder, name) for folder, _, names in os.walk(place) for name in names]
    if not glob.has_magic(path):
        return place.parent, [place]
    magic = next(number for number, part in enumerate(place.parts) if glob.has_magic(part))
    root = Path(*place.parts[:magic])
    return root, list(root.glob(str(Path(*place.parts[magic:]))))


def _listed(root: Path, path: Path) -> Listed | None:
    try:
        status = path.stat()
    except OSError:  # gone since it was listed
        return None
    return Listed(path.relative_to(root).as_posix(), path, status.st_size) if path.is_file() else None


def _wanted(name: str) -> bool:
    return not any(part.startswith((".", "_")) for part in name.split("/")) and not name.endswith(_UNFINISHED)


def _other(file: Listed, form: str) -> bool:
    name = file.path.with_suffix("").name if file.path.suffix in COMPRESSED else file.path.name
    return form in _SUFFIXES and not name.endswith(_SUFFIXES[form])
