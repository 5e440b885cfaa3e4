"""How one run of a task ended: what `execution.run` gives and `settling.settle` turns into a commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from headrace.work.dispatch import Sendable


class ErrorInfo(msgspec.Struct, frozen=True):
    """An exception as text, as it is kept.

    Attributes:
        type: `module.Class`; a builtin's bare name.
        message: `str()` of it, cut.
        traceback: its end, cut; empty where there is none.
    """

    type: str
    message: str
    traceback: str = ""

    @property
    def line(self) -> str:
        """One line for lists and logs."""
        first = self.message.strip().partition("\n")[0]
        return f"{self.type}: {first}" if first else self.type


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It returned.

    Attributes:
        result: its value as JSON, None when no result is kept.
        outbox: what it sent with `outbox=True`: part of the acknowledgement's commit.
    """

    result: msgspec.Raw | None = None
    outbox: tuple[Sendable, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """It raised, ran too long, or its worker died.

    Attributes:
        error: what was raised.
        final: no further attempt, whatever is left of its retries.
        delay_ms: until the next attempt; None takes the backoff.
        counted: the attempt stands in the envelope already.
    """

    error: ErrorInfo
    final: bool = False
    delay_ms: int | None = None
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was cancelled, before it ran or while it did."""


@dataclass(frozen=True, slots=True)
class Expired:
    """It was not begun before its `expires`."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """It was not begun and is to be given again, no earlier than `until_ms`; it counts as no attempt.

    For limits, and for what a draining worker has taken and not begun (`until_ms=0`).
    """

    until_ms: int


Outcome: TypeAlias = Succeeded | Failed | Cancelled | Expired | Deferred
