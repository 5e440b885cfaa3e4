"""Fair queues: a noisy tenant cannot make the others wait.

On a standard queue the message group names a tenant. A tenant is *noisy* while it has more than 10 % of the messages in
flight and at least 30 of its own there, or took more than 10 % of the consumers' recent time. Quiet tenants are served
first; among noisy ones the one with the fewest in flight. Nothing is dropped or slowed while consumers are free.

A message without a group is a tenant of its own, never noisy. Source: SQS, "Amazon SQS fair queues".
"""

from __future__ import annotations

from collections import deque

from headrace.queue import limits


class Tenants:
    """What fairness knows of the tenants of one queue, and the noisy ones' messages that stood back.

    Invariant: `deferred` holds no empty deque.
    """

    __slots__ = ("_busy_ms", "_done", "_slice", "_total_ms", "deferred", "deferred_count", "in_flight")

    def __init__(self) -> None:
        self.in_flight: dict[str, int] = {}
        self.deferred: dict[str, deque[int]] = {}
        self.deferred_count = 0
        self._busy_ms: list[dict[str, int]] = [{}, {}]  # this slice of time and the one before
        self._total_ms = [0, 0]
        self._done: list[dict[str, int]] = [{}, {}]
        self._slice = 0

    def started(self, group: str) -> None:
        self.in_flight[group] = self.in_flight.get(group, 0) + 1

    def ended(self, group: str, *, busy_ms: int, now: int) -> None:
        """A lease of `group` ended after `busy_ms` of a consumer's time."""
        count = self.in_flight[group] - 1
        if count:
            self.in_flight[group] = count
        else:
            del self.in_flight[group]
        self._turn(now)
        self._busy_ms[0][group] = self._busy_ms[0].get(group, 0) + busy_ms
        self._total_ms[0] += busy_ms
        self._done[0][group] = self._done[0].get(group, 0) + 1

    def noisy(self, group: str, *, in_flight: int, now: int) -> bool:
        """Whether `group` is noisy, when the queue has `in_flight` messages in flight."""
        own = self.in_flight.get(group, 0)
        if own >= limits.NOISY_IN_FLIGHT_MIN and own > limits.NOISY_SHARE * in_flight:
            return True
        self._turn(now)
        if sum(done.get(group, 0) for done in self._done) < limits.NOISY_IN_FLIGHT_MIN:
            return False
        busy = sum(slice_.get(group, 0) for slice_ in self._busy_ms)
        return busy > limits.NOISY_SHARE * sum(self._total_ms)

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

    def least_busy(self) -> str | None:
        """Of the tenants that stood back, the one with the fewest messages in flight."""
        return min(self.deferred, key=lambda group: self.in_flight.get(group, 0), default=None)

    def quiet_again(self, *, in_flight: int, now: int) -> str | None:
        """A tenant that stood back and is noisy no more."""
        return next((group for group in self.deferred if not self.noisy(group, in_flight=in_flight, now=now)), None)

    def forget_time(self) -> None:
        """The backlog is gone: the past counts no more."""
        self._busy_ms = [{}, {}]
        self._total_ms = [0, 0]
        self._done = [{}, {}]

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

    def _turn(self, now: int) -> None:
        """Time counts for five minutes: two slices of half that, the older one dropped whole."""
        slice_ = now // (limits.FAIR_IDLE_MS // 2)
        if slice_ == self._slice:
            return
        follows = slice_ == self._slice + 1
        self._busy_ms = [{}, self._busy_ms[0] if follows else {}]
        self._total_ms = [0, self._total_ms[0] if follows else 0]
        self._done = [{}, self._done[0] if follows else {}]
        self._slice = slice_
