"""What a running task can ask about itself: `headrace.work.current()`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from headrace.errors import CallerError
from headrace.work.dispatch import Sendable
from headrace.work.errors import Cancelled
from headrace.work.job import Job


class NoCurrentTask(CallerError):
    """`current()` was called outside of a task."""

    def __str__(self) -> str:
        return "no task runs here: current() is for the code of a task"


class Context:
    """One attempt of a task. Made by the worker, one for each run; safe for the thread that cancels it.

    Attributes:
        job: what is run.
        worker: who runs it.
        outbox: what it sent so far with `outbox=True`; None where it sends at once.
    """

    __slots__ = ("_cancelled", "job", "outbox", "worker")

    def __init__(self, job: Job, *, worker: str = "") -> None:
        self.job = job
        self.worker = worker
        self.outbox: list[Sendable] | None = [] if job.options.outbox else None
        self._cancelled = False

    @property
    def task(self) -> str:
        """The task's name."""
        return self.job.envelope.task

    @property
    def id(self) -> str:
        """The task's id: the same for all its attempts."""
        return self.job.envelope.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.job.envelope.attempt + 1

    @property
    def receives(self) -> int:
        """How often this message has been received, this time included."""
        return self.job.delivery.receives

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.job.queue

    @property
    def trace(self) -> str | None:
        """The W3C `traceparent` that it was sent with."""
        return self.job.envelope.trace

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants it to end. An async task is cancelled anyway; a sync one may look here."""
        return self._cancelled

    def cancel(self) -> None:
        """Called by the worker: somebody wants it to end."""
        self._cancelled = True

    def check(self) -> None:
        """Raises Cancelled if somebody wants it to end: for loops in sync tasks."""
        if self.cancelled:
            raise Cancelled(f"task {self.id} was cancelled")


running: Final[ContextVar[Context | None]] = ContextVar("headrace_task", default=None)
"""The attempt that runs in this thread or asyncio task."""


def current() -> Context:
    """The running attempt. Raises NoCurrentTask outside of one."""
    context = running.get()
    if context is None:
        raise NoCurrentTask
    return context
