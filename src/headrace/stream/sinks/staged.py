"""A batch of an outbox as bytes: a token that no other batch has, and the rows.

The number of a batch is not enough to know it again: after a reset they begin anew, and a sink that goes by numbers would
silently drop what comes.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from headrace.stream.formats.encoding import arrow_stream
from headrace.stream.sinks.base import Outbox

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
