"""A look at all of a stopped store, or at a backup, that changes nothing; and the repair of what it finds.

SQLite brings a WAL into the database, or cuts it off, when it opens one. So it is given another folder: a hard link to the
database, which it only reads, and a copy of the WAL, mended there as a start would do it. `repair` is that start, with all
checks, and then, for messages whose checksums are wrong, a new database of what is whole; a copy of the old files stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw

from headrace.errors import StoreDamaged, StoreUnusable
from headrace.queue.store import signpost
from headrace.queue.store.backup import open_lock
from headrace.queue.store.checking import Progress, Report, check_database
from headrace.queue.store.folder import NOTED_BYTES, Folder, Noted, unpack_anchor, unpack_noted
from headrace.queue.store.journal import Parsed, number_of, parse
from headrace.queue.store.loading import DAMAGE, check_file_header
from headrace.queue.store.manifest import MANIFEST, hash_of, read_manifest
from headrace.queue.store.salvage import salvage
from headrace.queue.store.sqlite import SqliteDisk
from headrace.queue.store.wal import check_wal, wal_damage, wal_path

SCRATCH: Final = ".fsck-"


def examine(data: Path, *, progress: Progress) -> Report:
    """Look at everything in a data folder, or in a backup. Changes nothing.

    Raises:
        StoreUnusable: there is no store, or a broker has it.
    """
    if not (data / "headrace.db").is_file():
        signpost.obey(data)
        raise StoreUnusable(str(data), "there is no headrace.db in it; name the folder that the broker's --data names")
    with open_lock(data) as alone:
        if not alone:
            raise StoreUnusable(
                str(data), "a broker has it: stop that one first; `headrace backup` checks a store that runs"
            )
        try:
            return _examine(data, progress)
        except OSError as error:
            raise StoreUnusable(str(data), error.strerror or str(error)) from error


def repair(data: Path, *, progress: Progress) -> Path:
    """Mend a damaged store as a broker's start does, and set damaged messages aside. Atomic: until the repaired database is
    whole the old one has its name.

    Returns:
        The folder with a copy of the files as they were.

    Raises:
        StoreUnusable: a broker has the store.
        StoreDamaged: nothing can be read, or acknowledged commits are missing.
        StoreFull: no room for the copy and the new database.
    """
    folder = Folder(data)
    try:
        kept = folder.keep_damaged()
        folder.mark_suspect()  # the start checks it whole
        SqliteDisk(folder).close()
    except BaseException:
        folder.close()
        raise
    if examine(data, progress=progress).damage:
        _rebuild(data)
    return kept


def _rebuild(data: Path) -> None:
    """What a start does not look at, the checksum of every message, is what a new database is made by."""
    folder = Folder(data)
    try:
        salvage(folder, why="messages with a wrong checksum")
        SqliteDisk(folder).close()
    finally:
        folder.close()


# ------------------------------------------------------------------------------------------------------------ looking


def _examine(data: Path, progress: Progress) -> Report:
    beside = Report()
    _check_manifest(data, beside)
    noted = _check_noted(data, beside)
    _check_clock(data, beside)
    journal = _check_journal(data, noted, beside)
    for offset in wal_damage(data / "headrace.db"):
        beside.add("headrace.db-wal", f"damaged at byte {offset}")
    if (data / "headrace.db.salvaged").exists():
        beside.add(
            "headrace.db.salvaged",
            "a repaired database waits to take the old one's place; the broker's start does that",
        )
    report = _check_database(data, journal, noted, progress)
    report.findings = beside.findings + report.findings
    return report


def _check_database(data: Path, journal: Parsed, noted: Noted | None, progress: Progress) -> Report:
    try:
        check_file_header(data / "headrace.db")
        with _scratch(data) as database:
            check_wal(database, keep=lambda: data, acknowledged=False)
            with closing(apsw.Connection(str(database))) as db:
                db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                db.execute("PRAGMA query_only=ON")
                return check_database(db, journal, noted, progress=progress)
    except DAMAGE as error:
        report = Report()
        report.add("headrace.db", str(error) or type(error).__name__)
        return report


@contextmanager
def _scratch(data: Path) -> Iterator[Path]:
    """A folder with the database by another name and a copy of its WAL: what SQLite writes there harms nothing."""
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=data))
    try:
        database = folder / "headrace.db"
        _link(data / "headrace.db", database)
        if wal_path(data / "headrace.db").exists():
            shutil.copyfile(wal_path(data / "headrace.db"), wal_path(database))
        yield database
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(path: Path, other: Path) -> None:
    """A hard link; a copy where the file system, or who owns the file, does not allow one."""
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copyfile(path, other)


def _check_manifest(data: Path, report: Report) -> None:
    if not (data / MANIFEST).exists():
        return
    try:
        manifest = read_manifest(data)
    except (StoreDamaged, StoreUnusable) as error:
        report.add(MANIFEST, str(error))
        return
    for name, file in manifest.files.items():
        if not (data / name).exists():
            report.add(name, "it is missing")
        elif hash_of(data / name) != file:
            report.add(name, "its bytes are not those that were written")


def _check_noted(data: Path, report: Report) -> Noted | None:
    content = _content(data / "acknowledged")[:NOTED_BYTES]
    noted = unpack_noted(content)
    if noted is None and any(content):
        report.add(
            "acknowledged", "it does not check: torn by a power cut, or damaged; missing commits would not be noticed",
            level="notice",
        )  # fmt: skip
    return noted


def _check_clock(data: Path, report: Report) -> None:
    content = _content(data / "clock.json")
    if content and unpack_anchor(content) is None:
        report.add("clock.json", "it is damaged: the wall clock is trusted at the next start", level="notice")


def _check_journal(data: Path, noted: Noted | None, report: Report) -> Parsed:
    content = _content(data / "leases.journal")
    parsed = parse(content)
    number = number_of(content)
    synced = noted.journal_bytes if noted is not None and noted.journal == number else 0
    if content and number is None:
        report.add("leases.journal", "its head is damaged")
    for start, end in parsed.gaps:
        report.add("leases.journal", f"bytes {start} to {end} are no leases")
    if parsed.end < synced:
        report.add("leases.journal", f"it ends at byte {parsed.end} and was synced up to {synced}: leases are lost")
    return parsed


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
