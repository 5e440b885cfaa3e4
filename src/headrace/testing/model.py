"""An independent model of SQS queues: lists, loops, and the words of Amazon's documentation. Slow on purpose.

The model does not decide what a store must choose freely (which message of a standard queue comes first, which FIFO group
is served first). It is told what the store answered, raises `Violation` when SQS's rules do not allow it, and goes on from
there. It shares no code with the rules in `headrace.queue`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from headrace.errors import HeadraceError, ReceiptExpired
from headrace.queue.model import Delivery, Entry, Message, Peeked, QueueCounts, Sent

FIVE_MINUTES_MS: Final = 300_000
TWELVE_HOURS_MS: Final = 43_200_000


class Violation(AssertionError):
    """The store did what no SQS queue may do."""


def require(condition: bool, what: object) -> None:
    if not condition:
        raise Violation(what)


@dataclass(eq=False)
class ModelMessage:
    """One message. `receipts` are all that it was ever given, newest last; `lease_ends` only while it is leased."""

    id: bytes
    seq: int
    body: bytes
    group: str | None
    sent_ms: int
    visible_ms: int | None
    receives: int = 0
    moved_with: int = 0
    received_ms: int = 0
    lease_ends: int | None = None
    claimed_by: str | None = None
    source: str | None = None
    receipts: list[bytes] = field(default_factory=list)

    @property
    def in_flight(self) -> bool:
        return self.lease_ends is not None or self.claimed_by is not None


@dataclass
class Attempt:
    """A receive with an attempt id: what it was answered. `intact` until one of the messages is deleted or changed."""

    at_ms: int
    leases: list[tuple[ModelMessage, bytes]]
    intact: bool = True


class ModelQueue:
    """One queue: its messages oldest first, and everything that was ever told about them."""

    def __init__(
        self,
        arn: str,
        *,
        fifo: bool = False,
        visibility_ms: int = 30_000,
        retention_ms: int = 345_600_000,
        delay_ms: int = 0,
        group_scope: bool = False,
        dead: ModelQueue | None = None,
        receives_max: int = 0,
    ) -> None:
        self.arn = arn
        self.fifo = fifo
        self.visibility_ms = visibility_ms
        self.retention_ms = retention_ms
        self.delay_ms = delay_ms
        self.group_scope = group_scope
        self.dead = dead
        self.receives_max = receives_max
        self.messages: list[ModelMessage] = []
        self.known_ids: list[tuple[str, int, bytes, int]] = []  # dedup id in its scope, end, message id, seq
        self.issued: dict[bytes, ModelMessage] = {}
        self.attempts: dict[str, Attempt] = {}
        self.claims: dict[int, list[ModelMessage]] = {}
        self.claimed_last = 0
        self.last_seq = 0

    # Time

    def tick(self, now: int) -> None:
        """Leases that have ended show their messages again; what is older than the retention is gone."""
        for message in self.messages:
            if message.lease_ends is not None and message.lease_ends <= now:
                message.lease_ends = None
        self.messages = [
            message for message in self.messages if message.in_flight or message.sent_ms + self.retention_ms > now
        ]

    def visible_ms(self, message: ModelMessage) -> int:
        """A FIFO queue's delay is the queue's, whatever it was when the message was sent."""
        if self.fifo:
            return message.sent_ms + self.delay_ms
        return message.visible_ms if message.visible_ms is not None else message.sent_ms

    def ready(self, message: ModelMessage, now: int) -> bool:
        return not message.in_flight and self.visible_ms(message) <= now

    # Sending

    def send(self, entries: Sequence[Entry], outcomes: Sequence[Sent | HeadraceError], now: int) -> None:
        """`entries`, all valid, were answered `outcomes`."""
        require(len(entries) == len(outcomes), "an outcome an entry")
        for entry, outcome in zip(entries, outcomes, strict=True):
            require(isinstance(outcome, Sent), f"a valid entry was refused: {outcome!r}")
            assert isinstance(outcome, Sent)
            self._send_one(entry, outcome, now)

    def _send_one(self, entry: Entry, sent: Sent, now: int) -> None:
        scoped = f"{entry.group}/{entry.dedup_id}" if self.group_scope else entry.dedup_id
        for known, ends, message_id, seq in self.known_ids:
            if known == scoped and now < ends:
                require(sent.duplicate and (sent.id, sent.seq) == (message_id, seq), "a duplicate was stored")
                return
        require(not sent.duplicate, "a new message was called a duplicate")
        require(sent.seq > self.last_seq, f"sequence number {sent.seq} after {self.last_seq}")
        self.last_seq = sent.seq
        delay_ms = self.delay_ms if entry.delay_ms is None else entry.delay_ms
        self.messages.append(ModelMessage(sent.id, sent.seq, entry.body, entry.group, now, now + delay_ms))
        if scoped is not None and self.fifo:
            self.known_ids.append((scoped, now + FIVE_MINUTES_MS, sent.id, sent.seq))

    # Receiving

    def receive(
        self,
        limit: int,
        deliveries: Sequence[Delivery],
        dead_now: Sequence[Peeked],
        now: int,
        *,
        visibility_ms: int | None,
        deleting: ModelMessage | None = None,
    ) -> None:
        """A receive was answered `deliveries`; `dead_now` is what the dead-letter queue shows afterwards.

        `deleting`: a message of a FIFO queue whose delete may not be durable yet: then those behind it in its group wait.
        """
        before = {message.id: message for message in self.messages if self.ready(message, now)}
        exhausted = {m.id for m in before.values() if self.dead is not None and m.receives >= self.receives_max}
        ids = [delivery.message.id for delivery in deliveries]
        require(len(set(ids)) == len(ids), "a message was delivered twice in one receive")
        moved = [one for one in dead_now if one.message.id in exhausted]
        if self.fifo:
            served = {*ids, *(one.message.id for one in moved)}
            waits = deleting is not None and not any(
                self._behind(before[key], deleting) for key in served if key in before
            )
            before = {message.id: message for message in self._served_next(now)}
            if deleting is not None and waits:
                before = {key: message for key, message in before.items() if not self._behind(message, deleting)}
            exhausted &= before.keys()
            self._check_fifo_order(deliveries, before, exhausted, {one.message.id for one in moved})
        deliverable = before.keys() - exhausted
        require(set(ids) <= deliverable, f"delivered though not ready: {set(ids) - deliverable}")
        self._check_number(limit, len(ids), len(deliverable))
        if len(ids) < limit and not (self.fifo and ids):
            require({one.message.id for one in moved} == exhausted, "a message received too often was not moved")
        lease_ms = self.visibility_ms if visibility_ms is None else visibility_ms
        for delivery in deliveries:
            self._lease(before[delivery.message.id], delivery, now, lease_ms)
        for one in moved:
            self._bury(before[one.message.id], one.message, now)

    def _served_next(self, now: int) -> list[ModelMessage]:
        """Of a FIFO queue: each group's first messages, up to the first that is not ready; none of a reader's groups."""
        out: list[ModelMessage] = []
        closed = {message.group for message in self.messages if message.claimed_by is not None}
        for message in self.messages:
            if not self.ready(message, now):
                closed.add(message.group)
            if message.group not in closed:
                out.append(message)
        return out

    @staticmethod
    def _behind(message: ModelMessage, other: ModelMessage) -> bool:
        return message.group == other.group and message.seq > other.seq

    def take(
        self, seqs: Sequence[int], outcomes: Sequence[Delivery | HeadraceError], now: int, *, visibility_ms: int | None
    ) -> None:
        """A take of the messages `seqs` was answered `outcomes`. Each one is taken but those gone, in flight, or behind
        others of their FIFO group."""
        require(len(seqs) == len(outcomes), "an outcome a number")
        free = [message for message in self.messages if self._may_be_taken(message, now)]
        lease_ms = self.visibility_ms if visibility_ms is None else visibility_ms
        taken: list[tuple[ModelMessage, Delivery]] = []
        for seq, outcome in zip(seqs, outcomes, strict=True):
            message = next((one for one in free if one.seq == seq), None)
            require(isinstance(outcome, Delivery) == (message is not None), f"taking {seq} was answered {outcome!r}")
            if message is not None and isinstance(outcome, Delivery):
                taken.append((message, outcome))
                free = [one for one in free if one is not message and not (self.fifo and one.group == message.group)]
        for message, delivery in taken:
            message.visible_ms = now
            self._lease(message, delivery, now, lease_ms)

    def _may_be_taken(self, message: ModelMessage, now: int) -> bool:
        if not self.fifo:
            return not message.in_flight
        first = next(one for one in self.messages if one.group == message.group)
        return message is first and message in self._served_next(now)

    def _check_number(self, limit: int, delivered: int, deliverable: int) -> None:
        """All that is ready, up to the limit. A FIFO receive may stop short behind a message that it had to drop: SQS promises
        as many as possible, not how many; but one, if there is one."""
        least = min(limit, deliverable, 1) if self.fifo else min(limit, deliverable)
        require(least <= delivered <= limit, f"{delivered} delivered of {deliverable}, limit {limit}")

    def _check_fifo_order(
        self,
        deliveries: Sequence[Delivery],
        before: dict[bytes, ModelMessage],
        exhausted: set[bytes],
        moved: set[bytes],
    ) -> None:
        """In each group no message is passed over, and a receive does not come back to a group."""
        groups = list(dict.fromkeys(delivery.message.group for delivery in deliveries))
        runs = [[d.message.id for d in deliveries if d.message.group == name] for name in groups]
        require(
            [d.message.id for d in deliveries] == functools.reduce(operator.iadd, runs, []),
            "groups are mixed in one receive",
        )
        for name, run in zip(groups, runs, strict=True):
            waiting = [m.id for m in before.values() if m.group == name]
            in_turn = [key for key in waiting if key not in exhausted]
            require(run == in_turn[: len(run)], f"group {name} out of order")
            passed = waiting[: waiting.index(run[-1])] if run else []
            require(
                {key for key in passed if key in exhausted} <= moved, f"group {name}: a dead letter was passed over"
            )

    def _lease(self, message: ModelMessage, delivery: Delivery, now: int, lease_ms: int) -> None:
        require(delivery.message.body == message.body, "the body has changed")
        require(
            (delivery.message.seq, delivery.message.group) == (message.seq, message.group), "seq or group has changed"
        )
        require(delivery.receipt not in self.issued, "a receipt was issued twice")
        message.receives += 1
        require(delivery.receives == message.moved_with + message.receives, "the receive count is wrong")
        message.received_ms = now
        message.lease_ends = now + lease_ms if lease_ms else None
        message.receipts.append(delivery.receipt)
        self.issued[delivery.receipt] = message

    def _bury(self, message: ModelMessage, letter: Message, now: int) -> None:
        assert self.dead is not None
        require((letter.body, letter.group) == (message.body, message.group), "a dead letter has changed")
        require(letter.source == self.arn, "a dead letter does not name its source")
        require(
            letter.seq > self.dead.last_seq or any(m.seq == letter.seq for m in self.dead.messages), "seq used again"
        )
        self.messages.remove(message)
        buried = ModelMessage(letter.id, letter.seq, letter.body, letter.group, letter.sent_ms, None)
        require(letter.sent_ms == (now if self.fifo else message.sent_ms), "a dead letter's sent time is wrong")
        buried.moved_with = message.moved_with + message.receives
        buried.source = self.arn
        self.dead.last_seq = max(self.dead.last_seq, letter.seq)
        self.dead.messages.append(buried)
        self.dead.messages.sort(key=lambda one: one.seq)

    def replay(self, attempt_id: str, now: int) -> list[tuple[bytes, bytes]] | None:
        """(message id, receipt) that a receive with this attempt id must answer again; None: it is a new receive."""
        attempt = self.attempts.get(attempt_id)
        if attempt is None or not attempt.intact or not attempt.leases or now >= attempt.at_ms + FIVE_MINUTES_MS:
            return None
        if any(m not in self.messages or m.lease_ends is None or m.receipts[-1] != r for m, r in attempt.leases):
            return None
        return [(message.id, receipt) for message, receipt in attempt.leases]

    def replayed(self, attempt_id: str, now: int, lease_ms: int) -> None:
        """A replay restarts the visibility timeout; it is no new receive, so the 12 hours go on from the first."""
        for message, _ in self.attempts[attempt_id].leases:
            message.lease_ends = now + lease_ms

    def attempted(self, attempt_id: str, deliveries: Sequence[Delivery], now: int) -> None:
        leases = [(self.issued[delivery.receipt], delivery.receipt) for delivery in deliveries]
        self.attempts[attempt_id] = Attempt(now, leases)

    def _break_attempts(self, message: ModelMessage) -> None:
        for attempt in self.attempts.values():
            if any(message is leased for leased, _ in attempt.leases):
                attempt.intact = False

    # Receipts

    def delete(self, receipt: bytes, outcome: HeadraceError | None) -> None:
        """A receipt that this queue issued was used to delete."""
        message = self.issued[receipt]
        if message not in self.messages:
            require(
                outcome is None or (self.fifo and isinstance(outcome, ReceiptExpired)), f"gone already: {outcome!r}"
            )
            return
        newest = message.receipts[-1] == receipt
        if self.fifo and not (newest and message.lease_ends is not None):
            require(isinstance(outcome, ReceiptExpired), f"an expired receipt was not refused: {outcome!r}")
            return
        require(outcome is None, f"a delete was refused: {outcome!r}")
        if message.claimed_by is None:
            self.messages.remove(message)
            self._break_attempts(message)

    def change_visibility(
        self, receipt: bytes, timeout_ms: int, outcome: HeadraceError | None, now: int, *, strict: bool = False
    ) -> None:
        """On a standard queue any receipt of the message will do, unless the change was `strict`."""
        message = self.issued[receipt]
        holds = message.lease_ends is not None and message.receipts[-1] == receipt
        allowed = message in self.messages and message.claimed_by is None and (holds or not (self.fifo or strict))
        if not allowed or now + timeout_ms > message.received_ms + TWELVE_HOURS_MS:
            require(isinstance(outcome, HeadraceError), "a change was allowed by a stale receipt, or beyond 12 hours")
            return
        require(outcome is None, f"a change of visibility was refused: {outcome!r}")
        message.lease_ends = now + timeout_ms if timeout_ms else None
        self._break_attempts(message)

    def purge(self, count: int) -> None:
        require(count == len(self.messages), f"purged {count} of {len(self.messages)}")
        self.messages.clear()
        self.known_ids.clear()
        for claimed in self.claims.values():
            claimed.clear()

    # Claims, of one reader

    def claim(self, number: int, limit: int, answer: Sequence[Message], now: int) -> None:
        """Claim `number` (open, or the next one) was answered."""
        ids = [message.id for message in answer]
        if number in self.claims:
            require(ids == [message.id for message in self.claims[number]], "an open claim has changed")
            return
        free = [message for message in self.messages if self.ready(message, now)]
        if self.fifo:
            free = [message for message in free if not self._locked_for_reader(message.group)]
        gone = {message.id for message in free if self.dead is not None and message.receives >= self.receives_max}
        require(set(ids) <= {message.id for message in free} - gone, "claimed though not ready")
        self._check_number(limit, len(ids), len(free) - len(gone))
        if not ids:
            return
        chosen = {message.id: message for message in free}
        self.claims[number] = [chosen[key] for key in ids]
        self.claimed_last = number
        for name in {chosen[key].group for key in ids} if self.fifo else ():
            in_turn = [message.id for message in free if message.group == name and message.id not in gone]
            mine = [key for key in ids if chosen[key].group == name]
            require(mine == in_turn[: len(mine)], f"claim of group {name} out of order")
        for key in ids:
            chosen[key].claimed_by = "reader"
            self._break_attempts(chosen[key])

    def _locked_for_reader(self, group: str | None) -> bool:
        return any(message.group == group and message.lease_ends is not None for message in self.messages)

    def acknowledge(self, number: int) -> None:
        for done in [one for one in self.claims if one <= number]:
            for message in self.claims.pop(done):
                self.messages.remove(message)

    def release(self) -> None:
        for claimed in self.claims.values():
            for message in claimed:
                message.claimed_by = None
        self.claims.clear()
        self.claimed_last = 0

    # Comparing

    def compare(self, peeked: Sequence[Peeked], counts: QueueCounts, now: int) -> None:
        """Everything that the store shows of this queue is what the model says."""
        shown = [(one.message.seq, one.message.id, one.message.body, one.state, one.receives) for one in peeked]
        expected = [(m.seq, m.id, m.body, self._state(m, now), m.moved_with + m.receives) for m in self.messages]
        require(shown == expected, f"{self.arn}\n  shows {shown}\n  expected {expected}")
        states = [state for _, _, _, state, _ in expected]
        in_flight = states.count("in_flight") + states.count("claimed")
        told = (counts.visible, counts.in_flight, counts.delayed)
        require(
            told == (states.count("visible"), in_flight, states.count("delayed")), f"{self.arn} counts {told}: {states}"
        )

    def _state(self, message: ModelMessage, now: int) -> str:
        if message.claimed_by is not None:
            return "claimed"
        if message.lease_ends is not None:
            return "in_flight"
        return "visible" if self.visible_ms(message) <= now else "delayed"
