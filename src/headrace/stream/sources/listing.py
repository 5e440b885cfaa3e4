"""Which files a path means: one file, a folder with all below it, or a glob; sorted by name.

Hidden files and folders, and those that are still being written (`.x`, `_x`, `x.tmp`, `x.part`, `x~`), are left out.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.stream.plan import FileFormat

_UNFINISHED: Final = (".tmp", ".part", ".crc", "~")
FORMATS: Final[dict[str, FileFormat]] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A file. `name`: its path below what was asked for, with `/`; by it files are ordered, and known again."""

    name: str
    path: Path
    size_bytes: int


def format_of(path: Path) -> FileFormat | None:
    """The format of a file by its suffix, or of the first in a folder that has one; None: no suffix tells it."""
    files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
    return next((form for file in files if (form := _by_suffix(file)) is not None), None)


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
    return form in FORMATS.values() and _by_suffix(file.path) != form


def _by_suffix(path: Path) -> FileFormat | None:
    plain = path.with_suffix("") if path.suffix in COMPRESSED else path
    return FORMATS.get(plain.suffix.lower())
