"""How much to fetch, and from where: pull, never hoard. Pure.

A message that waits belongs into the broker, where whoever is free first takes it. So a process asks for as many as it
can begin; and for a few more only if tasks are so short that the way to the broker would be the longer part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.work.pool.limits import AHEAD_MAX, AHEAD_S, RECEIVE_MAX, SHORT_S

_WEIGHT: Final = 0.1
"""Of the newest run in the mean: after a change of pace it is right within 30 runs."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """What may come from a queue.

    Attributes:
        threaded: tasks that take a thread.
        asynchronous: async tasks.
        batch: messages that one run takes.
        fifo: a FIFO queue. Its messages are fetched one run at a time: while a message is in flight the broker holds back
            the rest of its group, so tasks of a group neither run side by side nor overtake one that is retried.
    """

    threaded: bool
    asynchronous: bool
    batch: int = 1
    fifo: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Queues that are polled together, in the order of their priority."""

    queues: tuple[str, ...]
    kinds: Kinds

    def room(self, *, threaded: int, asynchronous: int) -> int:
        """How many to ask for. What comes is not known before, so there must be room for each kind that may come."""
        rooms = [threaded] * self.kinds.threaded + [asynchronous] * self.kinds.asynchronous
        runs = max(0, min(rooms))
        return min((min(runs, 1) if self.kinds.fifo else runs) * self.kinds.batch, RECEIVE_MAX)


class PrefetchPolicy:
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


def grouped(queues: Sequence[tuple[str, Kinds]]) -> list[Source]:
    """Queues by what may come from them: while all threads are busy, those with async tasks are polled all the same.

    Args:
        queues: in the order of their priority.
    """
    groups: dict[Kinds, list[str]] = {}
    for queue, kinds in queues:
        groups.setdefault(kinds, []).append(queue)
    return [Source(tuple(names), kinds) for kinds, names in groups.items()]
