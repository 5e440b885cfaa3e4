"""How much to fetch, and from where: pull, never hoard. Pure.

A message that waits belongs into the broker, where whoever is free first takes it. So a process asks for as many as it
can begin; and for a few more only if tasks are so short that the way to the broker would be the longer part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.work.pool.limits import AHEAD_MAX, AHEAD_S, POLL_WAIT_PART_S, POLL_WAIT_S, SHORT_S

_WEIGHT: Final = 0.1
"""Of the newest run in the mean: after a change of pace it is right within 30 runs."""


@dataclass(frozen=True, slots=True)
class Source:
    """A queue, and which kinds of tasks may come from it."""

    queue: str
    threaded: bool
    asynchronous: bool


@dataclass(frozen=True, slots=True)
class Poll:
    queues: list[str]
    limit: int
    wait_s: float


class Pace:
    """How long threaded tasks run of late. Optimism is learnt: at first they are taken for long."""

    def __init__(self) -> None:
        self.mean_s = 10 * SHORT_S

    def note(self, run_s: float) -> None:
        self.mean_s += _WEIGHT * (run_s - self.mean_s)

    @property
    def short(self) -> bool:
        return self.mean_s < SHORT_S

    @property
    def ahead(self) -> int:
        """How many may be fetched beyond the free threads."""
        return min(AHEAD_MAX, int(AHEAD_S / self.mean_s)) if self.mean_s < AHEAD_S else 0


def plan(sources: Sequence[Source], *, threaded: int, asynchronous: int) -> Poll | None:
    """The next poll.

    Args:
        sources: in the order of their priority.
        threaded: room for tasks that take a thread.
        asynchronous: room for async tasks.

    Returns: None when nothing can be begun. What comes from a queue is not known before, so there must be room for each
        kind that may come. While a queue is left out for that, the poll is short: there may be room for it soon.
    """
    open_ = [s for s in sources if (not s.threaded or threaded > 0) and (not s.asynchronous or asynchronous > 0)]
    if not open_:
        return None
    rooms = [threaded] * any(s.threaded for s in open_) + [asynchronous] * any(s.asynchronous for s in open_)
    wait_s = POLL_WAIT_S if len(open_) == len(sources) else POLL_WAIT_PART_S
    return Poll([s.queue for s in open_], min(rooms), wait_s)
