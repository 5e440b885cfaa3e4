"""What can be wrong with a pipeline. All are HeadraceErrors; their texts name the value, the place and what to write."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.errors import CallerError, HeadraceError


@dataclass(eq=False)
class UnsupportedQuery(CallerError):
    """The pipeline asks for something that headrace's streams do not have. Raised when it is built, on both engines.

    Attributes:
        construct: what was written, as briefly as possible (`DISTINCT`, `ROW_NUMBER`, `tumble(ts)`).
        reason: why it cannot be run on a stream.
        instead: what to write instead; empty if there is nothing.
        line, column: where in the SQL text, from 1; 0 where there is no text.
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
    """A schema, or a column in it, cannot be read. `text` is what was given."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"schema {self.text[:200]!r}: {self.reason}"


@dataclass(eq=False)
class DefinitionChanged(CallerError):
    """A pipeline's state was made by another definition, and the new one cannot go on from it.

    Attributes:
        pipeline: its name.
        changes: what differs, a line each.
    """

    pipeline: str
    changes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        changes = "; ".join(self.changes)
        return (
            f"pipeline {self.pipeline!r} has state of another definition ({changes}). Give it a new name, or start it"
            " anew with --reset (its state is dropped)"
        )


@dataclass(eq=False)
class PipelineBusy(CallerError):
    """Another process runs the pipeline, and goes on."""

    pipeline: str

    def __str__(self) -> str:
        return (
            f"pipeline {self.pipeline!r} is run by another process, which lives. Stop that one, or run without until= to"
            " stand by; `headrace stream show` tells where it is"
        )


@dataclass(eq=False)
class TooManyFailures(CallerError):
    """More rows were dead than the pipeline allows. What was committed stands; the rest is where it was.

    Attributes:
        queue: whether there is a queue for dead rows; without one none is allowed.
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
            else f"give the pipeline a queue for them: dead_letter_queue='{self.pipeline}-dead'"
        )
        return (
            f"pipeline {self.pipeline!r} stopped: {self.failures} of {self.rows} rows could not be processed; the last:"
            f" {self.last}. Mend the step or the data, or {way}"
        )


@dataclass(eq=False)
class SinkFailed(HeadraceError):
    """A sink outside the store did not take a batch. The batch is kept, and given again."""

    sink: str
    reason: str

    def __str__(self) -> str:
        return f"sink {self.sink}: {self.reason}"


@dataclass(eq=False)
class ExtraMissing(CallerError, ImportError):
    """A library is needed that the base package does not bring."""

    library: str
    extra: str

    def __str__(self) -> str:
        return f"{self.library} is not installed; pip install 'headrace[{self.extra}]'"


@dataclass(eq=False)
class SourceFailed(HeadraceError):
    """A file or table cannot be read on, or is not what it was when it was read before."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"source {self.source}: {self.reason}"
