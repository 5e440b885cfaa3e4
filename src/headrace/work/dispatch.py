"""What is about to be sent, a task or a plain message: what a send, a transaction and an outbox have in common. Nothing is
stored before its commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headrace.queue.model import Entry
from headrace.work import envelope as envelopes
from headrace.work.envelope import Envelope, Unique


@dataclass(frozen=True, slots=True)
class Dispatch:
    """An envelope and where it goes.

    Attributes:
        queue: plain name, priority included.
        envelope: what.
        delay_ms: hidden for so long.
        ttl_ms: how long its unique lock holds at most.
        puts: state to be put with it: the rows of its flow's groups.
    """

    queue: str
    envelope: Envelope
    delay_ms: int = 0
    ttl_ms: int = 0
    puts: tuple[tuple[bytes, bytes | None], ...] = ()

    @property
    def id(self) -> str:
        """The task's."""
        return self.envelope.id

    @property
    def unique(self) -> Unique | None:
        """The lock that it takes."""
        return self.envelope.unique

    def entry(self) -> Entry:
        return entry_of(self.queue, self.envelope, self.delay_ms)


@dataclass(frozen=True, slots=True)
class Posting:
    """A plain message and where it goes: no task, so it has no lock and no hook sees it.

    Attributes:
        queue: a queue's plain name, or the ARN of a queue or topic.
        message: as the broker takes it.
    """

    queue: str
    message: Entry
    id: str = ""
    unique: None = None
    delay_ms: int = 0
    ttl_ms: int = 0
    puts: tuple[tuple[bytes, bytes | None], ...] = ()

    def entry(self) -> Entry:
        return self.message


Sendable: TypeAlias = Dispatch | Posting


def entry_of(queue: str, envelope: Envelope, delay_ms: int = 0) -> Entry:
    """The message of an envelope. A FIFO queue's dedup id is task and attempt: sent twice, it is stored once."""
    fifo = queue.endswith(".fifo")
    return Entry(
        envelopes.encode(envelope),
        delay_ms=delay_ms or None,
        group=envelope.group,
        dedup_id=f"{envelope.id}-{envelope.attempt}" if fifo else None,
    )
