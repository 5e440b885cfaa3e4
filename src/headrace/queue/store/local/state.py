"""What a local store remembers, and the commit that its planners fill.

Planners (`messages.py`, `queues.py`, `transact.py`, `claims.py`, `moves.py`) are functions `plan(state, operation,
now) -> outcome`. They change memory at once where nobody can see it before the commit is durable (numbers, dedup ids,
leases being deleted) and leave the rest to `settle`. Each change of memory that a refused commit must take back is
noted in the plan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from headrace.errors import QueueNotFound, TopicNotFound
from headrace.queue.leases import Lease
from headrace.queue.model import Message, MoveTask
from headrace.queue.operations import Operation
from headrace.queue.receipts import Receipts
from headrace.queue.store.base import Done, Ready
from headrace.queue.store.disk import CHECKSUM, Batch, Change, Disk, Key, PutState, Quarantine
from headrace.queue.store.local.head import BodyCache, LocalQueue
from headrace.queue.store.local.topic import LocalTopic
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

log = logging.getLogger("headrace.store")

Held: TypeAlias = tuple[LocalQueue, int, Lease, bool, int]
"""A message taken out for deletion, put back if the commit is refused: (queue, seq, its lease, whether that was active,
how much it counted)."""


class Plan(msgspec.Struct):
    """A commit being gathered: its rows, who waits for it, what to show afterwards, what to take back if it is refused.

    `sent`: (queue, messages, whether they count as sent: not dead letters and moved ones). `touched`: queues whose
    message count or numbers changed. `puts`: (name, key) of state to the value that it will have. `logs`: topics whose
    log changed. `caught_up`: a slice for queues that are catching up is in it.
    """

    batch: Batch
    waiting: list[tuple[Done, Any, Operation]] = []
    sent: list[tuple[LocalQueue, list[Message], bool]] = []
    held: list[Held] = []
    settle: list[Callable[[int], None]] = []
    undo: list[Callable[[], None]] = []
    touched: dict[int, LocalQueue] = {}
    puts: dict[tuple[str, bytes], bytes | None] = {}
    logs: dict[int, LocalTopic] = {}
    caught_up: bool = False

    def weight(self) -> int:
        """Grows with everything that is planned, and with nothing else."""
        batch = self.batch
        rows = len(batch.inserts) + len(batch.deletes) + len(batch.dedups) + len(batch.changes)
        return rows + len(self.held) + len(self.settle) + len(self.undo)


class LocalState:
    """The memory of a local store. Its methods are what planners share; none does I/O but `load` and `read`."""

    def __init__(self, disk: Disk, secret: bytes, *, cooldowns: bool) -> None:
        self.disk = disk
        self.receipts = Receipts(secret)
        self.cooldowns = cooldowns
        self.cache = BodyCache()
        self.queues: dict[str, LocalQueue] = {}
        self.by_number: dict[int, LocalQueue] = {}
        self.topics: dict[str, LocalTopic] = {}
        self.topics_by_number: dict[int, LocalTopic] = {}  # deleted ones too, until nobody refers to their messages
        self.topics_due_ms: int | None = (
            0  # before, time changes nothing in a topic (None: ever); 0 when one is changed
        )
        self.watched: dict[int, LocalQueue] = {}  # queues in which time may change something
        self.next_number = 1
        self.deleted_queues: dict[str, int] = {}
        self.fences: dict[str, int] = {}
        self.moves: dict[str, MoveTask] = {}
        self.move_credit: dict[str, tuple[int, float]] = {}  # handle -> (reckoned at, messages it may move)
        self.plan = Plan(Batch())
        self.flying: Plan | None = None  # the commit on its way to the disk
        self.ready: set[Ready] = set()
        self.garbage = False
        self.damaged = 0

    def queue(self, arn: str) -> LocalQueue:
        queue = self.queues.get(arn)
        if queue is None:
            raise QueueNotFound(arn)
        self.watched[queue.number] = queue
        return queue

    def topic(self, arn: str) -> LocalTopic:
        topic = self.topics.get(arn)
        if topic is None:
            raise TopicNotFound(arn)
        self.topics_due_ms = 0
        return topic

    def advance_queue(self, queue: LocalQueue, now: int) -> None:
        """End the queue's leases and delays that are due."""
        next_ms = queue.next_ms()
        if next_ms is not None and next_ms <= now and queue.advance(now):
            self.ready.add(queue.info.arn)

    # --- rows for the commit ---

    def insert(self, queue: LocalQueue, messages: list[Message], *, counted: bool = True) -> None:
        """Store messages with the commit, show them after it. `counted`: they are new, not moved."""
        number = queue.number
        plan = self.plan
        plan.batch.inserts += [(number, message) for message in messages]
        last = plan.sent[-1] if plan.sent else None
        if last is not None and last[0] is queue and last[2] == counted:
            last[1].extend(messages)  # shown together: half the work of showing them one by one
        else:
            plan.sent.append((queue, messages, counted))
        plan.touched[number] = queue
        queue.messages += len(messages)
        if counted:
            queue.sent += len(messages)
        else:
            self.watched[number] = queue

    def remove(self, queue: LocalQueue, keys: Sequence[Key]) -> int:
        """Delete messages' rows with the commit. Returns how many counted: not those that a purge has counted."""
        plan = self.plan
        plan.batch.deletes.update(keys)
        plan.touched[queue.number] = queue
        counted = len(keys) if not queue.purging else sum(key & SEQ_MASK >= queue.purging for key in keys)
        queue.messages -= counted
        return counted

    def change(self, change: Change, undo: Callable[[], None] | None = None) -> None:
        self.plan.batch.changes.append(change)
        if undo is not None:
            self.plan.undo.append(undo)

    def put(self, change: PutState) -> None:
        self.plan.puts[change.name, change.key] = change.value
        self.change(change)

    def value(self, name: str, key: bytes) -> bytes | None:
        """What stands under the key once everything that is planned before is done."""
        for plan in (self.plan, self.flying):
            if plan is not None and (name, key) in plan.puts:
                return plan.puts[name, key]
        found = self.disk.state(name, prefix=key, after=b"", limit=1)  # sorted: the key itself is the first, or absent
        return found[0][1] if found and found[0][0] == key else None

    def deleting(self, key: Key) -> bool:
        """Whether a delete of this message is planned and not yet settled."""
        flying = self.flying
        return key in self.plan.batch.deletes or (flying is not None and key in flying.batch.deletes)

    # --- messages ---

    def load(self, queue: LocalQueue, seqs: Sequence[int]) -> list[Message | None]:
        """The messages that `take` gave, from memory or disk; None: deleted meanwhile, or damaged."""
        number = queue.number << SEQ_BITS
        found = self.cache.pop([number | seq for seq in seqs])
        missing = [number | seq for seq, message in zip(seqs, found, strict=True) if message is None]
        if not missing:
            return found
        wanted = [key for key in missing if not self.deleting(key)]
        read = self.disk.read(wanted)
        return [
            message if message is not None else read.get(number | seq) for seq, message in zip(seqs, found, strict=True)
        ]

    def read(self, queue: LocalQueue, seqs: Iterable[int]) -> dict[int, Message]:
        """Messages by seq, the cache left as it is."""
        number = queue.number << SEQ_BITS
        return {key & SEQ_MASK: message for key, message in self.disk.read([number | seq for seq in seqs]).items()}

    def quarantine(self, key: Key, reason: str, now: int) -> None:
        """A message is damaged: it leaves its queue, and is kept aside."""
        queue = self.by_number.get(key >> SEQ_BITS)
        if queue is None and not self.deleting(key):
            self._quarantine_logged(key, reason, now)
        if queue is None or self.deleting(key):
            return
        self.damaged += 1
        queue.damaged += 1
        counted = self.remove(queue, [key])
        plan = self.plan
        if reason != CHECKSUM:
            plan.batch.deletes.discard(key)
        plan.batch.changes.append(Quarantine(key, reason, now))

        def undo() -> None:
            self.damaged -= 1
            queue.damaged -= 1
            queue.messages += counted

        plan.undo.append(undo)
        log.error(
            "message %d of %s is damaged (%s): quarantined, not delivered", key & SEQ_MASK, queue.info.arn, reason,
            extra={"action": "message.damaged", "queue": queue.info.arn, "seq": key & SEQ_MASK},
        )  # fmt: skip

    def _quarantine_logged(self, key: Key, reason: str, now: int) -> None:
        """A message of a topic's log is damaged: it leaves the log, and is kept aside."""
        topic = self.topics_by_number.get(key >> SEQ_BITS)
        if topic is None:
            return
        self.damaged += 1
        topic.damaged += 1
        seq, size = key & SEQ_MASK, 0  # how long one on a damaged page was, the next start counts
        logged = int(seq >= topic.first)
        if reason == CHECKSUM:
            self.plan.batch.deletes.add(key)
            if logged:
                ((_, _, size),) = self.disk.log_front(topic.number, after=seq - 1, limit=1)
        topic.logged -= logged
        topic.log_bytes -= size
        self.plan.logs[topic.number] = topic

        def undo() -> None:
            self.damaged -= 1
            topic.damaged -= 1
            topic.logged += logged
            topic.log_bytes += size

        self.change(Quarantine(key, reason, now), undo)
        log.error(
            "message %d of %s is damaged (%s): quarantined, not delivered", seq, topic.info.arn, reason,
            extra={"action": "message.damaged", "queue": topic.info.arn, "seq": seq},
        )  # fmt: skip
