"""A web server's queue as a simulation: open-loop clients, slots that serve, a clock that costs nothing.

Two queues can be put into it: ours (`Ours`), and CoDel (`Codel`, RFC 8289, dropping as 503), to compare.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from headrace.web.dispatch.admission import Admission


@dataclass(eq=False)
class Client:
    came_s: float
    service_s: float
    priority: int = 1
    since_s: float = 0.0
    waiting: bool = False


class Queue(Protocol):
    def offer(self, client: Client, now_s: float) -> list[Client]: ...
    def take(self, now_s: float) -> tuple[Client | None, list[Client]]: ...
    def leave(self, client: Client) -> None: ...
    def finished(self, service_s: float, now_s: float) -> None: ...
    def advance(self, now_s: float) -> tuple[list[Client], float]: ...


class Ours:
    def __init__(self, *, queue_size: int = 1_000, queue_timeout_s: float = 10.0) -> None:
        self.admission: Admission[Client] = Admission(queue_size=queue_size, queue_timeout_s=queue_timeout_s)

    def offer(self, client: Client, now_s: float) -> list[Client]:
        victim = self.admission.offer(client, now_s)
        return [] if victim is None else [victim]

    def take(self, now_s: float) -> tuple[Client | None, list[Client]]:
        return self.admission.take(now_s), []

    def leave(self, client: Client) -> None:
        self.admission.leave(client)

    def finished(self, service_s: float, now_s: float) -> None:
        self.admission.finished(service_s, now_s)

    def advance(self, now_s: float) -> tuple[list[Client], float]:
        return self.admission.advance(now_s)


class Codel:
    def __init__(self, *, queue_size: int = 1_000, target_s: float = 0.005, interval_s: float = 0.1) -> None:
        self._queue: deque[Client] = deque()
        self._size, self._target_s, self._interval_s = queue_size, target_s, interval_s
        self._above_s = 0.0
        self._dropping = False
        self._next_s = 0.0
        self._count = 0

    def offer(self, client: Client, now_s: float) -> list[Client]:
        if sum(1 for waiting in self._queue if waiting.waiting) >= self._size:
            return [client]
        client.waiting, client.since_s = True, now_s
        self._queue.append(client)
        return []

    def take(self, now_s: float) -> tuple[Client | None, list[Client]]:
        dropped: list[Client] = []
        client, drop = self._pop(now_s)
        if self._dropping:
            if not drop:
                self._dropping = False
            while self._dropping and client is not None and now_s >= self._next_s:
                dropped.append(client)
                self._count += 1
                client, drop = self._pop(now_s)
                if not drop:
                    self._dropping = False
                else:
                    self._next_s += self._interval_s / math.sqrt(self._count)
        elif drop and client is not None:
            dropped.append(client)
            client, _ = self._pop(now_s)
            self._dropping = True
            self._count = self._count - 2 if self._count > 2 and now_s - self._next_s < 8 * self._interval_s else 1
            self._next_s = now_s + self._interval_s / math.sqrt(self._count)
        return client, dropped

    def _pop(self, now_s: float) -> tuple[Client | None, bool]:
        while self._queue:
            client = self._queue.popleft()
            if client.waiting:
                client.waiting = False
                if now_s - client.since_s < self._target_s:
                    self._above_s = 0.0
                    return client, False
                if not self._above_s:
                    self._above_s = now_s + self._interval_s
                return client, now_s >= self._above_s
        self._above_s = 0.0
        return None, False

    def leave(self, client: Client) -> None:
        client.waiting = False

    def finished(self, service_s: float, now_s: float) -> None: ...

    def advance(self, now_s: float) -> tuple[list[Client], float]:
        return [], math.inf


@dataclass
class Outcome:
    """Seconds from coming to the answer, by kind."""

    good: list[float] = field(default_factory=list)
    late: int = 0
    """Served though the client had left."""
    shed: list[float] = field(default_factory=list)
    hung: int = 0
    """Left without any answer."""

    def p99_s(self) -> float:
        ordered = sorted(self.good)
        return ordered[int(len(ordered) * 0.99)]


def simulate(
    queue: Queue, arrivals: Iterable[Client], *, slots: int, deadline_s: float, returns_until_s: float = 0.0
) -> Outcome:
    """Let `arrivals` (in order) come; each leaves `deadline_s` after it came, unless it was answered. Until
    `returns_until_s` each comes again as soon as it has its answer: a closed loop."""
    outcome = Outcome()
    order = itertools.count()
    events: list[tuple[float, int, Callable[[float], None]]] = []
    free = slots
    swept_s = math.inf

    def at(when_s: float, action: Callable[[float], None]) -> None:
        heapq.heappush(events, (when_s, next(order), action))

    def shed(clients: Iterable[Client], now_s: float) -> None:
        for client in clients:
            outcome.shed.append(now_s - client.came_s)
            come_again(client, now_s)

    def come_again(client: Client, now_s: float) -> None:
        if now_s < returns_until_s:
            successor = Client(now_s, client.service_s, client.priority)
            at(now_s, lambda now_s: come(successor, now_s))

    def fill(now_s: float) -> None:
        nonlocal free
        while free:
            client, dropped = queue.take(now_s)
            shed(dropped, now_s)
            if client is None:
                return
            free -= 1
            at(now_s + client.service_s, lambda end_s, client=client: finish(client, end_s))  # type: ignore[misc]

    def finish(client: Client, now_s: float) -> None:
        nonlocal free
        free += 1
        queue.finished(client.service_s, now_s)
        taken_s = now_s - client.came_s
        if taken_s <= deadline_s:
            outcome.good.append(taken_s)
        else:
            outcome.late += 1
        come_again(client, now_s)
        fill(now_s)

    def come(client: Client, now_s: float) -> None:
        shed(queue.offer(client, now_s), now_s)
        fill(now_s)
        if client.waiting:
            at(now_s + deadline_s, lambda end_s: leave(client))
            sweep(now_s)

    def leave(client: Client) -> None:
        if client.waiting:
            queue.leave(client)
            outcome.hung += 1

    def sweep(now_s: float) -> None:
        nonlocal swept_s
        if swept_s <= now_s:
            swept_s = math.inf
        gone, deadline = queue.advance(now_s)
        shed(gone, now_s)
        deadline = max(deadline, now_s + 0.01)
        if deadline < swept_s:
            swept_s = deadline
            at(deadline, sweep)

    for client in arrivals:
        while events and events[0][0] <= client.came_s:
            when_s, _, action = heapq.heappop(events)
            action(when_s)
        come(client, client.came_s)
    while events:
        when_s, _, action = heapq.heappop(events)
        action(when_s)
    return outcome


def poisson(seed: int, *, rate_s: float, service_s: float, until_s: float, from_s: float = 0.0) -> list[Client]:
    """Clients that come at random, each with a service time spread around `service_s` (half to one and a half)."""
    dice = random.Random(seed)
    clients, now_s = [], from_s
    while (now_s := now_s + dice.expovariate(rate_s)) < until_s:
        clients.append(Client(now_s, service_s * (0.5 + dice.random())))
    return clients
