"""What can be asked of a queue: one record an operation. They are the store's contract and the native wire in one.

An operation names its queue by ARN. A store answers each with the outcome named in its docstring, or with a
`CallerError` or `StoreError` as a value. Operations that carry a batch answer a list of the same length and order, in
which an entry's own error stands in its place and the others hold.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from headrace.queue.model import Entry


class Operation(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The root: nothing but the tag (the class name) that tells operations apart on the wire."""


class Send(Operation, gc=False, frozen=True):
    """Store messages. Durable before the answer. → list[Sent | CallerError], an item an entry.

    `queue` may be a topic's ARN, or that of a topic's inbox: then they are published: in one commit put into every
    subscribed queue that lets them in, and into the topic's log.
    """

    queue: str
    entries: list[Entry]


class Receive(Operation, gc=False, frozen=True):
    """Lease up to `limit` ready messages (1 to 10,000). → list[Delivery], empty when none is ready.

    Standard queues stop at about 64 MiB of bodies. `visibility_ms` None takes the queue's. `attempt_id` (FIFO): a
    repeat within five minutes answers the same deliveries. A standard queue with 120,000 messages in flight answers
    InFlightLimit. `holder` ties the leases to a holder (`Hold`): when it is gone, they end.
    """

    queue: str
    limit: int = 1
    visibility_ms: int | None = None
    attempt_id: str | None = None
    holder: str | None = None


class ReceiveAny(Operation, gc=False, frozen=True):
    """Lease up to `limit` (1 to 10,000) ready messages of several queues (1 to 100), in one go.
    → list[tuple[str, list[Delivery]]]: those queues that gave some, in the order asked; empty when none is ready.

    The first queue that has ready messages gives all it has, up to the limit, then the next: so the order is a
    priority. Each is as in Receive; a queue that is full in flight is passed over, and InFlightLimit is the answer only
    if no other has anything.
    """

    queues: list[str]
    limit: int = 1
    visibility_ms: int | None = None
    holder: str | None = None


class Take(Operation, gc=False, frozen=True):
    """Lease exactly the messages with these sequence numbers (1 to 10,000), visible or delayed ones, whatever the order.
    → list[Delivery | CallerError], an item a seq: MessageNotFound for one that is gone, MessageNotVisible for one that
    is in flight, or that is not the first of its FIFO group.

    A message that has been received too often is delivered too: who names it wants this very one.
    """

    queue: str
    seqs: list[int]
    visibility_ms: int | None = None
    holder: str | None = None


class Delete(Operation, gc=False, frozen=True):
    """Delete by receipt; idempotent. Durable before the answer. → list[None | CallerError]

    On a standard queue the receipt of any receive deletes, also when the lease has ended or a later receive holds the
    message; what a reader has claimed stays. On a FIFO queue a stale receipt is ReceiptExpired.
    """

    queue: str
    receipts: list[bytes]


class ChangeVisibility(Operation, gc=False, frozen=True):
    """Let each message be visible `timeout_ms` from now (0: at once). → list[None | CallerError]

    On a standard queue the receipt of any receive does so: a lease that has ended begins again, with the same receive count;
    a lease of a later receive is changed. On a FIFO queue, and if `strict`, only the receipt that holds the message does,
    others are MessageNotInFlight. A lease may last 12 hours from its receive. `holder` ties those that go on to a holder, as in Receive: to one
    that has come to another broker since, or whose broker was started again.
    """

    queue: str
    changes: list[tuple[bytes, int]]
    holder: str | None = None
    strict: bool = False


class Transact(Operation, gc=False, frozen=True):
    """All of it in one commit, or none. → TransactOutcome, or the first CallerError.

    Attributes:
        acknowledge: (queue, receipts): every receipt must hold its lease still, else ReceiptExpired.
        sends: (queue or topic, entries), as in Send: every entry must be valid.
        state: (key, value) puts under `name`; value None deletes.
        claims: (queue, reader, number): acknowledges the reader's claims up to number.
        name: whose state, and whose fence.
        epoch: as `Fence` answered for `name`; None is unfenced. An older epoch than the newest is Fenced.
        expect: (key, value) that must stand under `name` now, value None: nothing; else StateChanged. Compared before
            `state` is put, in the order of the commits: of two that expect the same, one succeeds.
        holds: (queue, receipts): as `acknowledge`, of messages that are kept: what is committed here is so while they are
            nobody else's.
    """

    acknowledge: list[tuple[str, list[bytes]]] = []
    sends: list[tuple[str, list[Entry]]] = []
    state: list[tuple[bytes, bytes | None]] = []
    claims: list[tuple[str, str, int]] = []
    name: str = ""
    epoch: int | None = None
    expect: list[tuple[bytes, bytes | None]] = []
    holds: list[tuple[str, list[bytes]]] = []


class Fence(Operation, gc=False, frozen=True):
    """Become the owner of `name`: every earlier epoch's transactions fail from now on. Durable. → int, the epoch."""

    name: str


class GetState(Operation, gc=False, frozen=True):
    """Values under `name` whose keys start with `prefix`, sorted by key. → list[tuple[bytes, bytes]]

    With a wait: as soon as there is at least one.
    """

    name: str
    prefix: bytes = b""
    limit: int = 10_000
    after: bytes = b""


class Claim(Operation, gc=False, frozen=True):
    """Bind up to `limit` ready messages, `bytes_max` bytes, to `reader`'s claim `number`. Durable, idempotent.

    A number that is open answers its messages again, the same, in the same order; `last + 1` binds; any other is
    ClaimRefused. Claimed messages are in flight without a timeout until acknowledged or released. → list[Message]
    """

    queue: str
    reader: str
    number: int
    limit: int = 10_000
    bytes_max: int = 16 * 1_048_576


class Hold(Operation, gc=False, frozen=True):
    """Be present while this waits; when its connection breaks, every lease tied to `holder` ends at once (visible again,
    the receive count stays). → bool, when the wait is over, or the next Hold of the name takes its place: whether it came
    by this Hold. Then what was leased to it before is not tied here (unless this broker gave it while the holder was
    away): it came from another broker, or the broker was started again. `ChangeVisibility` ties it.

    After an answer the holder has 5 s to come again. In memory only: a broker that restarts knows no holders, and what
    was leased before is not tied any more.

    Attributes:
        holder: 1 to 128 alphanumeric and punctuation characters, unlike any other's: a host, a pid and a random part.
        kind: what it is, such as `worker`; as `holder`.
        facts: what the console shows of it; at most 64 KiB of JSON.
    """

    holder: str
    kind: str
    facts: dict[str, Any] = {}


class ListHolders(Operation, gc=False, frozen=True):
    """Those present, at whichever broker of the store, sorted by name; `kind`: only these, empty for all.
    → list[HolderState]"""

    kind: str = ""


Polling: TypeAlias = Receive | ReceiveAny | Claim | GetState
"""Operations that may wait for the first message (or value), as a long poll does."""

Waiting: TypeAlias = Polling | Hold
"""All operations that may wait."""


class AcknowledgeClaims(Operation, gc=False, frozen=True):
    """Delete the messages of `reader`'s claims up to `number`. Durable, idempotent. → ClaimState"""

    queue: str
    reader: str
    number: int


class ReleaseClaims(Operation, gc=False, frozen=True):
    """Forget the reader: its open claims' messages are visible again. Durable, idempotent. → None"""

    queue: str
    reader: str


class GetClaims(Operation, gc=False, frozen=True):
    """→ ClaimState of `reader`; (0, 0) for one that never claimed."""

    queue: str
    reader: str


class Peek(Operation, gc=False, frozen=True):
    """Look at messages with seq > `after`, oldest first, without receiving them. → list[Peeked]"""

    queue: str
    limit: int = 10
    after: int = 0


class Purge(Operation, gc=False, frozen=True):
    """Delete every message sent before now, in flight ones too, and forget the deduplication ids. Durable. → int, how many.
    PurgeInProgress for 60 s."""

    queue: str


class CreateQueue(Operation, gc=False, frozen=True):
    """Create, idempotent. `settings` names fields of QueueSettings; those given must equal an existing queue's, else
    QueueExists. `stored`: attributes only kept, by SQS name. → QueueInfo"""

    queue: str
    settings: dict[str, Any] = {}
    stored: dict[str, str] = {}
    tags: dict[str, str] = {}


class ChangeSettings(Operation, gc=False, frozen=True):
    """Change the settings given, at once. `stored` values of None are removed. → QueueInfo"""

    queue: str
    settings: dict[str, Any] = {}
    stored: dict[str, str | None] = {}


class TagQueue(Operation, gc=False, frozen=True):
    """Set `tags`, remove the keys in `remove`. → QueueInfo"""

    queue: str
    tags: dict[str, str] = {}
    remove: list[str] = []


class DeleteQueue(Operation, gc=False, frozen=True):
    """Delete the queue and its messages. Durable. → None"""

    queue: str


class GetQueue(Operation, gc=False, frozen=True):
    """`exact`: count every message, however many there are, where a store else estimates (PostgreSQL beyond 10,000; a
    second or two a million: what is sent meanwhile does not count, what goes meanwhile may or may not). → QueueDescription"""

    queue: str
    exact: bool = False


class ListQueues(Operation, gc=False, frozen=True):
    """ARNs that start with `prefix`, are > `after`, sorted; `target`: only those whose dead letters go there.
    → list[QueueDescription]"""

    prefix: str = ""
    after: str = ""
    limit: int = 1_000
    target: str | None = None


class StartMove(Operation, gc=False, frozen=True):
    """Start a message move task from dead-letter queue `source`. Durable. → MoveTask

    `target` None: each message back to its origin. `rate_max`: 1 to 500 messages/s, None as fast as it goes.
    """

    source: str
    target: str | None = None
    rate_max: int | None = None


class CancelMove(Operation, gc=False, frozen=True):
    """Stop a running task; what has moved stays moved. Durable. → MoveTask"""

    handle: str


class ListMoves(Operation, gc=False, frozen=True):
    """The newest `limit` (1 to 10) tasks of `source`, newest first. → list[MoveTask]"""

    source: str
    limit: int = 1


class CreateTopic(Operation, gc=False, frozen=True):
    """Create, idempotent. `settings` names fields of TopicSettings; those given must equal an existing topic's, else
    TopicExists. Durable. → TopicInfo"""

    topic: str
    settings: dict[str, Any] = {}


class ChangeTopic(Operation, gc=False, frozen=True):
    """Change the settings given, at once. Durable. → TopicInfo"""

    topic: str
    settings: dict[str, Any] = {}


class DeleteTopic(Operation, gc=False, frozen=True):
    """Delete the topic, its log and its subscriptions; what subscribed queues hold stays. Durable. → None"""

    topic: str


class GetTopic(Operation, gc=False, frozen=True):
    """→ TopicDescription"""

    topic: str


class ListTopics(Operation, gc=False, frozen=True):
    """ARNs that start with `prefix`, are > `after`, sorted. → list[TopicDescription]"""

    prefix: str = ""
    after: str = ""
    limit: int = 1_000


class Subscribe(Operation, gc=False, frozen=True):
    """Give a queue what is published; or, for one that is subscribed, change how. Durable. → Subscription

    With a start, the queue is given the log from there (once more), in order, and then goes on live: no gap, no
    duplicate between the two. A start before the log's oldest message is that message. Without a log: SubscriptionRefused.

    Attributes:
        filter: a filter policy; {} lets everything in; None leaves it as it is (for a new subscription: everything).
        scope: what the filter looks at, MessageAttributes or MessageBody; with a filter.
        after: start behind this seq; 0 is the log's beginning. None and no `since_ms`: from now on (and, for one that is
            catching up, as it was).
        since_ms: start with the first message sent at or after this steady time.
        purge: the queue's messages are deleted in the same commit, first.
        if_absent: a subscription that is there stays as it is, and nothing is done: so many may subscribe at once from the
            log's beginning, and the queue is given it once.
    """

    topic: str
    queue: str
    filter: dict[str, Any] | None = None
    scope: str = "MessageAttributes"
    after: int | None = None
    since_ms: int | None = None
    purge: bool = False
    if_absent: bool = False


class Unsubscribe(Operation, gc=False, frozen=True):
    """End a subscription; idempotent; what the queue holds stays. Durable. → None"""

    topic: str
    queue: str


class ReadLog(Operation, gc=False, frozen=True):
    """Logged messages with seq > `after`, oldest first, whole ones. → list[Message], empty at the log's end

    At most `limit` (1 to 10,000), and no further one once `bytes_max` bytes of bodies are reached.
    """

    topic: str
    after: int = 0
    limit: int = 10_000
    bytes_max: int = 16 * 1_048_576


AnyOperation: TypeAlias = (
    Send | Receive | ReceiveAny | Take | Delete | ChangeVisibility | Transact | Fence | GetState | Hold | ListHolders
    | Claim | AcknowledgeClaims | ReleaseClaims | GetClaims | Peek | Purge | CreateQueue | ChangeSettings | TagQueue
    | DeleteQueue | GetQueue | ListQueues | StartMove | CancelMove | ListMoves | CreateTopic | ChangeTopic | DeleteTopic
    | GetTopic | ListTopics | Subscribe | Unsubscribe | ReadLog
)  # fmt: skip


class TransactOutcome(msgspec.Struct, frozen=True):
    """What a transaction's sends became, as `sends` was shaped."""

    sent: list[list[Any]]
