"""Errors of tasks. What a task's own code raises is not here: it is kept as text (`outcome.ErrorInfo`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.errors import CallerError, HeadraceError


@dataclass(eq=False)
class InvalidArguments(CallerError, TypeError):
    """The arguments of a call do not match the task's signature. Nothing was sent.

    Attributes:
        task: its name.
        parameter: the parameter at fault; empty when the call as a whole is (too many arguments).
        value: the given value, shortened; empty when only the worker saw it.
        reason: the expected type or number of arguments.
    """

    task: str
    parameter: str
    value: str
    reason: str

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        where = f"{self.parameter}{value}: " if self.parameter else ""
        return f"invalid arguments for task {self.task!r}: {where}{self.reason}"


@dataclass(eq=False)
class InvalidOption(CallerError, ValueError):
    """An option of a task is unknown, out of range, or conflicts with another option."""

    option: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"option {self.option} = {self.value} is invalid: {self.reason}"


@dataclass(eq=False)
class TaskNotFound(CallerError):
    """A message names a task that is not registered with this app."""

    task: str
    known: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"this app has no task {self.task!r}; it has {', '.join(self.known) or 'none'}: import its module first"


@dataclass(eq=False)
class EnvelopeInvalid(CallerError):
    """A message on a task queue is not a task envelope: another program sent it, or it is damaged."""

    reason: str

    def __str__(self) -> str:
        return f"the message is not a task: {self.reason}"


@dataclass(eq=False)
class NoBroker(CallerError):
    """No broker is configured for the app."""

    def __str__(self) -> str:
        return 'no broker is configured: use headrace.App("http://HOST:9324"), headrace.App("./data"), or set HEADRACE_BROKER'


@dataclass(eq=False)
class NotSupported(CallerError):
    """The broker does not support a feature that the task uses."""

    feature: str
    backend: str

    def __str__(self) -> str:
        return f"{self.feature} requires headrace's broker; {self.backend} does not support it"


@dataclass(eq=False)
class ResultNotKept(CallerError):
    """The task does not store results."""

    task: str

    def __str__(self) -> str:
        return f'{self.task} stores no results: use @app.task(result_ttl="1h"), or .options(result_ttl="1h").send(…)'


@dataclass(eq=False)
class ResultTimeout(HeadraceError, TimeoutError):
    """The task has not finished yet. It continues; call `result()` again."""

    id: str
    waited_s: float

    def __str__(self) -> str:
        return f"task {self.id} has not finished within {self.waited_s:g} s; it continues, call result() again"


@dataclass(eq=False)
class TaskFailed(HeadraceError):
    """A task ended without a result.

    Attributes:
        id: the task.
        status: `dead` (failed for good), `cancelled` or `expired`.
        type: the remote exception's type, `module.Class`.
        message: its text.
        traceback: where it was raised, as text.
    """

    id: str
    status: str
    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"task {self.id} is {self.status}: {self.type}: {self.message}"


class Retry(HeadraceError):
    """Raised in a task: try again later. Counts as an attempt.

    Args:
        reason: one line, for the history.
        delay: seconds (or "5 minutes", a timedelta) until then; None takes the task's backoff.
    """

    def __init__(self, reason: str = "", *, delay: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delay = delay


class GiveUp(HeadraceError):
    """Raised in a task: no further attempt; the message goes to the dead letters with this reason."""


class Cancelled(HeadraceError):
    """Raised inside a running task when it is cancelled."""


class TimeLimitExceeded(HeadraceError, TimeoutError):
    """Raised inside a task that runs longer than its `timeout`. Counts as an ordinary failure: the task is retried."""


class WorkerLost(HeadraceError):
    """The worker that ran the task died, or its lease expired. Recorded in the history; never raised."""


class TransactionUsed(CallerError):
    """A transaction of this app is already open in this context, or this one has already been used."""

    def __str__(self) -> str:
        return "a transaction of this app is already open, or this one has been used; start a new one with app.transaction()"
