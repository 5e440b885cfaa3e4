"""Tasks in tests: the real envelope and the real rules, on a broker in memory, with a clock that the test moves.

    from headrace.testing.tasks import in_memory

    def test_a_new_user_is_greeted():
        with in_memory(app) as tests:
            sign_up("ada@example.org")
            [run] = tests.run_pending()
            assert (run.task, run.disposition) == ("shop.mail.greet", "succeeded")

Nothing runs before `run_pending`, and nothing is eager: what the test sees is what a worker would do.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.clock import ManualClock
from headrace.durations import Duration, duration_us
from headrace.errors import QueueNotFound
from headrace.queue import attributes
from headrace.queue import operations as ops
from headrace.queue.model import Peeked, arn_of
from headrace.testing.driver import StoreDriver
from headrace.testing.stores import MEMORY
from headrace.work import dead_letters, names
from headrace.work import envelope as envelopes
from headrace.work.app import App
from headrace.work.broker_backend import BrokerBackend
from headrace.work.envelope import Envelope
from headrace.work.inline import Run
from headrace.work.scheduler import Scheduler

PAGE_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that failed for good. `envelope` has its arguments and its history; `reason` is one line."""

    envelope: Envelope
    reason: str


class Tasks:
    """An app on a broker in memory; made by `in_memory`.

    Attributes:
        app: the app.
        clock: what the app and the broker go by.
        driver: the broker's store, for tests that look deeper.
    """

    def __init__(self, app: App, driver: StoreDriver) -> None:
        self.app = app
        self.driver = driver
        self.clock: ManualClock = driver.clock
        self._scheduler = Scheduler("tests", app.schedules, app.backend) if app.schedules else None

    def run_pending(self, *, queues: Sequence[str] | None = None) -> list[Run]:
        """Fire the schedules that are due, run what is due now, and what that sends, until nothing is. See App.run_pending.

        Schedules begin with the first call: it defines them, as a worker's start does.
        """
        if self._scheduler is not None:
            self._scheduler.advance(self.clock())
        return self.app.run_pending(queues=queues)

    def advance(self, time: Duration) -> None:
        """Let time pass: seconds, a timedelta, or text as "5 minutes". What becomes due is run by the next `run_pending`."""
        self.driver.pass_time(duration_us(time) // 1_000)

    def run_until_idle(self, within: Duration = "14 days") -> list[Run]:
        """Run all there is, retries and delayed tasks too: the clock is moved to each in turn, `within` at most."""
        runs = self.run_pending()
        end_ms = self.clock() + duration_us(within) // 1_000
        while (due := self.next_due_ms()) is not None and due <= end_ms:
            self.driver.pass_time(max(0, due - self.clock()))
            runs += self.run_pending()
        return runs

    def next_due_ms(self) -> int | None:
        """When the next message that waits becomes visible; None if none waits."""
        waiting = [one for queue in self._queues() for one in self._peek(queue)]
        times = [one.message.visible_ms for one in waiting if one.state == "delayed"]
        leased = any(one.state == "in_flight" for one in waiting)
        due = min((time for time in times if time is not None), default=None)
        later = self.driver.settle() if leased else None
        return min((time for time in (due, later) if time is not None), default=None)

    def pending(self, queue: str = "") -> list[Envelope]:
        """The tasks that wait, delayed ones too, in one queue or in all of the app's; the oldest of each queue first."""
        queues = names.in_order(queue) if queue else self._queues()
        return [envelopes.decode(one.message.body) for name in queues for one in self._peek(name)]

    def dead(self, queue: str = "tasks") -> list[DeadLetter]:
        """The dead letters of a queue of tasks, oldest first."""
        return [
            DeadLetter(
                envelopes.decode(one.message.body),
                str(attributes.decode(one.message.attributes)[dead_letters.REASON][1]),
            )
            for one in self._peek(names.dead(queue))
        ]

    def _queues(self) -> list[str]:
        return [sibling for queue in self.app.queues for sibling in names.in_order(queue)]

    def _peek(self, queue: str) -> list[Peeked]:
        try:
            return self.driver.peek(arn_of(queue), PAGE_MAX)
        except QueueNotFound:
            return []


@contextmanager
def in_memory(app: App, *, now_ms: int | None = None) -> Iterator[Tasks]:
    """The app on a broker in memory and a clock that only the test moves, for the block; then it is as it was before.

    Args:
        now_ms: what the clock says at first.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-tasks-") as folder:
        driver = StoreDriver(MEMORY, Path(folder), now_ms=now_ms)
        with app.on(BrokerBackend(_DriverClient(driver)), clock=driver.clock):
            try:
                yield Tasks(app, driver)
            finally:
                driver.close()


class _DriverClient:
    """What BrokerBackend needs of a client, on a store driven by hand. Nothing ever waits: time moves by hand alone."""

    def __init__(self, driver: StoreDriver) -> None:
        self._driver = driver
        self._gate = threading.Lock()

    def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:  # noqa: ARG002 - as Caller has it
        if isinstance(operation, ops.Hold):
            return None
        with self._gate:
            return self._driver.run(operation)

    def close(self) -> None:
        """The driver is closed by who made it."""
