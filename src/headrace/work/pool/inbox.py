"""The queue between the fetcher and the runner threads, of one process.

To wake a thread costs more than a short task runs. So while tasks are short, one thread runs one after another and the
others sleep; the keeper wakes more when a task turns out long and others wait behind it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from headrace.work.pool.in_flight import InFlightTask
from headrace.work.pool.prefetch import PrefetchPolicy


class Inbox:
    """Jobs that wait for a thread. Invariant: `open` counts those that wait or run."""

    def __init__(self, threads: int, pace: PrefetchPolicy, on_room: Callable[[], None]) -> None:
        """Args:
        on_room: called, on a runner's thread, when a job has ended that left no room before.
        """
        self._threads = threads
        self._pace = pace
        self._on_room = on_room
        self._lock = threading.Lock()
        self._waiting: deque[InFlightTask] = deque()
        self._sleepers: list[threading.Lock] = []
        self._closed = False
        self._open = 0
        self._low = 0
        self.filled = threading.Event()
        """Set when jobs come; cleared by who waits for that."""
        self._head: InFlightTask | None = None
        """What waited first when the keeper looked last."""

    @property
    def room(self) -> int:
        """How many more may be fetched: into free threads, and ahead.

        Once there is a backlog ahead, the next are fetched when half of it is done: a call for each one would cost more
        than it runs.
        """
        ahead = self._pace.ahead
        room = self._threads + ahead - self._open
        self._low = self._threads + ahead // 2
        return room if self._open < self._threads or self._open <= self._low else 0

    def put(self, jobs: Iterable[InFlightTask]) -> None:
        with self._lock:
            before = len(self._waiting)
            self._waiting.extend(jobs)
            self._open += len(self._waiting) - before
            busy = len(self._sleepers) < self._threads
            wake = (0 if busy else 1) if self._pace.short else len(self._waiting)
            woken = [self._sleepers.pop() for _ in range(min(wake, len(self._sleepers)))]
        if not self.filled.is_set():
            self.filled.set()
        for sleeper in woken:
            sleeper.release()

    def take(self, sleeper: threading.Lock) -> InFlightTask | None:
        """The next job; None at the end.

        Args:
            sleeper: the calling thread's own lock, held by it.
        """
        while True:
            with self._lock:
                if self._waiting:
                    return self._waiting.popleft()
                if self._closed:
                    return None
                self._sleepers.append(sleeper)
            sleeper.acquire()

    def ended(self) -> None:
        """A job that was taken has ended."""
        with self._lock:
            self._open -= 1
            told = self._open == self._threads - 1 or self._open == self._low
        if told or self._open == 0:
            self._on_room()

    def hurry(self) -> None:
        """Wake threads for what waits, if nothing was taken since the last call. Called by the keeper, at its tick."""
        with self._lock:
            head = self._waiting[0] if self._waiting else None
            stalled = head is not None and head is self._head
            self._head = head
            number = min(len(self._waiting), len(self._sleepers)) if stalled else 0
            woken = [self._sleepers.pop() for _ in range(number)]
        for sleeper in woken:
            sleeper.release()

    def recall(self, waited_s: float) -> list[InFlightTask]:
        """Those that wait still, after so long: they are not this process's any more. 0 for all."""
        with self._lock:
            if not self._waiting or time.monotonic() - self._waiting[0].fetched_s < waited_s:
                return []
            found = list(self._waiting)
            self._waiting.clear()
            self._open -= len(found)
        self._on_room()
        return found

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def open(self) -> int:
        return self._open

    def close(self) -> None:
        """Runners end when nothing waits any more."""
        with self._lock:
            self._closed = True
            sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            sleeper.release()
