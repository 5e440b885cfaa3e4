"""A SQLite store as the source or the target of a copy (`copying.py`).

A target is made beside its place, under another name, which it gives up when it is whole. `copy.json` in it tells from what.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from headrace.clock import Anchor, Clock, SteadyClock, boot_id, uptime_ns
from headrace.errors import StoreDamaged, StoreUnusable
from headrace.queue import limits
from headrace.queue.dedup import digest_of, key_of_digest
from headrace.queue.model import Message, Sent
from headrace.queue.store import copying, files
from headrace.queue.store.copying import DedupRecord, MessageRecord, QueueRecord, Rest, Source, StateKey, TopicRecord
from headrace.queue.store.disk import (
    Batch,
    Change,
    Dedup,
    DropQueue,
    Key,
    LeaseRecord,
    PutClaim,
    PutFence,
    PutMove,
    PutQueue,
    PutReader,
    PutState,
    PutSubscription,
    PutTopic,
    Stored,
    TopicLog,
    key_of,
    seq_of,
)
from headrace.queue.store.folder import Folder
from headrace.queue.store.new_folder import must_be_free
from headrace.queue.store.small_tables import RESERVED_MAX
from headrace.queue.store.sqlite import SqliteDisk
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

COPYING: Final = ".copying"
_STATE: Final = "SELECT name, key, value FROM state WHERE (name, key) > (?, ?) ORDER BY name, key"


class _Disk(SqliteDisk):
    """A disk that also says what only a copy asks for."""

    def position(self) -> str:
        """Changes with whatever is written."""
        return f"{self._seq}.{self._journal.number}.{self._journal.size_bytes}"

    def last_seq(self, number: int) -> int:
        """The highest number of a message that a queue or topic has."""
        keys = (key_of(number, 0), key_of(number, SEQ_MASK))
        ((last,),) = self._query("SELECT max(key) FROM message WHERE key BETWEEN ? AND ?", keys)
        return seq_of(last) if last is not None else 0

    def all_state(self, after: StateKey) -> list[tuple[str, bytes, bytes]]:
        """The next values of all names."""
        found: list[tuple[str, bytes, bytes]] = []
        size = 0
        for row in self._each(_STATE, after):
            found.append(row)
            size += len(row[2])
            if len(found) == copying.BATCH or size > copying.BATCH_BYTES:
                break
        return found

    def last_state(self) -> StateKey:
        for name, key in self._query("SELECT name, key FROM state ORDER BY name DESC, key DESC LIMIT 1", ()):
            return name, key
        return "", b""


class SqliteSource:
    """All of a stopped store; it is locked until `close`."""

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        """`clock`: for tests. Raises StoreUnusable: it is no store, or a broker has it. StoreDamaged."""
        if not (folder / "headrace.db").is_file():
            raise StoreUnusable(
                str(folder), "there is no headrace.db in it; name the folder that the broker's --data names"
            )
        self.place = str(folder)
        data = Folder(folder)
        try:
            self._disk = _Disk(data)
        except BaseException:
            data.close()
            raise
        self._disk.on_damage = self._damaged
        self._stored = self._disk.load()
        self._clock = clock or SteadyClock(data.anchor(), floor_ms=self._disk.latest_ms())
        self._now = self._clock()
        self._numbers = _numbers(self._stored)
        self._names = {number: arn for arn, number in self._numbers.items()}
        if self._stored.fifo_closed_until_ms > self._now:
            self.close()
            raise StoreUnusable(
                self.place, "leases of FIFO queues were lost to damage: run a broker on it for 12 hours first"
            )
        self._leases = {one.key: one.lease for one in self._stored.leases}
        self._claimed = {key_of(one.queue, seq) for one in self._stored.claims for seq in one.seqs}

    def _damaged(self, key: Key, reason: str) -> NoReturn:
        where = f"message {seq_of(key)} of {self._names.get(key >> SEQ_BITS, 'a queue that is gone')}"
        raise StoreDamaged(self.place, f"{where}: {reason}; a broker's start puts it aside, `headrace fsck` lists all")

    def identity(self) -> str:
        return f"{self._stored.secret.hex()[:16]}/{self._disk.position()}"

    def now(self) -> int:
        return self._clock()

    def total(self) -> int:
        return sum(one.messages for one in self._stored.queues) + sum(
            one.log.messages for one in self._stored.topics if one.info is not None
        )

    def queues(self) -> list[QueueRecord]:
        return [QueueRecord(one.info, one.floor, one.purged_ms, one.reserved) for one in self._stored.queues]

    def topics(self) -> list[TopicRecord]:
        return [
            TopicRecord(one.info, max(1, one.log.first), one.log.reserved)
            for one in self._stored.topics
            if one.info is not None
        ]

    def messages(self, queue: str, after: int) -> list[MessageRecord]:
        number = self._numbers[queue]
        floor = next(one.floor for one in self._stored.queues if one.number == number)
        return [self._record(number, one) for one in self._scan(number, max(after, floor - 1))]

    def _scan(self, number: int, after: int) -> list[Message]:
        return self._disk.scan(number, after=after, limit=copying.BATCH, bytes_max=copying.BATCH_BYTES)[0]

    def _record(self, number: int, message: Message) -> MessageRecord:
        key = key_of(number, message.seq)
        lease, claimed = self._leases.get(key), key in self._claimed
        if lease is None or not lease.receives:
            return MessageRecord(message, claimed=claimed)
        until_ms = 0 if claimed else lease.expires_ms
        return MessageRecord(message, until_ms, lease.receives, lease.received_ms, lease.first_ms, claimed)

    def published(self, topic: str, after: int) -> list[Message]:
        number = self._numbers[topic]
        first = next(one.log.first for one in self._stored.topics if one.number == number)
        return self._scan(number, max(after, first - 1))

    def state(self, after: StateKey) -> list[tuple[str, bytes, bytes]]:
        return self._disk.all_state(after)

    def rest(self) -> Rest:
        stored, names = self._stored, self._names
        return Rest(
            sorted(
                DedupRecord(names[one.queue], digest_of(one.key), one.sent.id, one.sent.seq, one.expires_ms)
                for one in stored.dedups
                if one.queue in names and one.expires_ms > self._now
            ),
            sorted((names[one.queue], one.reader, one.number, self._there(one)) for one in stored.claims),
            sorted((names[one.queue], one.reader, one.acknowledged or 0) for one in stored.readers),
            sorted(stored.moves, key=lambda task: task.handle),
            dict(sorted(stored.fences.items())),
            {arn: ms for arn, ms in stored.deleted_queues.items() if ms + limits.COOLDOWN_MS > self._now},
            sorted(
                ((names[one.topic], one.details) for one in stored.subscriptions if one.details and one.topic in names),
                key=lambda one: (one[0], one[1].queue),
            ),
        )

    def _there(self, claim: PutClaim) -> list[int]:
        floor = next(one.floor for one in self._stored.queues if one.number == claim.queue)
        return [seq for seq in claim.seqs if seq >= floor]

    def close(self) -> None:
        self._disk.close()


class SqliteTarget:
    """A new store in `folder`, made in `folder.copying`."""

    def __init__(self, folder: Path) -> None:
        must_be_free(folder)
        self.place = str(folder)
        self._folder = folder
        self._partial = folder.with_name(folder.name + COPYING)
        self._disk: _Disk | None = None
        self._now = 0
        self._numbers: dict[str, int] = {}
        self._counts: dict[int, tuple[int, int]] = {}  # number -> messages, their bytes
        self._last: dict[int, int] = {}

    def begin(self, source: Source) -> None:
        self._now = source.now()
        begun = self._partial / "copy.json"
        self._open()
        if begun.exists():
            self._check_same(msgspec.json.decode(begun.read_bytes(), type=str), source)
            return
        if self._numbers:  # killed before it was said from what
            self.close()
            shutil.rmtree(self._partial)
            self._open()
        self._make(source)
        self._open_disk.anchor(Anchor(boot_id(), uptime_ns(), source.now()))
        files.replace(begun, msgspec.json.encode(source.identity()))
        files.sync_folder(self._partial)

    def _check_same(self, begun: str, source: Source) -> None:
        if begun != source.identity():
            self.close()
            raise StoreUnusable(
                str(self._partial),
                f"a copy of another store, or of {source.place} before it was last used, has begun there; remove it first",
            )

    def _open(self) -> None:
        disk = self._disk = _Disk(Folder(self._partial))
        stored = disk.load()
        self._numbers = _numbers(stored)
        for queue in stored.queues:
            self._know(queue.number, queue.messages, 0)
        for topic in stored.topics:
            self._know(topic.number, topic.log.messages, topic.log.bytes)

    def _know(self, number: int, messages: int, size: int) -> None:
        self._counts[number] = messages, size
        self._last[number] = self._open_disk.last_seq(number)

    @property
    def _open_disk(self) -> _Disk:
        assert self._disk is not None
        return self._disk

    def _make(self, source: Source) -> None:
        changes: list[Change] = []
        batch = Batch(changes=changes)
        for number, queue in enumerate(source.queues(), start=1):
            self._check_number(queue.last, source)
            changes.append(PutQueue(number, queue.info, queue.floor, queue.purged_ms))
            batch.progress[number] = (0, max(queue.last, queue.floor))
            self._numbers[queue.info.arn] = number
        for number, topic in enumerate(source.topics(), start=len(self._numbers) + 1):
            self._check_number(topic.last, source)
            changes.append(PutTopic(number, topic.info))
            batch.logs[number] = TopicLog(topic.first, 0, 0, max(topic.last, topic.first))
            self._numbers[topic.info.arn] = number
        self._counts = dict.fromkeys(self._numbers.values(), (0, 0))
        self._last = dict.fromkeys(self._numbers.values(), 0)
        self._commit(batch)

    def _check_number(self, last: int, source: Source) -> None:
        if last >= RESERVED_MAX:
            raise StoreUnusable(source.place, f"it has given number {last}, a SQLite store has room for {RESERVED_MAX}")

    def _commit(self, batch: Batch) -> None:
        batch.now_ms = self._now
        self._open_disk.prepare(batch)
        self._open_disk.commit()
        if self._open_disk.tidy_due():
            self._open_disk.tidy()

    def done(self) -> int:
        return sum(messages for messages, _ in self._counts.values())

    def last_message(self, queue: str) -> int:
        return self._last[self._numbers[queue]]

    last_published = last_message

    def last_state(self) -> StateKey:
        return self._open_disk.last_state()

    def put_messages(self, queue: QueueRecord, records: list[MessageRecord]) -> None:
        """The leases first: without its message one is nothing, and a message without its lease would look never received."""
        number = self._numbers[queue.info.arn]
        for lease in _leases(number, records):
            self._open_disk.lease(lease)
        self._open_disk.flush_leases()
        messages = self._counts[number][0] + len(records)
        self._commit(
            Batch(
                inserts=[(number, one.message) for one in records],
                progress={number: (messages, max(queue.last, queue.floor))},
                sync_leases=True,
            )
        )
        self._counts[number] = messages, 0
        self._last[number] = records[-1].message.seq

    def put_published(self, topic: TopicRecord, messages: list[Message]) -> None:
        number = self._numbers[topic.info.arn]
        count, size = self._counts[number]
        count, size = count + len(messages), size + sum(len(one.body) + len(one.attributes) for one in messages)
        logs = {number: TopicLog(topic.first, count, size, max(topic.last, topic.first))}
        self._commit(Batch(inserts=[(number, one) for one in messages], logs=logs))
        self._counts[number] = count, size
        self._last[number] = messages[-1].seq

    def put_state(self, values: list[tuple[str, bytes, bytes]]) -> None:
        self._commit(Batch(changes=[PutState(*one) for one in values]))

    def put_rest(self, rest: Rest) -> None:
        """What an earlier try has put goes first, so that nothing is there twice."""
        number = self._numbers
        changes: list[Change] = [PutReader(number[queue], reader, None) for queue, reader, *_ in rest.claims]
        changes += [DropQueue(0, arn, ms) for arn, ms in rest.deleted.items() if arn not in number]
        changes += [PutFence(name, epoch) for name, epoch in rest.fences.items()]
        changes += [PutReader(number[queue], reader, last) for queue, reader, last in rest.readers]
        changes += [PutClaim(number[queue], reader, one, seqs) for queue, reader, one, seqs in rest.claims]
        changes += [PutMove(task) for task in rest.moves]
        changes += [PutSubscription(number[topic], number[one.queue], one) for topic, one in rest.subscriptions]
        known = {(one.queue, one.key) for one in self._open_disk.load().dedups}
        dedups = [
            Dedup(number[one.place], key_of_digest(one.digest), Sent(one.id, one.seq), one.expires_ms)
            for one in sorted(rest.dedups, key=lambda one: one.expires_ms)
            if (number[one.place], key_of_digest(one.digest)) not in known
        ]
        self._commit(Batch(changes=changes, dedups=dedups))

    def reader(self) -> Source:
        self.close()
        return SqliteSource(self._partial, clock=lambda: self._now)

    def publish(self) -> None:
        self.close()
        files.sync_folder(self._partial)
        if self._folder.exists():
            self._folder.rmdir()
        files.rename(self._partial, self._folder)
        files.sync_folder(self._folder.parent)
        (self._folder / "copy.json").unlink()

    def close(self) -> None:
        disk, self._disk = self._disk, None
        if disk is not None:
            disk.close()


def _numbers(stored: Stored) -> dict[str, int]:
    topics = {one.info.arn: one.number for one in stored.topics if one.info is not None}
    return {one.info.arn: one.number for one in stored.queues} | topics


def _leases(number: int, records: list[MessageRecord]) -> list[LeaseRecord]:
    together: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for one in records:
        if one.receives:
            items = together.setdefault((one.received_ms, one.until_ms), [])
            items.append((one.message.seq, one.receives, one.first_ms))
    return [LeaseRecord(number, received_ms, until_ms, items) for (received_ms, until_ms), items in together.items()]
