"""What clients saw of a broker that is killed again and again, and the violations in it that are certain.

Times are the client's; a server's moment lies between a request's sending and its answer. A violation is counted only if
it is one wherever in there the moment was.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

MARGIN_S: Final = 0.05
"""Leases end on the server's milliseconds; clients measure their own."""


@dataclass(frozen=True)
class Send:
    body: str
    acknowledged: bool
    message_id: str = ""


@dataclass(frozen=True)
class Receipt:
    """One delivery as a client saw it."""

    queue: str
    message_id: str
    body: str
    count: int
    sent: float
    received: float
    visibility_s: float
    group: str = ""
    number: int = 0


@dataclass(frozen=True)
class Deletion:
    message_id: str
    sent: float
    received: float
    acknowledged: bool


@dataclass
class History:
    """Everything that happened, as clients know it.

    `forgetful`: queues whose leases may be forgotten, and with them their counts: leases of standard queues on a database
    that crashes are not synced.
    """

    sends: list[Send] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    forgetful: frozenset[str] = frozenset()

    def violations(self) -> dict[str, list[str]]:
        """Name of a broken promise -> where. Empty lists are left out."""
        checks = {
            "acknowledged and lost": self._lost(),
            "delivered after its delete": self._undead(),
            "FIFO order": self._disorder(),
            "dedup id stored twice": self._stored_twice(),
            "receive count fell": self._fallen_counts(),
            "two owners or early": self._early(),
            "two owners of a group": self._two_owners(),
            "never sent": self._invented(),
        }
        return {name: found for name, found in checks.items() if found}

    def _lost(self) -> list[str]:
        """Call after everything has been drained."""
        seen = {one.body for one in self.receipts}
        return [one.body for one in self.sends if one.acknowledged and one.body not in seen]

    def _invented(self) -> list[str]:
        sent = {one.body for one in self.sends}
        return [one.body for one in self.receipts if one.body not in sent]

    def _undead(self) -> list[str]:
        received: dict[str, list[Receipt]] = defaultdict(list)
        for receipt in sorted(self.receipts, key=lambda one: one.received):
            received[receipt.message_id].append(receipt)
        gone: dict[str, float] = {}
        for one in self.deletions:
            if one.acknowledged and self._counts(one, received[one.message_id]):
                gone[one.message_id] = min(one.received, gone.get(one.message_id, one.received))
        return [f"{one.body} count {one.count}" for one in self.receipts if one.sent > gone.get(one.message_id, 1e18)]

    def _counts(self, deletion: Deletion, received: list[Receipt]) -> bool:
        """Whether the message must be gone: on a standard queue a receipt whose lease has ended deletes nothing once somebody
        else has the message, and a call takes longer than a lease while a database is away."""
        last = [one for one in received if one.received <= deletion.sent][-1]
        return last.queue not in self.forgetful or deletion.received < last.sent + last.visibility_s - MARGIN_S

    def _disorder(self) -> list[str]:
        """In each group, messages are first seen in the order sent."""
        newest: dict[str, int] = {}
        seen: set[str] = set()
        found = []
        for one in self.receipts:
            if not one.group or one.body in seen:
                continue
            seen.add(one.body)
            if one.number < newest.get(one.group, -1):
                found.append(f"{one.body} after number {newest[one.group]}")
            newest[one.group] = max(newest.get(one.group, -1), one.number)
        return found

    def _stored_twice(self) -> list[str]:
        ids: dict[str, set[str]] = defaultdict(set)
        for one in self.receipts:
            ids[one.body].add(one.message_id)
        return [f"{body}: {len(known)} messages" for body, known in ids.items() if len(known) > 1]

    def _by_message(self) -> dict[str, list[Receipt]]:
        messages: dict[str, list[Receipt]] = defaultdict(list)
        for one in sorted(self.receipts, key=lambda receipt: receipt.sent):
            if one.queue not in self.forgetful:
                messages[one.message_id].append(one)
        return messages

    def _fallen_counts(self) -> list[str]:
        return [
            f"{later.body}: {earlier.count} then {later.count}"
            for known in self._by_message().values()
            for earlier, later in itertools.pairwise(known)
            if earlier.received < later.sent and later.count <= earlier.count
        ]

    def _early(self) -> list[str]:
        """The same message handed out again before its lease can have ended."""
        return [
            f"{later.body} after {later.received - earlier.sent:.3f} of {earlier.visibility_s} s"
            for known in self._by_message().values()
            for earlier, later in itertools.pairwise(known)
            if earlier.received < later.sent and later.received < earlier.sent + earlier.visibility_s - MARGIN_S
        ]

    def _two_owners(self) -> list[str]:
        """A message of a group handed out while an earlier one, or itself, must still be in flight."""
        ended: dict[str, float] = {}
        for one in self.deletions:
            ended[one.message_id] = min(one.sent, ended.get(one.message_id, one.sent))
        groups: dict[str, list[Receipt]] = defaultdict(list)
        for receipt in sorted(self.receipts, key=lambda one: one.sent):
            if receipt.group:
                groups[receipt.group].append(receipt)
        found = []
        for known in groups.values():
            for index, later in enumerate(known):
                for earlier in known[max(0, index - 40) : index]:
                    certain = earlier.sent + earlier.visibility_s - MARGIN_S
                    over = min(certain, ended.get(earlier.message_id, certain))
                    behind = later.number >= earlier.number
                    if behind and earlier.received < later.sent and later.received < over:
                        found.append(f"{later.body} while {earlier.body} was in flight")
        return found
