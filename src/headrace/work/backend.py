"""What tasks need of a broker: the whole contract. `broker_backend` is headrace's own, `sqs_backend` any SQS endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.errors import CallerError, StateChanged
from headrace.queue.model import Delivery, Entry, Sent
from headrace.queue.operations import Transact, TransactOutcome
from headrace.work import limits


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do beyond sending, receiving and deleting.

    Attributes:
        transactions: acknowledgement, sends and state in one commit: exactly-once retries, outbox, joins.
        state: values under keys: results, unique, limits, schedules, cancel.
        holders: leases end with their holder's connection.
        delay_max_ms: the longest delay of a message.
    """

    transactions: bool = True
    state: bool = True
    holders: bool = True
    delay_max_ms: int = limits.DELAY_MAX_MS


class Backend(Protocol):
    """A broker for tasks. Safe for many threads. Queues are named plainly and are made when they are first used.

    Raises (each method): HeadraceError, as `headrace.native.client` says; NotSupported for what `capabilities` lacks.
    """

    name: str
    capabilities: Capabilities

    def prepare(self, queue: str) -> None:
        """Make the queue if it is not there; idempotent. One that is there keeps its settings."""
        ...

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Sent | CallerError]:
        """Store messages, any number, in calls of bounded size. Durable when this returns. An item an entry."""
        ...

    async def asend(self, queue: str, entries: Sequence[Entry]) -> list[Sent | CallerError]:
        """As `send`, without blocking the event loop."""
        ...

    def receive(
        self, queues: Sequence[str], limit: int, *, visibility_ms: int, wait_s: float, holder: str | None = None
    ) -> list[tuple[str, list[Delivery]]]:
        """Lease up to `limit` messages: of the first queue that has some, then of the next. Empty when none came."""
        ...

    def message_state(self, queue: str, seq: int) -> str | None:
        """How the message of that number is: visible, in_flight or delayed; None if it is gone, or cannot be told."""
        ...

    def take(self, queue: str, seqs: Sequence[int], *, visibility_ms: int) -> list[Delivery | CallerError]:
        """Lease exactly these messages, visible or delayed ones."""
        ...

    def change_visibility(
        self, queue: str, changes: Sequence[tuple[bytes, int]], *, holder: str | None = None
    ) -> list[CallerError | None]:
        """Let each lease (receipt, ms) end so many ms from now; 0 releases it at once. Those that go on are `holder`'s."""
        ...

    def transact(self, operation: Transact) -> TransactOutcome:
        """All of it in one commit, or none. Raises StateChanged, ReceiptExpired."""
        ...

    async def atransact(self, operation: Transact) -> TransactOutcome:
        """As `transact`, without blocking the event loop."""
        ...

    def state(self, prefix: bytes, *, limit: int = 10_000, after: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Values whose keys start with `prefix`, sorted by key."""
        ...

    def read(self, key: bytes) -> bytes | None:
        """The value under exactly this key."""
        ...

    async def aread(self, key: bytes) -> bytes | None:
        """As `read`, without blocking the event loop."""
        ...

    def wait_state(self, key: bytes, wait_s: float) -> bytes | None:
        """The value under this key, as soon as there is one; None if there is none after `wait_s` (0 to 20)."""
        ...

    async def await_state(self, key: bytes, wait_s: float) -> bytes | None:
        """As `wait_state`, without blocking the event loop."""
        ...

    def hold(self, holder: str, kind: str, facts: dict[str, Any], *, wait_s: float) -> bool:
        """Be present under this name for `wait_s`; leases that name it end when the connection does. Whether the broker had
        not known it before: then it does not know of earlier leases, until they are extended."""
        ...

    def close(self) -> None:
        """End connections. Idempotent."""
        ...


def committed(backend: Backend, operation: Transact) -> bool:
    """Whether it was committed; False if somebody was faster with a row that it expects. Raises as `transact` otherwise."""
    try:
        backend.transact(operation)
    except StateChanged:
        return False
    return True
