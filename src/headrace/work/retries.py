"""When a failed task is tried again: pure.

Backoff is exponential with equal jitter: half of each wait is fixed, half is random. Full jitter spreads a crowd a little
better and lets some retry at once, into the outage that has just failed them. The randomness is a hash of task and attempt:
the same answer, whoever asks and however often.
"""

from __future__ import annotations

import hashlib

import msgspec

from headrace.work import limits
from headrace.work.errors import InvalidOption


class Backoff(msgspec.Struct, frozen=True):
    """Waits between attempts: `first_ms`, times `factor` after each failure, at most `max_ms`.

    Attributes:
        first_ms: after the first failure.
        factor: 1 for a steady wait.
        max_ms: the longest.
        jitter: whether half of each wait is random.
    """

    first_ms: int = limits.BACKOFF_FIRST_MS
    factor: float = limits.BACKOFF_FACTOR
    max_ms: int = limits.BACKOFF_MAX_MS
    jitter: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.first_ms <= limits.DELAY_MAX_MS:
            raise InvalidOption("backoff.first_ms", str(self.first_ms), f"it is 0 to {limits.DELAY_MAX_MS}")
        if not self.first_ms <= self.max_ms <= limits.DELAY_MAX_MS:
            raise InvalidOption("backoff.max_ms", str(self.max_ms), f"it is first_ms to {limits.DELAY_MAX_MS}")
        if not 1 <= self.factor <= 100:
            raise InvalidOption("backoff.factor", str(self.factor), "it is 1 to 100")

    def wait_ms(self, failures: int, roll: float) -> int:
        """The wait after so many failures (1 is the first), with `roll` in [0, 1) for the jitter."""
        exponent = min(failures - 1, 64)  # 1.5**64 is past every bound, 100.0**64 still a float
        whole = min(float(self.max_ms), self.first_ms * self.factor**exponent)
        return round(whole / 2 + whole / 2 * roll) if self.jitter else round(whole)


def roll(task_id: str, attempt: int) -> float:
    """A number in [0, 1) that is always the same for this attempt and evenly spread over tasks."""
    digest = hashlib.blake2b(f"{task_id}/{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def is_left(failures: int, retries_max: int) -> bool:
    """Whether there is another attempt after so many failures."""
    return failures <= retries_max
