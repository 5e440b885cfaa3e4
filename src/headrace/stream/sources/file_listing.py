"""The files of a path: one file, a folder with its subfolders, or a glob; sorted by name.

Hidden and unfinished files and folders are ignored (`.x`, `_x`, `x.tmp`, `x.part`, `x~`).
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
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
class FileInfo:
    """A file. `name`: its path relative to the source's path, with `/`; files are ordered and identified by it."""

    name: str
    path: Path
    size_bytes: int


def format_of(path: Path) -> FileFormat | None:
    """The format of a file by its suffix, or of the first in a folder that has one; None: no known suffix."""
    files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
    return next((form for file in files if (form := _by_suffix(file.name)) is not None), None)


def list_files(path: str, form: str) -> list[FileInfo]:
    """The present files, sorted by name. In a folder only those with the format's suffix; for a file or glob any suffix."""
    in_folder = Path(path).is_dir()
    found = _below(path) if in_folder else _matching(path)
    listed = [_listed(*item) for item in found if _wanted(item[0]) and not (in_folder and _other(item[0], form))]
    return sorted((file for file in listed if file is not None), key=lambda file: file.name)


def _below(path: str) -> Iterator[tuple[str, str]]:
    """(name, path) of all files in a folder. By texts: a Path costs more than the question whether it is there."""
    root = str(Path(path))
    start = len(os.path.join(root, ""))  # noqa: PTH118 - see above
    for folder, _, names in os.walk(root):
        for name in names:
            file = os.path.join(folder, name)  # noqa: PTH118
            yield file[start:].replace(os.sep, "/"), file


def _matching(path: str) -> list[tuple[str, str]]:
    """(name, path) of the files that a glob means, or of one file."""
    place = Path(path)
    if not glob.has_magic(path):
        return [(place.name, path)]
    magic = next(number for number, part in enumerate(place.parts) if glob.has_magic(part))
    root = Path(*place.parts[:magic])
    return [(file.relative_to(root).as_posix(), str(file)) for file in root.glob(str(Path(*place.parts[magic:])))]


def _listed(name: str, path: str) -> FileInfo | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:  # gone since it was listed
        return None
    return FileInfo(name, Path(path), status.st_size) if stat.S_ISREG(status.st_mode) else None


def _wanted(name: str) -> bool:
    return not any(part.startswith((".", "_")) for part in name.split("/")) and not name.endswith(_UNFINISHED)


def _other(name: str, form: str) -> bool:
    return form in FORMATS.values() and _by_suffix(name) != form


def _by_suffix(name: str) -> FileFormat | None:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return FORMATS.get((os.path.splitext(stem)[1] if suffix in COMPRESSED else suffix).lower())  # noqa: PTH122
