"""Results as they are kept: a row a task, and an index row that has it removed in time. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from headrace.work import keys
from headrace.work.envelope import Envelope
from headrace.work.outcome import ErrorInfo

Ending: TypeAlias = Literal["succeeded", "dead", "cancelled", "expired"]


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task ended.

    Attributes:
        task: its name.
        status: done, dead, cancelled or expired.
        ended_ms: when.
        expires_ms: kept until then.
        value: what it returned, when done.
        error: what it raised, when dead.
        attempts: how many it took.
    """

    task: str
    status: Ending
    ended_ms: int
    expires_ms: int
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorInfo | None = None
    attempts: int = 0


_decoder = msgspec.json.Decoder(Result)


def decode(row: bytes) -> Result:
    return _decoder.decode(row)


def rows(
    envelope: Envelope,
    status: Ending,
    *,
    now_ms: int,
    keep_s: float | None,
    value: msgspec.Raw | None = None,
    error: ErrorInfo | None = None,
) -> dict[bytes, bytes | None]:
    """What to write when a task has ended; nothing if its result is not kept.

    Args:
        keep_s: how long; None takes what the envelope says.
    """
    kept_s = envelope.result_ttl_s if keep_s is None else keep_s
    if kept_s is None:
        return {}
    expires_ms = now_ms + round(kept_s * 1_000)
    result = Result(
        envelope.task,
        status,
        now_ms,
        expires_ms,
        value or msgspec.Raw(b"null"),
        error,
        envelope.attempt + (status == "succeeded"),
    )
    key = keys.result(envelope.id)
    return {key: msgspec.json.encode(result), keys.expiry(expires_ms, key): b""}


def plain(result: Result) -> object:
    """Its value as plain JSON."""
    return msgspec.json.decode(result.value)
