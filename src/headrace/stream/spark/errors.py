"""What goes wrong on Spark only. Their texts name the value and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import CallerError


@dataclass(eq=False)
class OptionInvalid(CallerError):
    """An option of the data source is missing, or has no meaning."""

    option: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f'option("{self.option}", {self.value!r}): {self.reason}'


@dataclass(eq=False)
class CheckpointChanged(CallerError):
    """A sink's name belongs to another checkpoint.

    A new checkpoint counts its batches from 0 again. The batches that the old one has published would be taken for
    published: their output would be dropped without a word.

    Attributes:
        name: the sink's name.
        batch: the last batch that the old checkpoint has published.
    """

    name: str
    batch: int

    def __str__(self) -> str:
        return (
            f"sink {self.name!r} was written by another checkpoint, up to its batch {self.batch}. If that checkpoint was"
            ' deleted or is given up, start once with option("adopt", "true"): messages that were read and not'
            " acknowledged are then processed again. Otherwise use the old checkpoint, or another name"
        )


@dataclass(eq=False)
class CheckpointBehind(CallerError):
    """A checkpoint is older than what its reader has acknowledged: it was copied back, or another query reads under the
    reader's name."""

    queue: str
    reader: str
    checkpoint: int
    acknowledged: int

    def __str__(self) -> str:
        return (
            f"reader {self.reader!r} of {self.queue!r}: the checkpoint ends at claim {self.checkpoint}, but claims up to"
            f" {self.acknowledged} are acknowledged, and their messages deleted. Use the newest checkpoint, a reader's name"
            " for each query, or a new checkpoint"
        )


@dataclass(eq=False)
class StageLost(CallerError):
    """A batch's staged output has gone before it was published: two queries write under one name at the same time."""

    name: str
    part: str

    def __str__(self) -> str:
        return f"sink {self.name!r}: staged part {self.part} is gone; does another query write under this name?"


@dataclass(eq=False)
class RowsDead(CallerError):
    """Messages or rows cannot be processed, and there is no dead letter queue."""

    count: int
    first: str

    def __str__(self) -> str:
        return f"{self.count} cannot be processed, and there is no dead-letter queue to send them to; the first: {self.first}"
