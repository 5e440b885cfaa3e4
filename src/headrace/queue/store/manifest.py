"""What a backup is: `backup.json`, with the length and hash of each of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from headrace.errors import StoreDamaged, StoreUnusable

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
_FILES: Final = ("headrace.db", "leases.journal", "acknowledged")
_MAY: Final = "clock.json"


class File(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is: the content of `backup.json`.

    Attributes:
        taken_at: wall clock, UTC.
        commit_seq: number of the last commit that is in it.
        messages: of all queues.
    """

    format: int = FORMAT
    headrace: str
    taken_at: str
    commit_seq: int
    queues: int
    topics: int
    messages: int
    files: dict[str, File]


def read_manifest(backup: Path) -> Manifest:
    """Raises StoreUnusable, StoreDamaged."""
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise StoreUnusable(str(backup), f"it has no {MANIFEST}: it is no backup of headrace") from None
    except OSError as error:
        raise StoreUnusable(str(backup), error.strerror or str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreDamaged(str(backup / MANIFEST), f"{error}; take another backup") from None
    if manifest.format != FORMAT:
        raise StoreUnusable(str(backup), f"it is of format {manifest.format}; this headrace knows {FORMAT}")
    if not set(_FILES) <= set(manifest.files) <= {*_FILES, _MAY}:
        raise StoreDamaged(str(backup / MANIFEST), f"it names {', '.join(manifest.files)}; take another backup")
    return manifest


def hash_of(path: Path) -> File:
    """Length and hash of a file."""
    with path.open("rb") as stream:
        return File(path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())
