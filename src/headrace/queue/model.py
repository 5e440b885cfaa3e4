"""What a message and a queue are: plain records, frozen, that cannot be built half.

Units are in the names: `_ms` milliseconds (points in time: of steady time, since 1970), `_bytes` bytes. `msgspec.Struct`
rather than dataclass because these are built for every message: 0.08 µs against 1.5 µs, and they are the native wire.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from headrace.formatting import short_name as short_name  # noqa: PLC0414 (a word of the model, which errors need too)
from headrace.queue import limits

ID: Final = re.compile(rf"[!-~]{{1,{limits.ID_CHARACTERS_MAX}}}")
"""A group, dedup or attempt id: alphanumerics and punctuation. Source: SQS, SendMessage."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message to be sent.

    Attributes:
        body: 1 byte to the queue's `max_message_bytes`, attributes included.
        attributes: message attributes as `queue.attributes.encode` writes them; empty when there are none.
        delay_ms: hidden for so long after sending, 0 to 14 days and less than the queue's retention (SQS allows 900 s);
            None takes the queue's delay. FIFO: only None or 0.
        group: `MessageGroupId`. FIFO: required, the unit of order. Standard: the tenant for fairness.
        dedup_id: `MessageDeduplicationId`; FIFO only.
        trace: `AWSTraceHeader`, kept as it is, not counted in the size.
        sender: who sent it (`SenderId`), when the listener knows.
        source: the ARN of the queue that gives the message up: it is a dead letter of that queue, and a move task without
            target brings it back there.
    """

    body: bytes
    attributes: bytes = b""
    delay_ms: int | None = None
    group: str | None = None
    dedup_id: str | None = None
    trace: str | None = None
    sender: str | None = None
    source: str | None = None


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored message: everything that is written once. What changes (leases, counts) is kept apart.

    Attributes:
        seq: its number in the queue, rising, never reused: the `SequenceNumber`.
        id: 16 random bytes, the `MessageId`; kept by a move to the dead-letter queue.
        sent_ms: when it was first sent; retention runs from here.
        visible_ms: hidden until then (a delayed message), or None.
        receives: receives before it came to this queue (a dead letter's count goes on).
        first_received_ms: its first receive before it came to this queue, or None.
        source: the ARN of the queue it was a dead letter of, or None.
    """

    seq: int
    id: bytes
    body: bytes
    attributes: bytes
    sent_ms: int
    visible_ms: int | None = None
    group: str | None = None
    dedup_id: str | None = None
    trace: str | None = None
    sender: str | None = None
    receives: int = 0
    first_received_ms: int | None = None
    source: str | None = None


class Delivery(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message handed to a consumer.

    Attributes:
        message: the message.
        receipt: what deletes, extends or releases this very delivery; opaque bytes, unforgeable.
        receives: how often it has been received, this time included (`ApproximateReceiveCount`).
        first_received_ms: when it was first received.
    """

    message: Message
    receipt: bytes
    receives: int
    first_received_ms: int


class Sent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A send's answer. `duplicate`: the dedup id was seen before; id and seq are the first message's."""

    id: bytes
    seq: int
    duplicate: bool = False


class Redrive(msgspec.Struct, frozen=True):
    """`RedrivePolicy`: after `receives_max` receives (1 to 1,000) a message moves to queue `target` (an ARN)."""

    target: str
    receives_max: int


class RedriveAllow(msgspec.Struct, frozen=True):
    """`RedriveAllowPolicy`: who may name this queue as dead-letter queue. `sources` (ARNs) only with byQueue."""

    permission: str = "allowAll"
    sources: tuple[str, ...] = ()


class QueueSettings(msgspec.Struct, frozen=True):
    """A queue's settings; the SQS name of each stands in `sqs/attributes.py`, each range in `queue/settings.py`.

    `stored` holds attributes that the queue keeps and does not read (`Policy`, `KmsMasterKeyId`, …), by SQS name.
    """

    fifo: bool = False
    delay_ms: int = 0
    max_message_bytes: int = limits.MESSAGE_BYTES_MAX
    retention_ms: int = limits.RETENTION_DEFAULT_MS
    wait_ms: int = 0
    visibility_ms: int = limits.VISIBILITY_DEFAULT_MS
    redrive: Redrive | None = None
    redrive_allow: RedriveAllow = RedriveAllow()
    content_dedup: bool = False
    dedup_scope: str = "queue"
    throughput_limit: str = "perQueue"
    stored: dict[str, str] = {}


class QueueInfo(msgspec.Struct, frozen=True):
    """A queue as the directory knows it: identity, settings, tags. `arn` is its key everywhere."""

    arn: str
    settings: QueueSettings
    tags: dict[str, str]
    created_ms: int
    modified_ms: int


class QueueCounts(msgspec.Struct, frozen=True):
    """How many messages of a queue are in which state, and since when the oldest waits.

    `visible` can be received now; `in_flight` are leased (claimed ones included); `delayed` are not yet due.
    `oldest_ms` is the sent time of the oldest message that waits, None when none does.
    The rest are totals since the broker started.
    """

    visible: int = 0
    in_flight: int = 0
    delayed: int = 0
    oldest_ms: int | None = None
    sent: int = 0
    received: int = 0
    deleted: int = 0
    empty_receives: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    expired: int = 0
    damaged: int = 0


class QueueDescription(msgspec.Struct, frozen=True):
    info: QueueInfo
    counts: QueueCounts


class Peeked(msgspec.Struct, frozen=True):
    """A message looked at, without receiving it. `state`: visible, in_flight, delayed or claimed."""

    message: Message
    state: str
    receives: int


class MoveTask(msgspec.Struct, frozen=True):
    """A message move task (`StartMessageMoveTask`). `target` None: each message back to the queue it came from.

    `status`: RUNNING, COMPLETED, CANCELLING, CANCELLED or FAILED.
    """

    handle: str
    source: str
    target: str | None
    rate_max: int | None
    status: str
    started_ms: int
    moved: int
    to_move: int
    failure: str | None = None


class ClaimState(msgspec.Struct, frozen=True):
    """Which claims a reader has on a queue: those in `acknowledged + 1 … last` are open."""

    acknowledged: int
    last: int


class HolderState(msgspec.Struct, frozen=True):
    """Somebody who is present (`Hold`): a worker, a pipeline, a web server.

    Attributes:
        holder: its name.
        kind: what it is.
        since_ms: present since then.
        seen_ms: when it was last heard of.
        leases: how many leases are tied to it.
        facts: what it says of itself.
    """

    holder: str
    kind: str
    since_ms: int
    seen_ms: int
    leases: int
    facts: dict[str, Any]


class TopicSettings(msgspec.Struct, frozen=True):
    """A topic's settings; each range in `queue/topics.py`.

    Attributes:
        fifo: keeps order per group into FIFO queues; fixed when the topic is created.
        content_dedup: FIFO: a message without a dedup id takes the SHA-256 of its body.
        retention_ms: how long its log keeps a message; 0: no bound by age.
        retention_bytes: how many bytes its log keeps, oldest dropped first; 0: no bound by size. Both 0: no log.
        inbox: ARN of the queue whose messages are published instead of stored, or None.
    """

    fifo: bool = False
    content_dedup: bool = False
    retention_ms: int = 0
    retention_bytes: int = 0
    inbox: str | None = None

    @property
    def logs(self) -> bool:
        """Whether what is published is kept for replay."""
        return bool(self.retention_ms or self.retention_bytes)


class TopicInfo(msgspec.Struct, frozen=True):
    """A topic as the directory knows it. `arn` is its key everywhere."""

    arn: str
    settings: TopicSettings
    created_ms: int
    modified_ms: int


class Subscription(msgspec.Struct, frozen=True):
    """What of a topic a queue is given.

    Attributes:
        queue: its ARN.
        filter: a filter policy as SNS has them; None lets everything in.
        scope: what the filter looks at: MessageAttributes or MessageBody.
        position: None: live. Else it is catching up: it has been given the log up to this seq.
    """

    queue: str
    filter: dict[str, Any] | None = None
    scope: str = "MessageAttributes"
    position: int | None = None


class SubscriptionState(msgspec.Struct, frozen=True):
    """A subscription, how many logged messages its queue still has to be given (about), and how many wait in that queue."""

    subscription: Subscription
    lag: int
    waiting: int


class TopicCounts(msgspec.Struct, frozen=True):
    """What a topic has done and keeps.

    `published`, `duplicates`, `damaged`: totals since the broker started. `logged`, `log_bytes`: its log; `oldest_ms` is
    the sent time of the oldest message there, None without any. `first`: the log begins at this seq; `last`: every seq
    given so far is at most this.
    """

    published: int = 0
    duplicates: int = 0
    damaged: int = 0
    logged: int = 0
    log_bytes: int = 0
    oldest_ms: int | None = None
    first: int = 0
    last: int = 0


class TopicDescription(msgspec.Struct, frozen=True):
    """A topic as a whole; its subscriptions are sorted by queue."""

    info: TopicInfo
    counts: TopicCounts
    subscriptions: list[SubscriptionState]


def topic_arn_of(name: str, *, region: str = limits.REGION_DEFAULT, account: str = limits.ACCOUNT_DEFAULT) -> str:
    """The ARN of a topic: `arn:aws:sns:REGION:ACCOUNT:name`. A name that is an ARN already is returned as it is."""
    return name if name.startswith("arn:") else f"arn:aws:sns:{region}:{account}:{name}"


def arn_of(name: str, *, region: str = limits.REGION_DEFAULT, account: str = limits.ACCOUNT_DEFAULT) -> str:
    """The ARN of a queue: `arn:aws:sqs:REGION:ACCOUNT:name`. A name that is an ARN already is returned as it is."""
    return name if name.startswith("arn:") else f"arn:aws:sqs:{region}:{account}:{name}"


def name_of(arn: str) -> str:
    """The name of a queue or topic, the last part of its ARN."""
    return arn.rpartition(":")[2]


def uuid_text(id_bytes: bytes) -> str:
    """A message id as SQS writes it: 36 characters, hyphenated."""
    h = id_bytes.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
