"""Errors of tasks. What a task's own code raises is not here: it is kept as text (`outcome.ErrorInfo`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.errors import CallerError, HeadraceError


@dataclass(eq=False)
class InvalidArguments(CallerError):
    """A call does not fit the task's signature. Nothing was sent.

    Attributes:
        task: its name.
        parameter: the one that does not fit; empty when the call as a whole does not (too many arguments).
        value: what was given, shortened; empty where only the worker saw it.
        reason: what was expected.
    """

    task: str
    parameter: str
    value: str
    reason: str

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        where = f"{self.parameter}{value}: " if self.parameter else ""
        return f"{self.task} cannot be called so: {where}{self.reason}"


@dataclass(eq=False)
class InvalidOption(CallerError):
    """An option of a task is unknown, out of range or does not fit the others."""

    option: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"option {self.option} = {self.value} is invalid: {self.reason}"


@dataclass(eq=False)
class TaskNotFound(CallerError):
    """A message names a task that this app does not have."""

    task: str
    known: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"this app has no task {self.task!r}; it has {', '.join(self.known) or 'none'}: import its module first"


@dataclass(eq=False)
class EnvelopeInvalid(CallerError):
    """A message on a task queue is no envelope: somebody else's message, or damaged."""

    reason: str

    def __str__(self) -> str:
        return f"the message is no task: {self.reason}"


@dataclass(eq=False)
class NoBroker(CallerError):
    """An app does not know its broker."""

    def __str__(self) -> str:
        return 'no broker is named: headrace.App("http://HOST:9324"), headrace.App("./data"), or set HEADRACE_BROKER'


@dataclass(eq=False)
class NotSupported(CallerError):
    """The broker lacks what a task asks for."""

    feature: str
    backend: str

    def __str__(self) -> str:
        return f"{self.feature} needs headrace's broker; {self.backend} cannot do it"


@dataclass(eq=False)
class ResultNotKept(CallerError):
    """A result is asked for that nobody keeps."""

    task: str

    def __str__(self) -> str:
        return f'{self.task} keeps no results: @app.task(keep_result="1h"), or .options(keep_result="1h").send(…)'


@dataclass(eq=False)
class ResultTimeout(HeadraceError):
    """A task has not ended yet. It goes on; ask again."""

    id: str
    waited_s: float

    def __str__(self) -> str:
        return f"task {self.id} has not ended within {self.waited_s:g} s; it goes on, ask its handle again"


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
    """Raised in a task that was cancelled while it runs."""


class TimeLimitExceeded(HeadraceError):
    """Raised in a task that ran longer than its `timeout`. A failure like any other: it is retried."""


class WorkerLost(HeadraceError):
    """The worker that ran the task died, or its lease ended. Stands in the history, is never raised."""


class TransactionUsed(CallerError):
    """A transaction of the app is open here already, or this one was used before."""

    def __str__(self) -> str:
        return "a transaction of this app is open here already, or this one was used: with app.transaction(): … makes a new one"
