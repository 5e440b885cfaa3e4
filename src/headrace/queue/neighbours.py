"""What the brokers of one store tell each other of their holders, by the store.

Each tells who comes and goes when it happens, and all it has every two seconds; what it told is believed for ten. So
whoever lists holders sees those of all brokers, and a lease that was given here to somebody whose Hold is open elsewhere
goes on: also of one whose connection has just been found broken here, since it may have gone to another broker long ago (this
one hung, say).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from headrace.clock import Clock
from headrace.queue import limits
from headrace.queue.between import ListElsewhere, TellHolders
from headrace.queue.holders import Holders, Leases
from headrace.queue.model import HolderState
from headrace.queue.operations import Operation
from headrace.queue.store.base import Done


class Went(NamedTuple):
    """Who is not here any more: when it was last heard of here, and what was leased to it."""

    seen_ms: int
    leases: Leases


class Neighbours:
    """The other brokers of this one's store.

    Invariant: one telling is on its way at most; what it could not tell is told by the next.
    """

    def __init__(
        self,
        holders: Holders,
        submit: Callable[[Operation, Done], None],
        clock: Clock,
        end: Callable[[Leases], None],
    ) -> None:
        """`end`: ends leases."""
        self._node = uuid.uuid4().hex
        self._holders = holders
        self._submit = submit
        self._clock = clock
        self._end = end
        self._news: set[str] = set()  # who came or went since the last telling
        self._gone: dict[str, Went] = {}  # who may be elsewhere
        self._telling = False
        self._all_ms = 0  # when all are to be told

    def came(self, name: str) -> None:
        """Somebody is here. If it had just gone, its leases go on: it extends them, as it does wherever it comes."""
        self._gone.pop(name, None)
        self._notice(name)

    def went(self, name: str, went: Went) -> None:
        """Somebody is not here any more: its leases end, unless it has come to another broker since."""
        before = self._gone.get(name)
        if before is not None:
            for queue, receipts in before.leases.items():
                went.leases.setdefault(queue, []).extend(receipts)
        self._gone[name] = went
        self._notice(name)

    def _notice(self, name: str) -> None:
        self._news.add(name)
        if not self._telling:
            self._tell()

    def advance(self) -> int:
        """Tell all, if the time has come. Returns when it comes next."""
        now = self._clock()
        if now >= self._all_ms and not self._telling:
            self._all_ms = now + limits.HOLDERS_TOLD_EACH_MS
            self._news.update(one.holder for one in self._holders.states("", now))
            self._tell()
        return self._all_ms

    def leave(self) -> None:
        """This broker stops."""
        self._submit(TellHolders(self._node, [], [], [], all_gone=True), lambda _outcome: None)

    def list_holders(self, kind: str, done: Done) -> None:
        """Those present at all brokers, as ListHolders."""
        self._submit(ListElsewhere(self._node, kind), partial(self._listed, kind, done))

    def _tell(self) -> None:
        names, self._news, self._telling = self._news, set(), True
        present = [one for one in self._holders.states("", self._clock()) if one.holder in names]
        gone = names.difference(one.holder for one in present)
        seen_ms = {name: one.seen_ms for name, one in self._gone.items()}
        asked = [*self._holders.ask(self._clock()), *seen_ms.items()]
        told = [(name, seen_ms.get(name, 0)) for name in sorted(gone)]
        operation = TellHolders(self._node, present, told, asked)
        self._submit(operation, partial(self._told, gone, [name for name, _ in asked]))

    def _told(self, gone: set[str], asked: Sequence[str], outcome: Any) -> None:
        self._telling = False
        known = isinstance(outcome, list)
        elsewhere = set(outcome if known else asked)  # while nobody can tell, no lease is ended
        for name in asked:
            self._holders.heard(name, elsewhere=name in elsewhere, now=self._clock())
        for name in asked if known else ():
            went = self._gone.pop(name, None)
            if went is not None and name not in elsewhere:
                self._end(went.leases)
        if not known:
            self._news |= gone  # with the next; those present are told again anyway
        elif self._news:
            self._tell()

    def _listed(self, kind: str, done: Done, outcome: Any) -> None:
        if isinstance(outcome, list):
            outcome = merged(self._holders.states(kind, self._clock()), outcome)
        done(outcome)


def merged(here: Sequence[HolderState], elsewhere: Sequence[HolderState]) -> list[HolderState]:
    """All of them, sorted by name; of one that went from broker to broker what was heard last."""
    newest: dict[str, HolderState] = {}
    for one in (*here, *elsewhere):
        if one.holder not in newest or one.seen_ms > newest[one.holder].seen_ms:
            newest[one.holder] = one
    return [one for _, one in sorted(newest.items())]
