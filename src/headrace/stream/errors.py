"""Errors of pipelines. All are HeadraceErrors; their messages name the value, the place and the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.errors import CallerError, HeadraceError


@dataclass(eq=False)
class UnsupportedQuery(CallerError):
    """The pipeline uses a construct that streams do not support. Raised when the pipeline is built, on both engines.

    Attributes:
        construct: the unsupported construct (`DISTINCT`, `ROW_NUMBER`, `tumble(ts)`).
        reason: why it cannot be run on a stream.
        instead: the alternative; empty if there is none.
        line, column: where in the SQL text, from 1; 0 without a text.
        step: the name of the step.
    """

    construct: str
    reason: str
    instead: str = ""
    line: int = 0
    column: int = 0
    step: str = ""

    def __str__(self) -> str:
        place = f" (line {self.line}, column {self.column})" if self.line else ""
        step = f"step {self.step!r}: " if self.step else ""
        instead = f". Instead: {self.instead}" if self.instead else ""
        return f"{step}{self.construct}{place}: {self.reason}{instead}"


@dataclass(eq=False)
class SchemaInvalid(CallerError):
    """Invalid schema, or invalid column in a schema. `text` is the given value."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"schema {self.text[:200]!r}: {self.reason}"


@dataclass(eq=False)
class DefinitionChanged(CallerError):
    """The state of the pipeline was made by another definition, and the new one cannot continue from it.

    Attributes:
        pipeline: its name.
        changes: the differences, one line each.
    """

    pipeline: str
    changes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        changes = "; ".join(self.changes)
        return (
            f"pipeline {self.pipeline!r} has state of another definition ({changes}). Give the pipeline a new name, or drop the state"
            " with --reset"
        )


@dataclass(eq=False)
class PipelineBusy(CallerError):
    """Another process is running the pipeline."""

    pipeline: str

    def __str__(self) -> str:
        return (
            f"pipeline {self.pipeline!r} is already running in another process. Stop that process, or run without until= to"
            " stand by; `headrace stream show` shows where it runs"
        )


@dataclass(eq=False)
class TooManyFailures(CallerError):
    """More rows failed than the pipeline allows. Earlier commits stand; the current batch was not committed.

    Attributes:
        queue: whether there is a dead letter queue; without one no failure is allowed.
    """

    pipeline: str
    failures: int
    rows: int
    last: str
    queue: bool = True

    def __str__(self) -> str:
        way = (
            "allow more with failures_max and failures_share"
            if self.queue
            else f"set dead_letter_queue='{self.pipeline}-dead'"
        )
        return (
            f"pipeline {self.pipeline!r} stopped: {self.failures} of {self.rows} rows could not be processed; the last:"
            f" {self.last}. Correct the step or the data, or {way}"
        )


@dataclass(eq=False)
class SinkFailed(HeadraceError):
    """A sink outside the store did not accept a batch. The batch is kept and will be delivered again."""

    sink: str
    reason: str

    def __str__(self) -> str:
        return f"sink {self.sink}: {self.reason}"


@dataclass(eq=False)
class ExtraMissing(CallerError, ImportError):
    """A library is missing that only an extra installs."""

    library: str
    extra: str

    def __str__(self) -> str:
        return f"{self.library} is not installed; pip install 'headrace[{self.extra}]'"


@dataclass(eq=False)
class SourceFailed(HeadraceError):
    """A file or table cannot be read, or has changed since it was read before."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"source {self.source}: {self.reason}"
