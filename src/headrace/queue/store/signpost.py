"""A data folder whose broker keeps its store in a database: the file `store` in it says where.

Without it, whoever names that folder while the broker is away would be given another, empty store, and what it sends there
would never be received.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from headrace.errors import StoreUnusable
from headrace.queue.store import files

NAME: Final = "store"


def put(folder: Path, place: str) -> None:
    """From now on the folder says that its store is at `place`, a URL without a password. Raises OSError."""
    path = folder / NAME
    told = f"{place}\n".encode()
    if not path.exists() or path.read_bytes() != told:
        files.replace(path, told, beside=secrets.token_hex(4))  # nodes that start together may share a folder


def obey(folder: Path) -> None:
    """Raises StoreUnusable: the folder's store is elsewhere."""
    path = folder / NAME
    if path.is_file():
        place = path.read_text(errors="replace").strip()[:500]
        reason = f"its broker keeps its messages in {place}; start that one, and back up that database"
        raise StoreUnusable(str(folder), f"{reason} (remove {path} to have a store here)")
