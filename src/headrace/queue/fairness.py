"""Fair queues: a noisy tenant cannot make the others wait.

On a standard queue the message group names a tenant. A tenant is *noisy* while it has more than 10 % of the messages in
flight and at least 30 of its own there, or took more than 10 % of the consumers' recent time. Quiet tenants are served
first; among noisy ones the one with the fewest in flight. Nothing is dropped or slowed while consumers are free.

A message without a group is a tenant of its own, never noisy. Source: SQS, "Amazon SQS fair queues".
"""

from __future__ import annotations

from collections import deque

from headrace.queue import limits


def holds_too_many(own: int, in_flight: int) -> bool:
    """Whether a tenant with `own` messages in flight is noisy, when the queue has `in_flight` of them."""
    return own >= limits.NOISY_IN_FLIGHT_MIN and own > limits.NOISY_SHARE * in_flight


class ConsumerTime:
    """How much of the consumers' time each tenant took, of the last five minutes: two slices of half that, the older one
    dropped whole."""

    __slots__ = ("_busy_ms", "_done", "_slice", "_total_ms")

    def __init__(self) -> None:
        self._busy_ms: list[dict[str, int]] = [{}, {}]  # this slice of time and the one before
        self._total_ms = [0, 0]
        self._done: list[dict[str, int]] = [{}, {}]
        self._slice = 0

    def spent(self, group: str, *, busy_ms: int, now: int) -> None:
        """A lease of `group` ended after `busy_ms` of a consumer's time."""
        self._turn(now)
        self._busy_ms[0][group] = self._busy_ms[0].get(group, 0) + busy_ms
        self._total_ms[0] += busy_ms
        self._done[0][group] = self._done[0].get(group, 0) + 1

    def takes_too_much(self, group: str, now: int) -> bool:
        """Whether `group` is noisy by its share of the time."""
        self._turn(now)
        if sum(done.get(group, 0) for done in self._done) < limits.NOISY_IN_FLIGHT_MIN:
            return False
        busy = sum(slice_.get(group, 0) for slice_ in self._busy_ms)
        return busy > limits.NOISY_SHARE * sum(self._total_ms)

    def groups(self) -> set[str]:
        """All tenants that took any."""
        return set(self._done[0]) | set(self._done[1])

    def forget(self) -> None:
        """The past counts no more."""
        self._busy_ms = [{}, {}]
        self._total_ms = [0, 0]
        self._done = [{}, {}]

    def _turn(self, now: int) -> None:
        slice_ = now // (limits.FAIR_IDLE_MS // 2)
        if slice_ == self._slice:
            return
        follows = slice_ == self._slice + 1
        self._busy_ms = [{}, self._busy_ms[0] if follows else {}]
        self._total_ms = [0, self._total_ms[0] if follows else 0]
        self._done = [{}, self._done[0] if follows else {}]
        self._slice = slice_


class Tenants:
    """What fairness knows of the tenants of one queue, and the noisy ones' messages that stood back.

    Invariant: `deferred` holds no empty deque.
    """

    __slots__ = ("_time", "deferred", "deferred_count", "in_flight")

    def __init__(self) -> None:
        self.in_flight: dict[str, int] = {}
        self.deferred: dict[str, deque[int]] = {}
        self.deferred_count = 0
        self._time = ConsumerTime()

    def started(self, group: str) -> None:
        self.in_flight[group] = self.in_flight.get(group, 0) + 1

    def stopped(self, group: str, count: int = 1) -> None:
        """So many messages of `group` are in flight no more."""
        self.in_flight[group] -= count
        if not self.in_flight[group]:
            del self.in_flight[group]

    def ended(self, group: str, *, busy_ms: int, now: int) -> None:
        """A lease of `group` ended after `busy_ms` of a consumer's time."""
        self.stopped(group)
        self._time.spent(group, busy_ms=busy_ms, now=now)

    def noisy(self, group: str, *, in_flight: int, now: int) -> bool:
        """Whether `group` is noisy, when the queue has `in_flight` messages in flight."""
        own = self.in_flight.get(group, 0)
        return holds_too_many(own, in_flight) or self._time.takes_too_much(group, now)

    def defer(self, group: str, seq: int) -> None:
        self.deferred.setdefault(group, deque()).append(seq)
        self.deferred_count += 1

    def take_deferred(self, group: str) -> int:
        """The oldest message of `group` that stood back."""
        waiting = self.deferred[group]
        seq = waiting.popleft()
        self.deferred_count -= 1
        if not waiting:
            del self.deferred[group]
        return seq

    def recall_deferred(self) -> list[tuple[str, int]]:
        """Nothing stands back any more; what did."""
        found = [(group, seq) for group, seqs in self.deferred.items() for seq in seqs]
        self.deferred.clear()
        self.deferred_count = 0
        return found

    def least_busy(self) -> str | None:
        """Of the tenants that stood back, the one with the fewest messages in flight."""
        return min(self.deferred, key=lambda group: self.in_flight.get(group, 0), default=None)

    def quiet_again(self, *, in_flight: int, now: int) -> str | None:
        """A tenant that stood back and is noisy no more."""
        return next((group for group in self.deferred if not self.noisy(group, in_flight=in_flight, now=now)), None)

    def forget_time(self) -> None:
        """The backlog is gone: the past counts no more."""
        self._time.forget()

    def forget(self, group: str, seq: int) -> bool:
        """A message that may stand back is gone; whether it did."""
        waiting = self.deferred.get(group)
        if waiting is None or seq not in waiting:
            return False
        waiting.remove(seq)
        self.deferred_count -= 1
        if not waiting:
            del self.deferred[group]
        return True
