"""A copy of a store at one point in time, while it runs; and back from it.

A backup is a folder: the database, the lease journal, and what stands beside, all of one moment, with `backup.json` that
says what they are. It is made under another name and takes its own when it is whole and on the disk, as a restored
store does: what was broken off half-way never looks like a backup, or like a store.

The moment: a transaction that reads. SQLite shows it everything that was committed before it began, and a commit is
synced before anybody sees it; so it has each message that was acknowledged before, and what comes meanwhile waits in
the WAL. The lease journal is read after it began: it knows all leases of that moment (those of messages that came later
are not looked at), unless a snapshot has taken the journal's place just then: then all is done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw
import msgspec

from headrace.errors import StoreDamaged, StoreUnusable
from headrace.queue.store import files, schema, signpost
from headrace.queue.store.checking import Progress, Report, check_database
from headrace.queue.store.folder import NOTED_BYTES, Noted, pack_noted, unpack_noted
from headrace.queue.store.journal import Parsed, number_of, parse
from headrace.queue.store.loading import DAMAGE, read_commit
from headrace.queue.store.manifest import MANIFEST, File, Manifest, hash_of, read_manifest
from headrace.queue.store.new_folder import must_be_free, new_folder
from headrace.queue.store.wal import wal_damage

RATE_BYTES_S: Final = 100 * 1_048_576  # a disk that syncs a commit in 0.2 ms writes ten times as much
STEP_PAGES: Final = 256  # 1 MiB: what a copy takes at once
SYNC_BYTES: Final = 16 * 1_048_576  # written and not synced: all of it at the end would hold up the store's own syncs
ATTEMPTS: Final = 10
BUSY_MS: Final = 5_000


class _Moment(msgspec.Struct):
    """What stands beside the database, of the moment that a connection reads."""

    seq: int
    now_ms: int
    journal: bytes
    fifo_until_ms: int


def take_backup(
    data: Path,
    target: Path,
    *,
    version: str,
    verify: bool = True,
    rate_bytes_s: int = RATE_BYTES_S,
    progress: Progress,
    sleep: Callable[[float], None] = time.sleep,
) -> Manifest:
    """Copy the store in `data`, running or not, into a new folder `target`.

    Args:
        version: of headrace, for the manifest.
        verify: read the copy whole, checksums of messages included.
        rate_bytes_s: what is copied in a second at most; 0: no bound.

    Raises:
        StoreUnusable: there is no store, `target` exists, or the store must be opened by a broker first.
        StoreDamaged: what was copied is damaged; nothing is left of it.
        StoreFull: the disk of `target` is full; nothing is left of it.
    """
    must_be_free(target)
    with new_folder(target) as partial:
        with _snapshot(data) as (source, moment):
            _copy_database(source, partial / "headrace.db", rate_bytes_s, progress, sleep)
        journal = _write_beside(data, partial, moment)
        report = _checked(partial, journal, data, progress) if verify else _counted(partial)
        manifest = Manifest(
            headrace=version,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
            commit_seq=moment.seq,
            queues=report.queues,
            topics=report.topics,
            messages=report.messages,
            files=_described(partial, progress),
        )
        files.replace(partial / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    return manifest


def restore(backup: Path, data: Path, *, progress: Progress) -> Manifest:
    """Make a new store in `data` of a backup. Atomic: the folder is there when all of it has been checked and synced.

    Raises:
        StoreUnusable: `data` is there and not empty, or `backup` is none.
        StoreDamaged: the backup is not what was written. Nothing is made.
        StoreFull: the disk of `data` is full. Nothing is made.
    """
    must_be_free(data)
    manifest = read_manifest(backup)
    with new_folder(data) as partial:
        total = sum(file.bytes for file in manifest.files.values())
        done = 0
        for name, file in manifest.files.items():
            done = _copy_file(backup / name, partial / name, file, done, total, progress)
        journal = parse((partial / "leases.journal").read_bytes())
        _checked(partial, journal, backup, progress)
    return manifest


# ------------------------------------------------------------------------------------------------- the store's moment


@contextmanager
def _snapshot(data: Path) -> Iterator[tuple[apsw.Connection, _Moment]]:
    """A connection that sees one moment of the store, and the rest of that moment."""
    database = data / "headrace.db"
    if not database.is_file():
        signpost.obey(data)
        raise StoreUnusable(str(data), "there is no headrace.db in it; name the folder that the broker's --data names")
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)) as db:
        try:
            with _unless_it_runs(data):
                db.set_busy_timeout(BUSY_MS)
                db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a WAL is the broker's to bring in
                db.execute("PRAGMA query_only=ON")
                moment = _begin(db, data)
        except DAMAGE as error:
            raise StoreDamaged(str(database), f"{error}; `headrace fsck` tells what is damaged") from error
        except (apsw.Error, OSError) as error:
            raise StoreUnusable(str(data), str(error)) from error
        yield db, moment


@contextmanager
def _unless_it_runs(data: Path) -> Iterator[None]:
    """If no broker has the store: none starts meanwhile, and what it would mend first is refused: SQLite would cut it off."""
    with open_lock(data) as alone:
        if alone:
            damaged = wal_damage(data / "headrace.db")
            if damaged or (data / "headrace.db.salvaged").exists():
                raise StoreUnusable(str(data), "it is damaged: `headrace fsck` tells what, a broker's start mends it")
        yield


@contextmanager
def open_lock(data: Path) -> Iterator[bool]:
    """Whether nobody had the store; then nobody has it until the end. Makes no file."""
    try:
        lock = (data / "lock").open("rb+")
    except FileNotFoundError:
        yield True
        return
    except OSError as error:
        raise StoreUnusable(str(data), error.strerror or str(error)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _begin(db: apsw.Connection, data: Path) -> _Moment:
    for _ in range(ATTEMPTS):
        before, journal = _noted(data), _identity(data)
        db.execute("BEGIN")
        _must_be_current(db, data)
        seq, now_ms = read_commit(db)
        if before.commit_seq > seq:
            raise StoreDamaged(
                str(data / "headrace.db"), f"commits {seq + 1} to {before.commit_seq} were acknowledged and are missing"
            )
        content = (data / "leases.journal").read_bytes()
        if _identity(data) == journal:
            return _Moment(seq, now_ms, content, max(before.fifo_until_ms, _noted(data).fifo_until_ms))
        db.execute("ROLLBACK")
    raise StoreUnusable(str(data), f"its lease journal was replaced {ATTEMPTS} times in a row; try again")


def _must_be_current(db: apsw.Connection, data: Path) -> None:
    found = db.pragma("user_version")
    if found != schema.VERSION:
        reason = (
            f"it has format {found}, this headrace writes {schema.VERSION}; start the broker once, or use its version"
        )
        raise StoreUnusable(str(data), reason)


def _noted(data: Path) -> Noted:
    """What is noted as acknowledged. It is overwritten while it is read: once torn, it is read again."""
    for _ in range(ATTEMPTS):
        try:
            noted = unpack_noted((data / "acknowledged").read_bytes()[:NOTED_BYTES])
        except FileNotFoundError:
            break
        if noted is not None:
            return noted
    return Noted()


def _identity(data: Path) -> int:
    try:
        return (data / "leases.journal").stat().st_ino
    except OSError as error:
        raise StoreUnusable(str(data), f"leases.journal: {error.strerror}") from error


# ------------------------------------------------------------------------------------------------------------ copying


def _copy_database(
    source: apsw.Connection, target: Path, rate_bytes_s: int, progress: Progress, sleep: Callable[[float], None]
) -> None:
    fd = files.open_file(target)
    try:
        with closing(apsw.Connection(str(target))) as db:
            db.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").fetchall()
            started = time.monotonic()
            unsynced = 0
            with db.backup("main", source, "main") as copy:
                while not copy.done:
                    copy.step(STEP_PAGES)
                    copied = (copy.page_count - copy.remaining) * 4_096
                    progress("copy", copied >> 20, copy.page_count * 4_096 >> 20)
                    if copied - unsynced >= SYNC_BYTES:
                        files.sync_data(fd)
                        unsynced = copied
                    _pace(copied, rate_bytes_s, time.monotonic() - started, sleep)
        files.sync_data(fd)
    finally:
        os.close(fd)


def _pace(copied: int, rate_bytes_s: int, passed_s: float, sleep: Callable[[float], None]) -> None:
    if rate_bytes_s and copied / rate_bytes_s > passed_s:
        sleep(copied / rate_bytes_s - passed_s)


def _write_beside(data: Path, partial: Path, moment: _Moment) -> Parsed:
    """The small files of the moment. What a write under way left at the journal's end is cut off."""
    parsed = parse(moment.journal)
    noted = Noted(
        commit_seq=moment.seq,
        now_ms=moment.now_ms,
        journal=number_of(moment.journal) or 0,
        journal_bytes=parsed.end,
        fifo_until_ms=moment.fifo_until_ms,
    )
    files.replace(partial / "leases.journal", moment.journal[: parsed.end])
    files.replace(partial / "acknowledged", pack_noted(noted))
    if (data / "clock.json").exists():
        files.replace(partial / "clock.json", (data / "clock.json").read_bytes())
    return parsed


def _copy_file(source: Path, target: Path, file: File, done: int, total: int, progress: Progress) -> int:
    """Copy and compare with the manifest. Returns the bytes done in all."""
    digest = hashlib.sha256()
    fd = files.open_file(target)
    try:
        with source.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                files.write(fd, block)
                done += len(block)
                progress("copy", done >> 20, total >> 20)
    except FileNotFoundError:
        raise StoreDamaged(str(source), "it is missing; take another backup") from None
    finally:
        os.close(fd)
    if digest.hexdigest() != file.sha256:
        raise StoreDamaged(
            str(source), "its bytes are not those that were written; `headrace fsck` tells what in it can still be read"
        )
    return done


# ----------------------------------------------------------------------------------------------------------- checking


def _checked(folder: Path, journal: Parsed, source: Path, progress: Progress) -> Report:
    """Raises StoreDamaged, naming the source, unless all in the copy is whole."""
    noted = unpack_noted((folder / "acknowledged").read_bytes())
    with open_copy(folder / "headrace.db") as db:
        report = check_database(db, journal, noted, progress=progress)
    if report.damage:
        first = report.damage[0]
        where = f" (message {first.message} of {first.queue})" if first.queue else ""
        raise StoreDamaged(
            str(source),
            f"{len(report.damage)} findings, the first: {first.what}{where}; `headrace fsck` lists all of them",
        )
    return report


def _counted(folder: Path) -> Report:
    with open_copy(folder / "headrace.db") as db:
        counts = [
            int(value)
            for sql in ("SELECT count(*) FROM queue", "SELECT count(*) FROM topic WHERE arn IS NOT NULL", _MESSAGES)
            for (value,) in db.execute(sql)
        ]
    return Report([], *counts)


_MESSAGES: Final = "SELECT ifnull(sum(messages), 0) FROM progress"


@contextmanager
def open_copy(database: Path) -> Iterator[apsw.Connection]:
    """A database that nobody writes, with no WAL: read without making files beside it."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(f"{database.absolute().as_uri()}?immutable=1", flags=flags)) as db:
        yield db


def _described(folder: Path, progress: Progress) -> dict[str, File]:
    """Of each file its length and hash."""
    paths = sorted(folder.iterdir())
    found: dict[str, File] = {}
    for path in paths:
        progress("hash", len(found), len(paths))
        found[path.name] = hash_of(path)
    return found
