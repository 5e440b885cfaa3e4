"""The queue between fetcher and runner threads: who is woken, what is counted, what is taken back."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

from headrace.work.pool.in_flight import InFlightTask
from headrace.work.pool.inbox import Inbox
from headrace.work.pool.prefetch import PrefetchPolicy
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S


def held(now_s: float | None = None) -> InFlightTask:
    return InFlightTask(cast("Any", SimpleNamespace()), time.monotonic() if now_s is None else now_s)


class Runners:
    """Threads that take jobs and keep them until they are let go."""

    def __init__(self, inbox: Inbox, number: int) -> None:
        self.inbox = inbox
        self.taken: list[InFlightTask] = []
        self.go = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        sleeper = threading.Lock()
        sleeper.acquire()
        while (job := self.inbox.take(sleeper)) is not None:
            self.taken.append(job)
            self.go.acquire()
            self.inbox.ended()

    def end(self) -> None:
        self.inbox.close()
        self.go.release(1_000)
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def inbox_of(threads: int, *, short: bool) -> Inbox:
    pace = PrefetchPolicy()
    pace.mean_s = 0.000_1 if short else 1.0
    return Inbox(threads, pace, lambda: None)


def test_room_is_the_free_threads_where_tasks_are_long() -> None:
    inbox = inbox_of(4, short=False)
    assert inbox.room == 4
    inbox.put([held(), held(), held()])
    assert inbox.room == 1
    inbox.put([held()])
    assert inbox.room == 0


def test_backlog_of_short_tasks_is_filled_up_when_half_of_it_is_done() -> None:
    inbox = inbox_of(4, short=True)
    assert inbox.room == 54
    inbox.put([held() for _ in range(54)])
    assert inbox.room == 0
    sleeper = threading.Lock()
    for _ in range(24):
        inbox.take(sleeper)
        inbox.ended()
    assert inbox.room == 0
    inbox.take(sleeper)
    inbox.ended()
    assert inbox.room == 25


def test_long_tasks_wake_a_thread_each() -> None:
    inbox = inbox_of(3, short=False)
    runners = Runners(inbox, 3)
    wait_until(lambda: len(inbox._sleepers) == 3)
    inbox.put([held() for _ in range(3)])
    wait_until(lambda: len(runners.taken) == 3)
    runners.end()


def test_short_tasks_wake_one_thread_and_the_keeper_more_when_one_is_long() -> None:
    inbox = inbox_of(3, short=True)
    runners = Runners(inbox, 3)
    wait_until(lambda: len(inbox._sleepers) == 3)
    inbox.put([held() for _ in range(3)])
    wait_until(lambda: len(runners.taken) == 1)
    assert len(inbox._sleepers) == 2
    inbox.hurry()  # sees what waits first
    assert len(inbox._sleepers) == 2
    inbox.hurry()  # the same one waits still
    wait_until(lambda: len(runners.taken) == 3)
    runners.end()


def test_what_has_waited_too_long_is_taken_back() -> None:
    inbox = inbox_of(1, short=True)
    now_s = time.monotonic()
    inbox.put([held(now_s - 1), held(now_s - 1)])
    assert inbox.recall(1_000) == []
    assert len(inbox.recall(0.5)) == 2
    assert (inbox.open, inbox.waiting) == (0, 0)


def test_fetcher_is_told_when_there_is_room_again() -> None:
    told = []
    inbox = Inbox(2, PrefetchPolicy(), lambda: told.append(1))
    inbox.put([held(), held()])
    sleeper = threading.Lock()
    inbox.take(sleeper)
    inbox.ended()
    assert told
