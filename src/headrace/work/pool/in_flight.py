"""What a process has in hand: leases, from the delivery to the commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from headrace.work import preflight
from headrace.work.context import Context
from headrace.work.job import Job
from headrace.work.outcome import Outcome


class Stage(Enum):
    """Of a job in hand."""

    WAITING = auto()
    RUNNING = auto()
    ENDED = auto()
    """It has run; its commit is on its way."""


WAITING, RUNNING, ENDED = Stage.WAITING, Stage.RUNNING, Stage.ENDED


class InFlightTask:
    """One job in hand. Changed by the thread that has it: fetcher, then runner, then committer."""

    __slots__ = (
        "began_s", "context", "deadline_s", "ended_s", "fetched_s", "job", "limit_slot", "mates", "outcome", "refused",
        "renewed_s", "stage", "stopped", "thread",
    )  # fmt: skip

    def __init__(self, job: Job, now_s: float, limit_slot: preflight.HeldSlot | None = None) -> None:
        self.job = job
        self.limit_slot = limit_slot
        """Of its concurrency limit: renewed with the lease, given back by the commit."""
        self.context: Context | None = None
        self.mates: Sequence[InFlightTask] = ()
        """Further messages of a batch, that run with this one."""
        self.stage = WAITING
        self.fetched_s = self.renewed_s = now_s
        self.began_s = self.ended_s = now_s
        self.deadline_s: float | None = None
        self.thread = 0
        """The thread that runs it, 0 for an async task."""
        self.stopped: type[BaseException] | None = None
        """What was raised in it from outside."""
        self.outcome: Outcome | None = None
        self.refused = 0
        """How often what it came to could not be committed."""

    @property
    def run(self) -> Sequence[InFlightTask]:
        """All that run with it, itself first."""
        return (self, *self.mates)

    @property
    def label(self) -> str:
        return f"{self.job.envelope.task} {self.job.envelope.id}"


class InFlightTasks:
    """All of them, by receipt. Dict operations are atomic: no lock."""

    def __init__(self) -> None:
        self._held: dict[bytes, InFlightTask] = {}

    def add(self, held: InFlightTask) -> None:
        self._held[held.job.delivery.receipt] = held

    def drop(self, held: InFlightTask) -> None:
        self._held.pop(held.job.delivery.receipt, None)

    def all(self) -> list[InFlightTask]:
        return list(self._held.values())

    def running(self) -> list[InFlightTask]:
        return [held for held in self.all() if held.stage is RUNNING]

    def __len__(self) -> int:
        return len(self._held)


_MONOTONIC_TO_WALL_S: Final = time.time() - time.monotonic()


def wall_ms(monotonic_s: float) -> int:
    return int((monotonic_s + _MONOTONIC_TO_WALL_S) * 1_000)
