"""Who is present, and which leases end when a holder is gone. Pure: rules on time and names, no I/O.

A holder is present while a Hold of its name is open, and for a grace after that was answered. Whose connection breaks is
gone at once. Leases may be given by another broker of the store than the one where the Hold is open: while it is open
there, the grace begins anew each time that it is heard. A lease is tied by its receipt; one that has ended otherwise may stay tied for a while: to end it again has
no effect, since a receipt is good for one delivery only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec

from headrace.errors import InvalidParameter
from headrace.queue import limits
from headrace.queue.model import ID, HolderState
from headrace.queue.operations import Hold

Leases: TypeAlias = dict[str, list[bytes]]
"""Queue -> receipts."""

SWEEP_MIN: Final = 1_000  # leases that are tied before it is looked for those that have ended


class _Holder:
    """One holder. `due_ms`: gone then, unless it comes again; None while a Hold is open. `asked_ms`: what `due_ms` was before
    it was asked whether another broker has it. `kind` empty: it has leases and has not held yet."""

    __slots__ = ("asked_ms", "due_ms", "facts", "kind", "leases", "name", "seen_ms", "since_ms", "sweep_at")

    def __init__(self, name: str, now: int) -> None:
        self.name = name
        self.kind = ""
        self.facts: dict[str, Any] = {}
        self.since_ms = self.seen_ms = now
        self.due_ms: int | None = now + limits.HOLD_GRACE_MS
        self.asked_ms: int | None = None
        self.leases: dict[bytes, tuple[str, int]] = {}  # receipt -> (queue, when it ends by itself)
        self.sweep_at = SWEEP_MIN


class Holders:
    """The holders of one broker.

    Invariant: `tied` has exactly the receipts of all holders' leases.
    """

    def __init__(self) -> None:
        self._holders: dict[str, _Holder] = {}
        self.tied: dict[bytes, _Holder] = {}

    def check(self, operation: Hold) -> None:
        """Raise InvalidParameter unless it may hold."""
        for parameter in ("holder", "kind"):
            value = getattr(operation, parameter)
            if not ID.fullmatch(value):
                raise InvalidParameter(parameter, value[:200], "1 to 128 alphanumeric and punctuation characters")
        size = len(msgspec.json.encode(operation.facts))
        if size > limits.FACTS_BYTES_MAX:
            raise InvalidParameter("facts", f"{size} bytes", f"at most {limits.FACTS_BYTES_MAX} bytes of JSON")
        if operation.holder not in self._holders and len(self._holders) >= limits.HOLDERS_MAX:
            reason = f"{limits.HOLDERS_MAX} others are present; a process is one holder, whatever it does"
            raise InvalidParameter("holder", operation.holder, reason)

    def present(self, operation: Hold, now: int) -> bool:
        """A Hold is open. Returns whether it was not present before."""
        holder = self._get(operation.holder, now)
        comes = not holder.kind
        if comes:
            holder.since_ms = now
        holder.kind, holder.facts = operation.kind, operation.facts
        holder.seen_ms, holder.due_ms, holder.asked_ms = now, None, None
        return comes

    def answered(self, name: str, now: int) -> None:
        """Its Hold is over: it is gone if it does not come again in time."""
        holder = self._holders[name]
        holder.seen_ms, holder.due_ms, holder.asked_ms = now, now + limits.HOLD_GRACE_MS, None

    def seen_ms(self, name: str) -> int:
        """When it was last heard of here; 0: it has not held here."""
        holder = self._holders[name]
        return holder.seen_ms if holder.kind else 0

    def ask(self, now: int) -> list[tuple[str, int]]:
        """Those with leases given here, and no Hold that is open here: who is to be looked for at other brokers, and when
        each was last heard of here. Their grace is not over before it is `heard`."""
        away = [one for one in self._holders.values() if one.due_ms is not None and one.leases]
        for one in away:
            if one.asked_ms is None:
                one.asked_ms = one.due_ms
            one.due_ms = now + limits.HOLDERS_FRESH_MS
        return [(one.name, self.seen_ms(one.name)) for one in away]

    def heard(self, name: str, *, elsewhere: bool, now: int) -> None:
        """Whether a Hold of its name is open at another broker."""
        holder = self._holders.get(name)
        if holder is None or holder.asked_ms is None:
            return
        holder.due_ms = now + limits.HOLD_GRACE_MS if elsewhere else holder.asked_ms
        holder.asked_ms = None

    def gone(self, name: str) -> Leases:
        """Forget a holder: the leases that end."""
        holder = self._holders.pop(name)
        ended: Leases = defaultdict(list)
        for receipt, (queue, _) in holder.leases.items():
            del self.tied[receipt]
            ended[queue].append(receipt)
        return ended

    def due(self, now: int) -> list[str]:
        """Those whose grace is over."""
        return [name for name, one in self._holders.items() if one.due_ms is not None and one.due_ms <= now]

    def next_ms(self) -> int | None:
        return min((one.due_ms for one in self._holders.values() if one.due_ms is not None), default=None)

    def tie(self, name: str, queue: str, receipts: list[bytes], *, ends_ms: int, now: int) -> None:
        """Leases were given to a holder; one that is not present (yet) has the grace to come."""
        self.untie(receipts)
        holder = self._get(name, now)
        holder.leases.update(dict.fromkeys(receipts, (queue, ends_ms)))
        self.tied.update(dict.fromkeys(receipts, holder))
        if len(holder.leases) > holder.sweep_at:
            self._sweep(holder, now)

    def untie(self, receipts: Iterable[bytes]) -> None:
        """These leases have ended."""
        tied = self.tied
        for receipt in receipts:
            holder = tied.pop(receipt, None)
            if holder is not None:
                del holder.leases[receipt]

    def move(self, receipt: bytes, ends_ms: int) -> None:
        """A lease goes on until then."""
        holder = self.tied.get(receipt)
        if holder is not None:
            holder.leases[receipt] = (holder.leases[receipt][0], ends_ms)

    def states(self, kind: str, now: int) -> list[HolderState]:
        """Those that hold, sorted by name; of one kind, unless it is empty."""
        found = [one for _, one in sorted(self._holders.items()) if one.kind and kind in ("", one.kind)]
        for one in found:
            self._sweep(one, now)
        return [HolderState(one.name, one.kind, one.since_ms, one.seen_ms, len(one.leases), one.facts) for one in found]

    def _get(self, name: str, now: int) -> _Holder:
        holder = self._holders.get(name)
        if holder is None:
            holder = self._holders[name] = _Holder(name, now)
        return holder

    def _sweep(self, holder: _Holder, now: int) -> None:
        """Untie what has ended by itself; so what is tied is bounded by what is in flight."""
        self.untie([receipt for receipt, (_, ends_ms) in holder.leases.items() if ends_ms <= now])
        holder.sweep_at = max(SWEEP_MIN, 2 * len(holder.leases))
