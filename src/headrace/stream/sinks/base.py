"""What a sink is: the contract between the runner and the sinks.

Two kinds. A queue's or topic's messages are part of the pipeline's own commit (`Entries`). Everything outside the store
is an outbox (`Outbox`): what a batch gives is kept in the commit, delivered after it, and forgotten in a later commit. So
a batch is delivered at least once, always with the same rows and number, in the order of the numbers; a sink that can
remember the last number (an SQL table, a folder) makes it exactly once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from headrace.queue.model import Entry


class Entries(ABC):
    """A sink inside the commit."""

    arn: str

    @abstractmethod
    def entries(self, rows: pa.Table) -> list[Entry]:
        """The messages that these rows are; no ORIGIN column among them."""


class Outbox(ABC):
    """A sink outside the store. One thread calls it, one batch after the other."""

    name: str

    @abstractmethod
    def stage(self, batch: int, rows: pa.Table, *, token: str | None = None) -> bytes:
        """Before the commit: what has to be kept to deliver the rows, at most 16 MiB (rows as Arrow IPC, or the name of a
        file that is written and synced). Must not show anything to anybody. Raises SinkFailed.

        Args:
            token: 32 hexadecimal digits by which a batch that comes again is known; None: it is staged once, and gets one.
        """

    @abstractmethod
    def deliver(self, batch: int, staged: bytes) -> None:
        """After the commit, perhaps again after a restart: make it visible. Idempotent as far as the sink can be. Tries
        again by itself for a while. Raises SinkFailed: it is called again later."""

    @abstractmethod
    def collect(self, staged: Sequence[bytes]) -> None:
        """At the start: remove what was staged and never committed. `staged` is what is still to be delivered."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""
