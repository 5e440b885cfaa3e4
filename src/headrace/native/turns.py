"""Which of several nodes a client asks: always the same one, until that cannot be reached; and again once it may be back.

Nodes on one database are one broker, so any will do. All clients of a process begin with the same one: what a process holds
at a node (its presence, and the leases tied to it) is there. Processes begin with different ones. Pure: time is an argument.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from headrace.errors import HeadraceError, OutcomeUnknown, Unavailable

AWAY_FIRST_S: Final = 1.0
AWAY_MAX_S: Final = 60.0
"""So long a node that could not be reached is not tried, while another can be: longer each time, as a host that is gone
may cost a connect's whole timeout. So soon, at the latest, clients are back at a node that was restarted."""


@functools.cache
def start_of(process: int) -> int:
    """A number that a process has drawn; a fork draws its own."""
    del process
    return secrets.randbelow(1 << 30)


class Turns:
    """The nodes of one client, by index. Threads may share it: at worst one more call is tried at a node that is away."""

    __slots__ = ("_away_s", "_count", "_failed_s", "_until_s")

    def __init__(self, count: int) -> None:
        self._count = count
        self._until_s = [0.0] * count
        self._failed_s = [0.0] * count
        self._away_s = [AWAY_FIRST_S] * count

    def choose(self, now_s: float) -> int:
        """The node to ask now: the first of this process's order that is not away; if all are, the one that failed the longest
        ago: that one is the likeliest to be back, however long it was away."""
        if self._count == 1:
            return 0
        first = start_of(os.getpid())
        order = [(first + at) % self._count for at in range(self._count)]
        return next((at for at in order if self._until_s[at] <= now_s), min(order, key=self._failed_s.__getitem__))

    def failed(self, node: int, now_s: float, *, took_s: float = 0.0) -> None:
        """It could not be reached, or its connection broke. `took_s`: to find out; as long it is not tried again."""
        away_s = min(max(self._away_s[node], took_s), AWAY_MAX_S)
        self._failed_s[node], self._until_s[node] = now_s, now_s + away_s
        self._away_s[node] = min(2 * away_s, AWAY_MAX_S)

    def answered(self, node: int) -> None:
        self._until_s[node] = 0.0
        self._away_s[node] = AWAY_FIRST_S

    def each(self, clock: Callable[[], float]) -> Iterator[AbstractContextManager[int]]:
        """Each node once, until one has answered: within it the call is made at the node that it gives, and returned from.
        It ends silently if another is to be asked, since this one has not had the request."""
        for left in reversed(range(self._count)):
            yield self._turn(clock, is_last=not left)

    @contextmanager
    def _turn(self, clock: Callable[[], float], *, is_last: bool) -> Iterator[int]:
        began_s = clock()
        node = self.choose(began_s)
        try:
            yield node
        except (Unavailable, OutcomeUnknown) as error:
            now_s = clock()
            self.failed(node, now_s, took_s=now_s - began_s)
            if is_last or isinstance(error, OutcomeUnknown):
                raise
        except HeadraceError:
            self.answered(node)
            raise
        else:
            self.answered(node)
