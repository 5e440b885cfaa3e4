"""A look at the WAL before SQLite opens it.

SQLite takes a WAL up to the first frame that does not check and forgets the rest in silence: one flipped byte cost 37
of 40 acknowledged commits. But only the torn tail of the last commit may be missing after a crash, because a commit
begins after the one before is synced. So a bad frame with good commits behind it is damage, and it can be mended
(`wal_mend.py`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from headrace.errors import StoreDamaged
from headrace.queue.store import files
from headrace.queue.store.wal_evidence import place
from headrace.queue.store.wal_format import Frame, Wal, scan
from headrace.queue.store.wal_mend import mend, mend_header, rechain

log = logging.getLogger("headrace.store")

PAGE_BYTES: Final = 4_096  # SQLite's default, which every database of headrace has


def check_wal(database: Path, *, keep: Callable[[], Path], acknowledged: bool = True, tail: bool = False) -> int:
    """Mend the WAL of `database` if it is damaged. Call before SQLite opens it, with nobody else having it open.

    A frame that cannot be mended keeps its wrong page: what lies on it is found damaged when it is read, and every
    commit behind it stands.

    Args:
        keep: copies the folder's files aside before anything is changed, and says where.
        acknowledged: whether it is known that commits were acknowledged; without, what cannot be mended is left to
            SQLite, which cuts it off.
        tail: the last commit was acknowledged, so bad frames at the end are damage too, not a torn write.

    Returns:
        How many frames could not be mended. The database must be checked whole if there are any.

    Raises:
        StoreDamaged: it is unknown which page a damaged frame holds. Nothing was changed.
    """
    path = wal_path(database)
    data = bytearray(path.read_bytes()) if path.exists() else bytearray()
    header_mended = mend_header(data, PAGE_BYTES)
    wal = scan(data)
    if wal is None:
        return 0
    damaged = _damaged(wal, tail=tail)
    if not damaged and not header_mended:
        return 0
    kept = keep()
    unmended = [index for index in damaged if not mend(wal, index, database)]
    lost = [index for index in unmended if not place(wal, index, database)]
    if lost:
        return _give_up(wal, path, lost, kept, acknowledged=acknowledged)
    if unmended:
        rechain(wal, unmended[0])
    _tell(wal, damaged, set(unmended), kept, header_mended=header_mended)
    _write(path, data)
    return len(unmended)


def wal_damage(database: Path) -> list[int]:
    """At which bytes the WAL of `database` has damaged frames (0: its header). Nothing is changed; `check_wal` mends."""
    path = wal_path(database)
    data = bytearray(path.read_bytes()) if path.exists() else bytearray()
    header = [0] if mend_header(data, PAGE_BYTES) else []
    wal = scan(data)
    return header + [wal.offset(index) for index in _damaged(wal, tail=False)] if wal is not None else header


def wal_path(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def _damaged(wal: Wal, *, tail: bool) -> list[int]:
    """The bad frames that are not a torn write. The last commit alone may be torn: its frames were not synced yet."""
    behind = 0  # whole commits behind the frame
    damaged = []
    for index in range(len(wal.frames) - 1, -1, -1):
        frame = wal.frames[index]
        if frame.good:
            behind += frame.commit_pages > 0
        elif tail or behind > 1:
            damaged.append(index)
    unfinished = not damaged or not wal.frames[-1].commit_pages
    behind_all = wal.data[wal.offset(len(wal.frames)) : wal.offset(len(wal.frames) + 1)]
    if tail and unfinished and len(behind_all) == wal.frame_bytes and any(behind_all):
        # A commit is missing and does not end here: it ends with the next frame, whose salts are wrong too.
        damaged.append(len(wal.frames))
        wal.frames.append(Frame(0, 0, good=False, salted=False))
    return damaged[::-1]


def _give_up(wal: Wal, path: Path, lost: list[int], kept: Path, *, acknowledged: bool) -> int:
    frame = wal.offset(lost[0])
    behind = sum(1 for one in wal.frames[lost[0] :] if one.good and one.commit_pages)
    what = (
        f"{len(lost)} frames from byte {frame} on cannot be mended, nor is it known which pages they hold; {behind} commits"
        f" stand behind them; a copy is in {kept}; restore a backup, or, to go on without those commits, remove the file"
        " 'acknowledged' beside it"
    )
    if acknowledged:
        raise StoreDamaged(str(path), what)
    log.error("%s is damaged: %s", path, what, extra={"action": "wal.damaged"})
    return len(lost)


def _tell(wal: Wal, damaged: list[int], unmended: set[int], kept: Path, *, header_mended: bool) -> None:
    if header_mended:
        log.error(
            "the WAL's header was damaged and has been mended; a copy of the files is in %s", kept,
            extra={"action": "wal.damaged"},
        )  # fmt: skip
    for index in damaged:
        log.error(
            "WAL frame at byte %d (page %d) was damaged and %s; a copy of the files is in %s",
            wal.offset(index), int.from_bytes(wal.data[wal.offset(index) : wal.offset(index) + 4]),
            "its page cannot be mended" if index in unmended else "has been mended", kept,
            extra={"action": "wal.damaged"},
        )  # fmt: skip


def _write(path: Path, data: bytearray) -> None:
    fd = files.open_file(path)
    try:
        files.overwrite(fd, bytes(data))
        files.sync_data(fd)
    finally:
        os.close(fd)
