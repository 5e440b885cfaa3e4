"""Is a database whole? Every page, count and message of it, read and judged; nothing is changed.

What a start does not do for a large store: it reads each message and compares its checksum. Used on backups, on what was
restored, and by `headrace fsck`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final, Literal

import apsw
import msgspec

from headrace.errors import StoreError, StoreFailed
from headrace.queue.model import name_of
from headrace.queue.store import schema
from headrace.queue.store.disk import Key, seq_of
from headrace.queue.store.folder import Noted
from headrace.queue.store.journal import Parsed
from headrace.queue.store.loading import DAMAGE, check_counts, check_schema, load, read_commit
from headrace.queue.store.reading import SqliteReads
from headrace.queue.timers import SEQ_BITS

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how far it is, of how much."""

PAGES_TOLD_MAX: Final = 20  # findings of SQLite's own check: more tell no more
MESSAGES_TOLD_MAX: Final = 1_000
_SCAN_MESSAGES: Final = 1_000
_SCAN_BYTES: Final = 16 * 1_048_576


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be. A `notice` needs no repair.

    Attributes:
        place: the file, and the part of it.
        what: in words.
        queue, message: where it is one message: its queue's (or topic's) name, and its number there.
    """

    level: Literal["damage", "notice"]
    place: str
    what: str
    queue: str | None = None
    message: int | None = None


class Report(msgspec.Struct):
    """What was found in a folder, and what is in it."""

    findings: list[Finding] = []
    queues: int = 0
    topics: int = 0
    messages: int = 0
    commit_seq: int = 0

    @property
    def damage(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "damage"]

    def add(self, place: str, what: str, *, level: Literal["damage", "notice"] = "damage") -> None:
        self.findings.append(Finding(level, place, what))


def check_database(db: apsw.Connection, journal: Parsed, noted: Noted | None, *, progress: Progress) -> Report:
    """Read all of a database, and compare it with what stands beside it.

    Args:
        db: only read; one snapshot of it, if others write.
        journal: the lease journal.
        noted: what is known to have been acknowledged; None: nothing is.
    """
    report = Report()
    for check in (_check_pages, _check_tables, _check_commits, _check_messages):
        try:
            check(db, journal, noted, report, progress)
        except DAMAGE as error:
            report.add("headrace.db", f"{error}" or type(error).__name__)
    return report


def _check_pages(db: apsw.Connection, _j: Parsed, _n: Noted | None, report: Report, progress: Progress) -> None:
    progress("pages", 0, 1)
    for (found,) in db.execute(f"PRAGMA integrity_check({PAGES_TOLD_MAX})"):
        if found != "ok":
            report.add("headrace.db", " ".join(str(found).split()))
    progress("pages", 1, 1)


def _check_tables(db: apsw.Connection, journal: Parsed, _n: Noted | None, report: Report, _p: Progress) -> None:
    if db.pragma("user_version") != schema.VERSION:
        report.add("headrace.db", "it is of an older format; the broker converts it when it starts", level="notice")
        return
    check_schema(db)
    stored = load(db, journal.records)
    report.queues, report.topics = len(stored.queues), sum(topic.info is not None for topic in stored.topics)
    check_counts(db)
    for key, reason, at_ms in db.execute("SELECT key, reason, at_ms FROM quarantine ORDER BY key LIMIT 100"):
        what = f"message {seq_of(key)} of queue number {key >> SEQ_BITS} was set aside ({reason}) at {_moment(at_ms)}"
        report.add("quarantine", what, level="notice")


def _moment(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1_000, dt.UTC).isoformat(" ", "seconds")


def _check_commits(db: apsw.Connection, _j: Parsed, noted: Noted | None, report: Report, _p: Progress) -> None:
    report.commit_seq, _ = read_commit(db)
    if noted is not None and noted.commit_seq > report.commit_seq:
        missing = f"commits {report.commit_seq + 1} to {noted.commit_seq} were acknowledged and are missing"
        report.add("headrace.db", missing)


def _check_messages(db: apsw.Connection, _j: Parsed, _n: Noted | None, report: Report, progress: Progress) -> None:
    """Each message of each queue and topic, its checksum compared."""
    owners: list[tuple[int, str]] = [
        (number, name_of(arn or f"(deleted topic {number})")) for number, arn in db.execute(_OWNERS)
    ]
    total = sum(int(messages) for (messages,) in db.execute("SELECT messages FROM progress"))
    damaged: list[tuple[Key, str]] = []
    reads = _Reads(db, damaged)
    for number, name in owners:
        after, more = 0, True
        while more:
            found, after, more = reads.scan(number, after=after, limit=_SCAN_MESSAGES, bytes_max=_SCAN_BYTES)
            report.messages += len(found)
            progress("messages", report.messages, max(total, report.messages))
        _tell(report, name, damaged)


_OWNERS: Final = "SELECT id, arn FROM queue UNION ALL SELECT id, arn FROM topic ORDER BY id"


def _tell(report: Report, owner: str, damaged: list[tuple[Key, str]]) -> None:
    for key, reason in damaged[:MESSAGES_TOLD_MAX]:
        what = "its checksum is wrong" if reason == "checksum" else "it lies on a damaged page"
        report.findings.append(Finding("damage", "message", what, owner, seq_of(key)))
    if len(damaged) > MESSAGES_TOLD_MAX:
        report.add("message", f"{len(damaged) - MESSAGES_TOLD_MAX:,} more messages of {owner} are damaged")
    damaged.clear()


class _Reads(SqliteReads):
    """The store's own reading, damage gathered."""

    def __init__(self, db: apsw.Connection, damaged: list[tuple[Key, str]]) -> None:
        self._reader = db
        self.on_damage = lambda key, reason: damaged.append((key, reason))

    def _explain(self, error: Exception) -> StoreError:
        return StoreFailed(f"{type(error).__name__}: {error}")

    def _suspect(self, error: Exception) -> None:
        """Nobody starts from this connection."""
