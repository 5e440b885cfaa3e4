"""The contracts between the runner and the sinks.

There are two kinds. Messages of a queue or topic are part of the pipeline's own commit (`TransactionalSink`). Everything outside the
store is an outbox (`Outbox`): the rows of a batch are kept in the commit, delivered after it, and removed by a later commit.
So a batch is delivered at least once, always with the same rows and number, in the order of the numbers. A sink that can
remember the last number (an SQL table, a folder) makes it exactly once.

A batch is kept as bytes: a token that no other batch has, and the rows. Its number alone would not identify it: numbers
start again after a reset, and a sink that compared numbers would silently drop new batches.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from headrace.queue.model import Entry
from headrace.stream.formats.encoding import arrow_stream


class TransactionalSink(ABC):
    """A sink inside the commit."""

    arn: str

    @abstractmethod
    def entries(self, rows: pa.Table) -> list[Entry]:
        """The messages of these rows, which have no ORIGIN column."""


class Outbox(ABC):
    """A sink outside the store. One thread calls it, one batch after the other."""

    name: str

    @abstractmethod
    def stage(self, batch: int, rows: pa.Table, *, token: str | None = None) -> bytes:
        """Before the commit: the data to keep for the delivery, at most 16 MiB (rows as Arrow IPC, or the name of a
        file that is written and synced). Must not make anything visible. Raises SinkFailed.

        Args:
            token: 32 hexadecimal digits that identify a repeated batch; None: it is staged once, and gets a new one.
        """

    @abstractmethod
    def deliver(self, batch: int, staged: bytes) -> None:
        """After the commit, perhaps again after a restart: make it visible. Idempotent as far as the sink can be. Tries
        again for a while. Raises SinkFailed: it is called again later."""

    @abstractmethod
    def collect(self, staged: Sequence[bytes]) -> None:
        """At the start: remove data that was staged and never committed. `staged` is still to be delivered."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""


# --- Outboxes that keep rows ---


_TOKEN_BYTES: Final = 32


class RowsOutbox(Outbox):
    """An outbox that keeps the rows themselves."""

    def stage(self, batch: int, rows: pa.Table, *, token: str | None = None) -> bytes:
        del batch
        return (token or new_token()).encode() + arrow_stream(rows)

    def collect(self, staged: Sequence[bytes]) -> None:
        del staged  # nothing lies about: it is in the commit, or nowhere

    def close(self) -> None:
        pass


def new_token() -> str:
    return uuid.uuid4().hex


def unpack(staged: bytes) -> tuple[str, pa.Table]:
    """(the token, the rows)."""
    return staged[:_TOKEN_BYTES].decode(), pa.ipc.open_stream(staged[_TOKEN_BYTES:]).read_all()
