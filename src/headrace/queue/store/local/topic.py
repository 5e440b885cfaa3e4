"""A topic in memory: its subscriptions, its dedup window, where its log begins and ends. Messages are on the disk.

Rows of a topic with a seq from `first` on are its log; rows before are bodies that subscribed queues refer to, or nobody.
Invariant: no row is deleted that a message refers to, nor one that a queue still has to be given.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.queue import limits
from headrace.queue.dedup import DedupWindow
from headrace.queue.filters import Policy, Subject
from headrace.queue.model import QueueSettings, Subscription, TopicInfo, TopicSettings
from headrace.queue.store.disk import Key, TopicLog, key_of
from headrace.queue.store.local.head import LocalQueue

TRIM_PAUSE_MS: Final = 50  # after the first slice that freed little; after each further one twice as long, up to …
TRIM_ROUND_MS: Final = limits.SECOND_MS  # … this, which is also the pause between two rounds
_RESERVE: Final = 65_536  # as a queue's
_DELETED: Final = TopicInfo("", TopicSettings(), 0, 0)


class LocalSubscription:
    """A queue that is given what a topic publishes."""

    __slots__ = ("policy", "queue", "stored")

    def __init__(self, queue: LocalQueue, stored: Subscription) -> None:
        self.queue = queue
        self.stored = stored
        self.policy = Policy(stored.filter, stored.scope) if stored.filter else None

    @property
    def live(self) -> bool:
        return self.stored.position is None

    def lets_in(self, subject: Subject) -> bool:
        return self.policy is None or self.policy.lets_in(subject)


class LocalTopic:
    """One topic. `info` None: it is deleted, and here until nobody refers to its messages."""

    def __init__(self, number: int, info: TopicInfo | None, log: TopicLog | None = None) -> None:
        log = log or TopicLog(1, 0, 0, 0)
        self.number = number
        self.deleted = info is None
        self.info = info or _DELETED
        self.dedup = DedupWindow()
        self.subscriptions: dict[int, LocalSubscription] = {}  # by the queue's number, in order of subscription
        self.first = max(log.first, 1)
        self.logged = log.messages
        self.log_bytes = log.bytes
        self.reserved = log.reserved
        self.next_seq = max(log.reserved, 1)
        self.published = self.duplicates = self.damaged = 0
        self.retain_ms: int | None = None  # when to look at the log's retention again
        self.trim_ms: int | None = None  # when to look again for rows before the log that nobody refers to
        self.trimmed = 0  # up to where this round has looked
        self.kept = 0  # how many references to rows it has met
        self.trim_pause_ms = TRIM_PAUSE_MS  # after a slice that freed little
        self.bare = False  # deleted, and no row is left

    @property
    def rules(self) -> QueueSettings:
        """What a message that is published is checked by, in a queue's words."""
        settings = self.info.settings
        return QueueSettings(fifo=settings.fifo, content_dedup=settings.content_dedup)

    @property
    def logs(self) -> bool:
        """Whether what is published goes to the log: it has a retention, or is not empty yet since it had one."""
        return self.info.settings.logs or self.logged > 0 or self.held() is not None

    def log(self) -> TopicLog:
        """The log as it is kept on the disk."""
        return TopicLog(self.first, self.logged, self.log_bytes, self.reserved)

    def key(self, seq: int) -> Key:
        return key_of(self.number, seq)

    def allot(self) -> int:
        """The next sequence number; never given again, as a queue's."""
        seq = self.next_seq
        self.next_seq = seq + 1
        if self.next_seq > self.reserved:
            self.reserved = self.next_seq + _RESERVE
        return seq

    def subscribe(self, queue: LocalQueue, stored: Subscription) -> LocalSubscription:
        """Subscribe a queue, or change its subscription, which keeps its place."""
        one = LocalSubscription(queue, stored)
        self.subscriptions[queue.number] = one
        return one

    def lag(self, one: LocalSubscription) -> int:
        """About how many logged messages the queue has yet to be given: numbers have gaps where the broker was restarted."""
        position = one.stored.position
        return 0 if position is None else min(self.logged, max(0, self.next_seq - 1 - position))

    def live(self) -> list[LocalSubscription]:
        return [one for one in self.subscriptions.values() if one.live]

    def catching_up(self) -> list[LocalSubscription]:
        return [one for one in self.subscriptions.values() if not one.live]

    def held(self) -> int | None:
        """Messages behind this seq are still to be given to a queue; None: none are."""
        return min((one.stored.position for one in self.catching_up() if one.stored.position is not None), default=None)

    def drop_front(self, count: int, size: int, first: int) -> None:
        """The log's oldest messages leave it; their rows stay until nobody refers to them."""
        self.logged -= count
        self.log_bytes -= size
        self.first = first
        self.seek_trim()

    def seek_trim(self, at_ms: int = 0) -> None:
        """There may be rows to be deleted: look for them, from `at_ms` on."""
        if self.trim_ms is None:
            self.trim_ms = at_ms

    def with_settings(self, settings: TopicSettings, now: int) -> TopicInfo:
        return msgspec.structs.replace(self.info, settings=settings, modified_ms=now)
