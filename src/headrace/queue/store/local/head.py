"""The head of a queue: what of it is in memory.

A queue of five million messages costs the memory of its head: sequence numbers of the next messages, the leases, and a
bounded cache of bodies. The rest is a cursor. Invariant: every message with a seq up to `cursor` is known to the order,
delayed, leased, claimed, or gone; every message beyond it is not.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Protocol

from headrace.queue import limits
from headrace.queue.dedup import DedupWindow
from headrace.queue.fifo import FifoOrder
from headrace.queue.model import Message, QueueCounts, QueueInfo, QueueSettings
from headrace.queue.standard import StandardOrder
from headrace.queue.store.disk import Disk, Key, PutQueue, StoredAttempt, key_of
from headrace.queue.timers import SEQ_BITS, Timers

OBJECT_BYTES = 400  # about what a message's objects themselves take
_RESERVE = 65_536  # numbers reserved at a time: one more row change in so many messages, lost at a restart
_REFILL_BYTES_MAX = 4 * 1_048_576


class BodyCache:
    """Messages that are likely received soon, so that they need not be read from the disk. Full: the newest stay out,
    since what came first is received first."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self) -> None:
        self._messages: dict[Key, Message] = {}
        self._bytes = 0

    def add(self, number: int, messages: list[Message]) -> None:
        kept, size = self._messages, self._bytes
        first = number << SEQ_BITS
        for message in messages:
            size += len(message.body) + len(message.attributes) + OBJECT_BYTES
            if size > limits.BODY_CACHE_BYTES_MAX:
                size -= len(message.body) + len(message.attributes) + OBJECT_BYTES
                break
            kept[first | message.seq] = message
        self._bytes = size

    def pop(self, keys: list[Key]) -> list[Message | None]:
        """The messages that are here, out of it; None for others."""
        pop = self._messages.pop
        found = [pop(key, None) for key in keys]
        if self._bytes:
            self._bytes -= sum(
                [len(message.body) + len(message.attributes) + OBJECT_BYTES for message in found if message is not None]
            )
        return found

    def drop(self, first: Key, last: Key) -> None:
        self.pop([key for key in self._messages if first <= key <= last])


class Shelf(Protocol):
    """Where a queue finds its messages: the state of the store."""

    disk: Disk
    cache: BodyCache

    def deleting(self, key: Key) -> bool:
        """Whether a delete of this message is planned and not yet settled."""


class LocalQueue:
    """One queue: its rules' state, its cursor, its counters."""

    def __init__(self, number: int, info: QueueInfo, *, messages: int = 0, floor: int = 0, reserved: int = 0) -> None:
        self.number = number
        self.info = info
        self.order: StandardOrder | FifoOrder = FifoOrder() if info.settings.fifo else StandardOrder()
        self.delays = Timers()
        self.delayed = 0
        self.due: deque[int] = deque()  # delayed messages whose time has come, until the order has room for them
        self.early: set[int] = set()  # what in `delays` and `due` was taken out of turn: it is not shown any more
        self.dedup = DedupWindow()
        self.attempts: dict[str, StoredAttempt] = {}
        self.claims: dict[str, dict[int, list[int]]] = {}  # reader -> number -> seqs
        self.acknowledged: dict[str, int] = {}  # reader -> number
        self.messages = messages
        self.floor = floor
        self.next_seq = max(reserved, 1)
        self.reserved = reserved
        self.cursor = floor - 1 if floor else 0
        self.all_known = messages == 0
        self.purged_ms: int | None = None
        self.purging = 0  # messages below are counted as gone by a purge that is not durable yet
        self.expire_check_ms: int | None = 0 if messages else None
        self.dropped = False
        self.inbox_of: int | None = None  # the number of the topic that what is sent here is published to
        self.sent = self.received = self.deleted = self.empty_receives = 0
        self.duplicates = self.dead_lettered = self.expired = self.damaged = 0

    def key(self, seq: int) -> Key:
        return key_of(self.number, seq)

    @property
    def rules(self) -> QueueSettings:
        """What a message that comes in is checked by."""
        return self.info.settings

    def row(self) -> PutQueue:
        """The queue as it is kept on the disk."""
        return PutQueue(self.number, self.info, self.floor, self.purged_ms)

    def allot(self) -> int:
        """The next sequence number. Numbers are never reused: not after deletes, not after a crash."""
        seq = self.next_seq
        self.next_seq = seq + 1
        if self.next_seq > self.reserved:
            self.reserved = self.next_seq + _RESERVE
        return seq

    def settle(self, messages: list[Message], cache: BodyCache) -> bool:
        """Sent messages are durable: show them. Whether any became ready."""
        if messages[0].seq < self.floor:
            messages = [message for message in messages if message.seq >= self.floor]
        if not self.info.settings.fifo:
            messages = self._settle_delayed(messages)
        # A refill may have found some on the disk between their commit and now.
        if messages and messages[0].seq <= self.cursor:
            messages = [message for message in messages if message.seq > self.cursor]
        if not messages:
            return False
        if not self.all_known or len(self.order) >= limits.HEAD_MESSAGES_MAX:
            self.all_known = False
            return True
        self.order.add_all(messages)
        self.cursor = messages[-1].seq
        cache.add(self.number, messages)
        return True

    def _settle_delayed(self, messages: list[Message]) -> list[Message]:
        """Let the delayed ones wait for their time; the others."""
        delayed = [message for message in messages if message.visible_ms is not None]
        if not delayed:
            return messages
        for message in delayed:
            assert message.visible_ms is not None
            self.delays.add(message.visible_ms, message.seq)
        self.delayed += len(delayed)
        return [message for message in messages if message.visible_ms is None]

    def take(self, limit: int, now: int, shelf: Shelf, *, reader: str | None = None) -> list[int]:
        """Up to `limit` messages, from memory and then from the disk; they are out of the order.

        Not all that are ready when many were looked at in vain (of locked groups, of noisy tenants): `hungry` tells.
        """
        delay_ms = self.info.settings.delay_ms
        order = self.order
        if self.due and len(order) < limits.HEAD_MESSAGES_MAX:
            self._show_due(shelf)
        out = order.take(limit, now, all_known=self.all_known, delay_ms=delay_ms, reader=reader)
        looked = 0
        while len(out) < limit and not self.all_known and looked < limits.HEAD_LOOK_AHEAD:
            looked += self._refill(shelf)
            out += order.take(limit - len(out), now, all_known=self.all_known, delay_ms=delay_ms, reader=reader)
        return out

    def pick(self, message: Message, now: int, shelf: Shelf) -> bool:
        """Take this message, which is not in flight, out of turn. False: a FIFO queue's order does not allow it."""
        seq, order = message.seq, self.order
        if isinstance(order, FifoOrder):
            looked = 0
            while seq > self.cursor and not self.all_known and looked < limits.HEAD_LOOK_AHEAD:
                looked += self._refill(shelf)
            return order.pick(message, now, delay_ms=self.info.settings.delay_ms)
        if order.pick_recalled(message):
            return True
        if message.visible_ms is not None:
            self.early.add(seq)
            self.delayed -= int(message.visible_ms > now)
        elif seq <= self.cursor:
            order.pick_ready(message)
        return True  # one beyond the cursor is leased when the cursor comes there

    def hungry(self) -> bool:
        """Whether there are messages that no `take` has looked at yet."""
        return not self.all_known or bool(self.due)

    def _show_due(self, shelf: Shelf) -> None:
        """Bring delayed messages whose time has come to the order, a bounded number."""
        seqs = [self.due.popleft() for _ in range(min(len(self.due), limits.DUE_AT_ONCE))]
        groups = shelf.disk.groups(self.number, seqs)
        for seq in seqs:
            if seq in self.early:
                self.early.discard(seq)
            else:
                self.order.recall(seq, groups.get(seq), 0)

    def _refill(self, shelf: Shelf) -> int:
        """Bring the next messages from the disk to the order; how many were looked at."""
        found, last, more = shelf.disk.scan(
            self.number, after=self.cursor, limit=limits.HEAD_REFILL, bytes_max=_REFILL_BYTES_MAX
        )
        new = [message for message in found if self._is_new(message, shelf)]
        self.order.add_all(new)
        shelf.cache.add(self.number, new)
        self.cursor = max(self.cursor, last)
        self.all_known = not more
        return len(found)

    def _is_new(self, message: Message, shelf: Shelf) -> bool:
        """Whether a row beyond the cursor is ready: not leased, received before, delayed, or on its way out (its row
        stands until that commit is done)."""
        delayed = message.visible_ms is not None and not self.info.settings.fifo
        return not delayed and not self.order.leases.knows(message.seq) and not shelf.deleting(self.key(message.seq))

    def advance(self, now: int) -> bool:
        """End leases and delays that are due. Whether messages became ready."""
        order = self.order
        ready = False
        for seq in order.leases.expired(now):
            order.release(seq, now)
            ready = True
        order.leases.tidy()
        due = [seq for _, seq in self.delays.due(now) if seq >= self.floor]
        if due:
            self.due.extend(due)
            self.delayed -= sum([seq not in self.early for seq in due])
            ready = True
        if isinstance(order, FifoOrder) and order.due(now):
            ready = True
        for attempt_id in list(takewhile(lambda key: self._attempt_over(key, now), self.attempts)):
            del self.attempts[attempt_id]
        self.dedup.expire(now)
        return ready

    def _attempt_over(self, attempt_id: str, now: int) -> bool:
        return self.attempts[attempt_id].at_ms + limits.ATTEMPT_MS <= now

    def next_ms(self) -> int | None:
        """When `advance` is due."""
        times = (self.order.next_ms(), self.delays.next_ms())
        return min((ms for ms in times if ms is not None), default=None)

    def idle(self) -> bool:
        """Whether time changes nothing here until somebody uses the queue."""
        forgets = self.attempts or len(self.dedup)
        return self.next_ms() is None and self.expire_check_ms is None and not forgets

    def purge(self, floor: int) -> None:
        """Every message below `floor` is gone; those above have not been shown yet."""
        self.order.clear()
        self.delays.clear()
        self.due.clear()
        self.early.clear()
        for numbers in self.claims.values():  # emptied, not forgotten: a number is never bound twice
            numbers.update({number: [] for number in numbers})
        self.attempts.clear()
        self.delayed = 0
        self.floor = floor
        self.cursor = floor - 1
        self.all_known = True
        if self.purging == floor:
            self.purging = 0

    def counts(self, oldest_ms: int | None, now: int, disk: Disk) -> QueueCounts:
        in_flight = self.order.leases.in_flight()
        delayed = self.delayed
        if self.info.settings.fifo and self.info.settings.delay_ms:
            hidden = disk.sent_after(self.number, now - self.info.settings.delay_ms)
            delayed = sum(not self.order.leases.knows(seq) for seq in hidden)
        return QueueCounts(
            visible=max(0, self.messages - in_flight - delayed),
            in_flight=in_flight,
            delayed=delayed,
            oldest_ms=oldest_ms,
            sent=self.sent,
            received=self.received,
            deleted=self.deleted,
            empty_receives=self.empty_receives,
            duplicates=self.duplicates,
            dead_lettered=self.dead_lettered,
            expired=self.expired,
            damaged=self.damaged,
        )
