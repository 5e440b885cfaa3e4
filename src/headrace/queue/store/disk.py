"""What a local store asks of its disk: one owner's rows, written in commits, read by key.

The rules live in memory (`store/local`); a disk only keeps. Two exist: SQLite (`store/sqlite.py`) and plain memory
(`store/memory.py`, for tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from headrace.clock import Anchor
from headrace.queue.leases import Lease
from headrace.queue.model import Message, MoveTask, QueueInfo, Sent, Subscription, TopicInfo
from headrace.queue.timers import SEQ_BITS, SEQ_MASK

Key: TypeAlias = int
"""A message's key: queue number << 40 | seq. One integer, so each queue's rows lie together and in order."""


def key_of(queue: int, seq: int) -> Key:
    return queue << SEQ_BITS | seq


def seq_of(key: Key) -> int:
    return key & SEQ_MASK


# The rare rows of a commit, as records; each disk has a line for each.


class PutQueue(msgspec.Struct, frozen=True):
    """A queue is created or changed. Messages with a seq below `floor` are purged, the last time at `purged_ms`."""

    number: int
    info: QueueInfo
    floor: int
    purged_ms: int | None


class DropQueue(msgspec.Struct, frozen=True):
    number: int
    arn: str
    deleted_ms: int


class PutGarbage(msgspec.Struct, frozen=True):
    """Messages with keys in first … last are gone; their rows are deleted later, slice by slice."""

    first: Key
    last: Key


class PutState(msgspec.Struct, frozen=True):
    """State under (name, key); value None deletes it."""

    name: str
    key: bytes
    value: bytes | None


class PutFence(msgspec.Struct, frozen=True):
    name: str
    epoch: int


class PutClaim(msgspec.Struct, frozen=True):
    queue: int
    reader: str
    number: int
    seqs: list[int]


class PutReader(msgspec.Struct, frozen=True):
    """The reader has acknowledged its claims up to `acknowledged`; None: the reader is forgotten, its claims too."""

    queue: int
    reader: str
    acknowledged: int | None


class PutMove(msgspec.Struct, frozen=True):
    task: MoveTask


class PutTopic(msgspec.Struct, frozen=True):
    """A topic is created or changed. `info` None: it is deleted; its row stays while queues refer to its messages."""

    number: int
    info: TopicInfo | None


class ForgetTopic(msgspec.Struct, frozen=True):
    """Nobody refers to a deleted topic's messages any more."""

    number: int


class PutSubscription(msgspec.Struct, frozen=True):
    """Queue number `queue` is subscribed to topic number `topic`, as `details` say; None: no more."""

    topic: int
    queue: int
    details: Subscription | None


class TopicLog(msgspec.Struct, frozen=True):
    """A topic's log: it begins at seq `first` and holds `messages` of `bytes`. `reserved` as a queue's."""

    first: int
    messages: int
    bytes: int
    reserved: int


CHECKSUM: Final = "checksum"  # the row is there, and not what was written
PAGE: Final = "damaged page"  # the row cannot be read, nor deleted


class Quarantine(msgspec.Struct, frozen=True):
    """A damaged message leaves its queue; what is left of it is kept aside for the operator."""

    key: Key
    reason: str
    at_ms: int


Change: TypeAlias = (
    PutQueue
    | DropQueue
    | PutGarbage
    | PutState
    | PutFence
    | PutClaim
    | PutReader
    | PutMove
    | PutTopic
    | ForgetTopic
    | PutSubscription
    | Quarantine
)


class Dedup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    queue: int
    key: str
    sent: Sent
    expires_ms: int


class Batch(msgspec.Struct):
    """The rows of one commit.

    Attributes:
        inserts: (queue number, message).
        deletes: keys.
        dedups: dedup ids seen.
        changes: rare rows, in order.
        progress: queue number -> (messages, reserved): how many it has, and up to where numbers may have been given.
        sync_leases: the leases written before this commit must be on the disk too.
        references: key of an insert -> key of the topic's message that has its body: so the body is stored once.
        logs: topic number -> its log, where it has changed.
        now_ms: steady time.
    """

    inserts: list[tuple[int, Message]] = []
    deletes: set[Key] = set()
    dedups: list[Dedup] = []
    changes: list[Change] = []
    progress: dict[int, tuple[int, int]] = {}
    sync_leases: bool = False
    references: dict[Key, Key] = {}
    logs: dict[int, TopicLog] = {}
    now_ms: int = 0

    def __bool__(self) -> bool:
        return self.sync_leases or self.rows()

    def rows(self) -> bool:
        return bool(self.inserts or self.deletes or self.dedups or self.changes or self.logs)


class StoredQueue(msgspec.Struct, frozen=True):
    number: int
    info: QueueInfo
    floor: int
    purged_ms: int | None
    messages: int
    reserved: int


class StoredTopic(msgspec.Struct, frozen=True):
    """`info` None: it is deleted, and queues may still refer to its messages."""

    number: int
    info: TopicInfo | None
    log: TopicLog


class StoredLease(msgspec.Struct, frozen=True):
    key: Key
    lease: Lease


class StoredAttempt(msgspec.Struct, frozen=True):
    """A FIFO receive's attempt id, and the (seq, receives) that it was answered."""

    queue: int
    attempt_id: str
    at_ms: int
    expires_ms: int
    leased: list[tuple[int, int]]


class Stored(msgspec.Struct):
    """What a disk knew when it was opened: everything that is held in memory afterwards. Messages stay there.

    `lost`: queue number -> how many of its messages were found lost to damage. `fifo_closed_until_ms`: leases were lost
    to damage, and until then one of a FIFO queue may be alive: no group may have a new owner before.
    """

    secret: bytes
    queues: list[StoredQueue] = []
    last_queue: int = 0
    delayed: list[tuple[Key, int]] = []
    leases: list[StoredLease] = []
    attempts: list[StoredAttempt] = []
    dedups: list[Dedup] = []
    claims: list[PutClaim] = []
    readers: list[PutReader] = []
    moves: list[MoveTask] = []
    fences: dict[str, int] = {}
    deleted_queues: dict[str, int] = {}
    garbage: list[PutGarbage] = []
    topics: list[StoredTopic] = []
    last_topic: int = 0
    subscriptions: list[PutSubscription] = []
    lost: dict[int, int] = {}
    fifo_closed_until_ms: int = 0


class Trimmed(msgspec.Struct, frozen=True):
    """What a slice of trimming did: rows deleted, references met, up to which seq; whether there is more behind it."""

    gone: int
    references: int
    last: int
    more: bool


class LeaseRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Messages of a queue leased, or their visibility changed: what the lease journal keeps.

    `items`: (seq, receives, first_ms). `expires_ms` in the past: visible again.
    """

    queue: int
    received_ms: int
    expires_ms: int
    items: list[tuple[int, int, int]]
    attempt_id: str | None = None


class Disk(Protocol):
    """Rows, durable. Not thread-safe, except that `commit`, `tidy` and `tidy_aside` may run in another thread beside the reads."""

    durable: bool
    sync_seconds: float
    """How long a sync takes of late, the work before it left out: what decides where a commit runs."""

    def load(self) -> Stored: ...

    def prepare(self, batch: Batch) -> None:
        """Bring the rows of a commit to the store, not durable and to nobody's sight yet. Raises StoreFull, Unavailable
        (nothing was changed) or StoreFailed (for good)."""

    def commit(self) -> None:
        """Make what was prepared durable. Raises as `prepare`. The one call that waits for the disk."""

    def tidy_due(self) -> bool:
        """Whether `tidy` has something to do."""

    def tidy_aside(self) -> None:
        """The bulk of what `tidy` does, in another thread while commits go on; `tidy` then has little left."""

    def tidy(self) -> None:
        """Work that need not be waited for: a checkpoint. Raises StoreFailed."""

    def lease(self, record: LeaseRecord) -> None:
        """Note leases; `flush_leases` writes what was noted."""

    def flush_leases(self) -> None:
        """Write noted leases so that they survive the process. Raises StoreFull or StoreFailed."""

    def leases_want_snapshot(self) -> bool:
        """Whether the journal has grown so much that `snapshot_leases` should replace it."""

    def snapshot_leases(self, records: Iterable[LeaseRecord]) -> None: ...

    def read(self, keys: Sequence[Key]) -> dict[Key, Message]:
        """The messages that exist and are whole. Damaged ones are told to `on_damage`."""

    def scan(self, queue: int, *, after: int, limit: int, bytes_max: int) -> tuple[list[Message], int, bool]:
        """Messages with seq > after, ascending, at most so many: (messages, the last seq looked at, whether more
        may follow). Damaged ones are told to `on_damage`."""

    def groups(self, queue: int, seqs: Sequence[int]) -> dict[int, str]:
        """The groups of those messages that have one."""

    def first(self, queue: int, *, after: int) -> tuple[int, int] | None:
        """(seq, sent_ms) of the first message with seq > after."""

    def sent_after(self, queue: int, sent_ms: int) -> list[int]:
        """Seqs of the newest messages, down to the first that was not sent after `sent_ms`."""

    def expired(self, queue: int, *, after: int, sent_before_ms: int, limit: int) -> list[int]:
        """Seqs > after of messages sent before then, from the queue's front; and of moved ones, wherever they are."""

    def state(self, name: str, *, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bytes]]: ...

    def log_front(self, topic: int, *, after: int, limit: int) -> list[tuple[int, int, int]]:
        """(seq, sent_ms, bytes of body and attributes) of the first messages with seq > after."""

    def trim(self, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
        """Of a topic's rows with after < seq < before, delete those that no message refers to, in a commit; at most so many
        of them, and over at most so many references."""

    def sweep(self, limit: int) -> bool:
        """Delete up to `limit` rows of garbage, in a commit; whether more is left."""

    def reserve(self) -> bool:
        """Keep room for deletes on a full disk, if there is room for more than that; whether it is kept."""

    def reserved(self) -> bool:
        """Whether that room is kept; not once it had to be used."""

    def size_bytes(self) -> int: ...

    def anchor(self, anchor: Anchor) -> None:
        """Keep the clock's anchor for the next start."""

    def close(self) -> None: ...

    on_damage: Callable[[Key, str], None]
