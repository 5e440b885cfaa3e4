"""A job: what a worker has in hand, a delivery and what it means to this app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from headrace.native.bodies import trace_of
from headrace.queue.model import Delivery
from headrace.work import envelope as envelopes
from headrace.work.envelope import NO_ARGUMENTS, Envelope
from headrace.work.errors import EnvelopeInvalid, TaskNotFound
from headrace.work.options import DEFAULTS, Options
from headrace.work.outcome import ErrorInfo


class Runnable(Protocol):
    """What a job needs to know of a task or a consumer."""

    @property
    def name(self) -> str: ...
    @property
    def defaults(self) -> Options: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A delivery, opened.

    Attributes:
        queue: the plain name of the queue that it came from.
        delivery: the message and its receipt.
        envelope: what it says; for a consumer's message one made up, whose id is the message's.
        target: the task or consumer that runs it; None when `problem` says why there is none.
        problem: why it cannot be run.
        foreign: its body is no envelope, and stays as it is.
        accounted: receives of this message before this one that are accounted for: what is beyond were losses.
    """

    queue: str
    delivery: Delivery
    envelope: Envelope
    target: Runnable | None = None
    problem: ErrorInfo | None = None
    foreign: bool = False
    accounted: int = 0

    @property
    def in_place(self) -> bool:
        """Whether a retry keeps the message, and shows it again later: in a FIFO queue the order needs it, a consumer's
        message is somebody else's, and a full one has no room for what is new in it."""
        return self.foreign or self.full or self.queue.endswith(".fifo")

    @property
    def full(self) -> bool:
        """Whether its body is so long that a longer one might not be taken."""
        return len(self.delivery.message.body) > envelopes.BYTES_MAX

    @property
    def options(self) -> Options:
        return self.target.defaults if self.target is not None else DEFAULTS

    @property
    def retries_max(self) -> int:
        asked = self.envelope.retries_max
        return self.options.retries if asked is None else asked

    @property
    def losses_max(self) -> int:
        """How often its worker may die with it, before it is given up."""
        return self.options.max_worker_losses

    @property
    def timeout_s(self) -> float | None:
        asked = self.envelope.timeout_s
        return self.options.timeout_s if asked is None else asked

    @property
    def lost(self) -> int:
        """How often it was received before and neither settled nor given back: a worker died with it each time."""
        delivery = self.delivery
        return max(0, delivery.receives - delivery.message.receives - 1 - self.accounted)

    def with_envelope(self, envelope: Envelope, accounted: int | None = None) -> Job:
        known = self.accounted if accounted is None else accounted
        return Job(self.queue, self.delivery, envelope, self.target, self.problem, self.foreign, known)


def open_job(queue: str, delivery: Delivery, tasks: Mapping[str, Runnable], consumers: Mapping[str, Runnable]) -> Job:
    """The job of a delivery. Never raises: what cannot be run is a job with a problem."""
    consumer = consumers.get(queue)
    if consumer is not None:
        return Job(queue, delivery, _made_up(consumer.name, delivery), consumer, foreign=True)
    try:
        envelope = envelopes.decode(delivery.message.body)
    except EnvelopeInvalid as error:
        problem = ErrorInfo("EnvelopeInvalid", str(error))
        return Job(queue, delivery, _made_up("", delivery), problem=problem, foreign=True)
    task = tasks.get(envelope.task)
    if task is None:
        problem = ErrorInfo("TaskNotFound", str(TaskNotFound(envelope.task, sorted(tasks))))
        return Job(queue, delivery, envelope, problem=problem)
    return Job(queue, delivery, envelope, task)


def _made_up(task: str, delivery: Delivery) -> Envelope:
    message = delivery.message
    return Envelope(
        task,
        message.id.hex(),
        NO_ARGUMENTS,
        group=message.group,
        trace=trace_of(message.attributes),
        sent_ms=message.sent_ms,
    )


class Attempts(msgspec.Struct, frozen=True):
    """What is kept beside a message that is retried in its place.

    Attributes:
        receives: of this message in this queue, up to now: all accounted for.
        attempt, history, losses: as in the envelope.
    """

    receives: int
    attempt: int
    history: tuple[envelopes.Attempt, ...]
    losses: int = 0


_attempts = msgspec.json.Decoder(Attempts)


def encode_attempts(job: Job, envelope: Envelope) -> bytes:
    receives = job.delivery.receives - job.delivery.message.receives
    return msgspec.json.encode(Attempts(receives, envelope.attempt, envelope.history, envelope.losses))


def with_attempts(job: Job, stored: bytes | None) -> Job:
    """The job with what `encode_attempts` wrote for it."""
    if stored is None:
        return job
    kept = _attempts.decode(stored)
    envelope = msgspec.structs.replace(job.envelope, attempt=kept.attempt, losses=kept.losses, history=kept.history)
    return job.with_envelope(envelope, kept.receives)
