"""The shell around the holders: Holds that wait, leases that are tied as they are given, and ended when one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from headrace.clock import Clock
from headrace.errors import CallerError, HeadraceError, Unavailable
from headrace.queue import limits
from headrace.queue.holders import Holders, Leases
from headrace.queue.model import Delivery, QueueInfo
from headrace.queue.neighbours import Neighbours, Went
from headrace.queue.operations import (
    ChangeVisibility,
    Delete,
    Hold,
    ListHolders,
    Operation,
    Receive,
    ReceiveAny,
    Take,
    Transact,
)  # fmt: skip
from headrace.queue.store.base import Done

_GIVE: Final = (Receive, ReceiveAny, Take)
FOLLOWED: Final[frozenset[type[Operation]]] = frozenset((*_GIVE, Delete, ChangeVisibility, Transact))
"""Operations that give leases, or end them."""


class Stay:
    """A Hold that waits. `cancel()` when its client has gone: then the holder is gone."""

    __slots__ = ("_came", "_done", "_presence", "name", "timer")

    def __init__(self, presence: Presence, name: str, done: Done, *, came: bool) -> None:
        self._presence = presence
        self._done = done
        self._came = came
        self.name = name
        self.timer: asyncio.TimerHandle | None = None

    def answer(self) -> None:
        """Its time is up, or it is taken over."""
        if self._presence.left(self):
            self._presence.answered(self.name)
            self._done(self._came)

    def cancel(self) -> None:
        if self._presence.left(self):
            self._presence.gone(self.name)


class Presence:
    """Who is present at one broker.

    Args:
        submit: asks the store, as `Broker.submit`.
        find: a queue's info.
        clock: the store's steady time.
        wake_in: lets `advance` be called in so many seconds, at the latest.
        dismiss: answers a holder's polls with nothing.
        shared: whether other brokers work on the store; they are told, and asked.
    """

    def __init__(
        self,
        submit: Callable[[Operation, Done], None],
        find: Callable[[str], QueueInfo | None],
        clock: Clock,
        wake_in: Callable[[float], None],
        dismiss: Callable[[str], None],
        *,
        shared: bool,
    ) -> None:
        self._submit = submit
        self._find = find
        self._clock = clock
        self._wake_in = wake_in
        self._dismiss = dismiss
        self._holders = Holders()
        self._neighbours = Neighbours(self._holders, submit, clock, self._end) if shared else None
        self._stays: dict[str, Stay] = {}
        self._closed = False

    def hold(self, operation: Hold, done: Done, *, wait_ms: int) -> Stay | None:
        """Begin a Hold. Returns what to cancel when its client leaves; None when it is answered already."""
        try:
            self._check(operation)
        except HeadraceError as error:
            done(error)
            return None
        name = operation.holder
        before = self._stays.get(name)
        if before is not None:
            before.answer()
        came = self._holders.present(operation, self._clock())
        if came and self._neighbours is not None:
            self._neighbours.came(name)
        if not wait_ms:
            self.answered(name)
            done(came)
            return None
        stay = self._stays[name] = Stay(self, name, done, came=came)
        stay.timer = asyncio.get_running_loop().call_later(wait_ms / 1_000, stay.answer)
        return stay

    def _check(self, operation: Hold) -> None:
        if self._closed:
            raise Unavailable("the broker is stopping")
        self._holders.check(operation)

    def list_holders(self, operation: ListHolders, done: Done) -> None:
        """Answer a ListHolders."""
        if self._neighbours is not None:
            self._neighbours.list_holders(operation.kind, done)
        else:
            done(self._holders.states(operation.kind, self._clock()))

    def follow(self, operation: Operation, done: Done) -> Done:
        """`done`, and before it: tie the leases that the operation gives to a holder, untie those that it ends."""
        if isinstance(operation, _GIVE):
            return done if operation.holder is None else partial(self._given, operation, operation.holder, done)
        ties = self._holders.tied or (isinstance(operation, ChangeVisibility) and operation.holder is not None)
        return partial(self._ended, operation, done) if ties else done

    def advance(self) -> int | None:
        """End the leases of those whose grace is over. Returns when to call again."""
        for name in self._holders.due(self._clock()):
            self.gone(name)
        next_ms = self._holders.next_ms()
        if self._neighbours is None:
            return next_ms
        told_ms = self._neighbours.advance()
        return told_ms if next_ms is None else min(next_ms, told_ms)

    def leave(self) -> None:
        """Let other brokers know that nobody is here any more, while the store still takes requests."""
        if self._neighbours is not None and not self._closed:
            self._neighbours.leave()

    def close(self) -> None:
        """Answer those that hold."""
        self._closed = True
        for stay in list(self._stays.values()):
            stay.answer()

    # What a stay tells.

    def left(self, stay: Stay) -> bool:
        """Whether it still waited."""
        if self._stays.get(stay.name) is not stay:
            return False
        del self._stays[stay.name]
        if stay.timer is not None:
            stay.timer.cancel()
        return True

    def answered(self, name: str) -> None:
        self._holders.answered(name, self._clock())
        if not self._closed:
            self._wake_in(limits.HOLD_GRACE_MS / 1_000)

    def gone(self, name: str) -> None:
        """End its leases, unless it is at another broker: the messages are visible to others, now."""
        self._dismiss(name)
        seen_ms = self._holders.seen_ms(name)
        leases = self._holders.gone(name)
        if self._neighbours is None:
            self._end(leases)
        else:
            self._neighbours.went(name, Went(seen_ms, leases))

    def _end(self, leases: Leases) -> None:
        for queue, receipts in leases.items():
            for start in range(0, len(receipts), limits.NATIVE_BATCH_MAX):
                some = receipts[start : start + limits.NATIVE_BATCH_MAX]
                changes = [(receipt, 0) for receipt in some]
                self._submit(ChangeVisibility(queue, changes, strict=True), lambda _outcome: None)

    # What the store answered.

    def _given(self, operation: Receive | ReceiveAny | Take, holder: str, done: Done, outcome: Any) -> None:
        if isinstance(outcome, list):
            given = outcome if isinstance(operation, ReceiveAny) else [(operation.queue, outcome)]
            for queue, deliveries in given:
                receipts = [one.receipt for one in deliveries if type(one) is Delivery]
                if receipts:
                    self._tie(holder, queue, receipts, operation.visibility_ms)
        done(outcome)

    def _tie(self, holder: str, queue: str, receipts: list[bytes], visibility_ms: int | None) -> None:
        now = self._clock()
        if visibility_ms is None:
            info = self._find(queue)
            visibility_ms = info.settings.visibility_ms if info is not None else 0
        self._holders.tie(holder, queue, receipts, ends_ms=now + visibility_ms, now=now)
        self._wake_in(limits.HOLD_GRACE_MS / 1_000)

    def _ended(self, operation: Operation, done: Done, outcome: Any) -> None:
        if isinstance(outcome, HeadraceError):
            pass
        elif isinstance(operation, Transact):
            for _, receipts in operation.acknowledge:
                self._holders.untie(receipts)
        elif isinstance(operation, Delete):
            pairs = zip(operation.receipts, outcome, strict=True)
            self._holders.untie([receipt for receipt, one in pairs if one is None])
        elif isinstance(operation, ChangeVisibility):
            self._changed(operation, outcome)
        done(outcome)

    def _changed(self, operation: ChangeVisibility, outcome: list[CallerError | None]) -> None:
        now = self._clock()
        for (receipt, timeout_ms), one in zip(operation.changes, outcome, strict=True):
            if one is None and timeout_ms:
                self._extended(operation, receipt, now + timeout_ms)
            elif one is None:
                self._holders.untie([receipt])

    def _extended(self, operation: ChangeVisibility, receipt: bytes, ends_ms: int) -> None:
        if operation.holder is None:
            self._holders.move(receipt, ends_ms)
            return
        self._holders.tie(operation.holder, operation.queue, [receipt], ends_ms=ends_ms, now=self._clock())
        self._wake_in(limits.HOLD_GRACE_MS / 1_000)
