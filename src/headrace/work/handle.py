"""A handle: what a sender holds of a task that it has sent. It can be made again from the id."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar

from headrace.work import cancelling, keys, limits, results
from headrace.work.cancelling import Answer
from headrace.work.errors import ResultNotKept, ResultTimeout, TaskFailed
from headrace.work.results import Result

if TYPE_CHECKING:
    from headrace.work.app import App

T = TypeVar("T")

Status: TypeAlias = Literal[
    "queued", "delayed", "running", "retrying", "succeeded", "dead", "cancelled", "expired", "unknown"
]

_STATUSES: Final[dict[str, Status]] = {"visible": "queued", "delayed": "delayed", "in_flight": "running"}
"""What a message's state says of its task."""


class Handle(Generic[T]):
    """A sent task.

    Attributes:
        id: the task's.
        task: its name; empty on a handle made of an id.
        queue, seq: the message that was sent, if this handle's sender knows: its queue and number there.
        duplicate: `unique=` held: nothing was sent, and this is the task that holds the lock.
    """

    __slots__ = ("_app", "_kept", "duplicate", "id", "queue", "seq", "task")

    def __init__(
        self,
        app: App,
        id: str,
        *,
        task: str = "",
        queue: str = "",
        seq: int | None = None,
        kept: bool | None = None,
        duplicate: bool = False,
    ) -> None:
        self._app = app
        self.id = id
        self.task = task
        self.queue = queue
        self.seq = seq
        self.duplicate = duplicate
        self._kept = kept

    def __repr__(self) -> str:
        return f"Handle({self.id}{', ' + self.task if self.task else ''}{', duplicate' if self.duplicate else ''})"

    def result(self, timeout: float | None = None) -> T:
        """What the task returned, as its return annotation has it; waits for its end.

        Args:
            timeout: seconds; None waits for ever, 0 only looks.

        Raises:
            TaskFailed: it ended without a result: dead, cancelled, expired.
            ResultTimeout: it has not ended within `timeout`.
            ResultNotKept: the task keeps no results.
        """
        self._check_kept()
        deadline = _Deadline(timeout)
        while True:
            wait_s = deadline.wait_s()
            row = self._app.backend.wait_state(keys.result(self.id), wait_s)
            if row is not None:
                value: T = self._value(results.decode(row))
                return value
            deadline.check(self.id)

    async def aresult(self, timeout: float | None = None) -> T:  # noqa: ASYNC109 - as result's
        """As `result`, without blocking the event loop."""
        self._check_kept()
        deadline = _Deadline(timeout)
        while True:
            wait_s = deadline.wait_s()
            row = await self._app.backend.await_state(keys.result(self.id), wait_s)
            if row is not None:
                value: T = self._value(results.decode(row))
                return value
            deadline.check(self.id)

    def outcome(self) -> Result | None:
        """How it ended, failed or not; None while it has not, or when its result is not kept (any more)."""
        row = self._app.backend.read(keys.result(self.id))
        return results.decode(row) if row is not None else None

    def status(self) -> Status:
        """How the task is now: queued, delayed or running; if its result is kept, also retrying (an attempt has failed, the next
        one waits or runs), done, dead, cancelled or expired.

        `unknown`: it ended and nobody keeps that; or this handle was made of an id and does not know its message.
        """
        ended = self.outcome()
        if ended is not None:
            return ended.status
        state = self._app.backend.message_state(self.queue, self.seq) if self.seq is not None else None
        if state is None and self._app.backend.read(keys.attempts(self.id)) is not None:
            return "retrying"
        return _STATUSES.get(state or "", "unknown")

    async def astatus(self) -> Status:
        """As `status`, without blocking the event loop."""
        return await asyncio.to_thread(self.status)

    def cancel(self) -> Answer:
        """Let the task not run, or end.

        Returns:
            cancelled: it had not begun, and will not run. asked: it runs, or cannot be found at once: its worker ends it
            within a second or so, or it is not begun. finished: it had ended already.
        """
        now_ms = self._app.clock()
        return cancelling.cancel(self._app.backend, self.id, now_ms=now_ms, queue=self.queue, seq=self.seq)

    async def acancel(self) -> Answer:
        """As `cancel`, without blocking the event loop."""
        return await asyncio.to_thread(self.cancel)

    def _check_kept(self) -> None:
        if self._kept is False:
            raise ResultNotKept(self.task)

    def _value(self, result: Result) -> Any:
        if result.status != "succeeded":
            error = result.error
            kind, text, trace = (error.type, error.message, error.traceback) if error else (result.status, "", "")
            raise TaskFailed(self.id, result.status, kind, text, trace)
        task = self._app.tasks.get(result.task)
        return task.arguments.decode_result(result.value) if task is not None else results.plain(result)


class _Deadline:
    """When to stop waiting, and how long one call may wait until then."""

    def __init__(self, timeout_s: float | None) -> None:
        self._started_s = time.monotonic()
        self._timeout_s = timeout_s

    def wait_s(self) -> float:
        if self._timeout_s is None:
            return limits.WAIT_MAX_S
        left_s = self._timeout_s - (time.monotonic() - self._started_s)
        return max(0.0, min(limits.WAIT_MAX_S, left_s))

    def check(self, task_id: str) -> None:
        """Raises ResultTimeout."""
        if self._timeout_s is not None and time.monotonic() - self._started_s >= self._timeout_s:
            raise ResultTimeout(task_id, self._timeout_s)
