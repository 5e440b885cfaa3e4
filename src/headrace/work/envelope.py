"""The envelope: the JSON body of a task's message. Readable by people, by `jq` and by any SQS client.

    {"task": "shop.mail.send", "id": "0193…", "args": {"to": "a@b.c"}, "attempt": 1, "history": [{…}], "retries_max": 5}

`task`, `id` and `args` are always there, the rest only where it differs from its default. Fields that are not known (a
newer sender's) are ignored. Points in time are wall clock milliseconds since 1970.
"""

from __future__ import annotations

import os
import time
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from headrace.work import limits
from headrace.work.errors import EnvelopeInvalid
from headrace.work.outcome import ErrorInfo

Name: TypeAlias = Annotated[str, Meta(max_length=512)]
Id: TypeAlias = Annotated[str, Meta(pattern=limits.ID_PATTERN)]
Queue: TypeAlias = Annotated[str, Meta(pattern=limits.QUEUE_PATTERN)]
GroupId: TypeAlias = Annotated[str, Meta(pattern=r"^[!-~]{1,128}\Z")]
Moment: TypeAlias = Annotated[int, Meta(ge=0, le=limits.TIME_MAX_MS)]
Attempts: TypeAlias = Annotated[int, Meta(ge=0, le=limits.ATTEMPTS_MAX)]


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt that did not succeed.

    Attributes:
        at_ms: when it ended.
        attempt: which, from 1.
        error: the exception's type; `WorkerLost` when the worker died with it.
        message: its text.
        traceback: its end; the newest attempt's is cut to 4 KiB, as all are.
        worker: who ran it.
    """

    at_ms: int
    attempt: int
    error: str
    message: str = ""
    traceback: str = ""
    worker: str = ""


class Unique(msgspec.Struct, frozen=True, omit_defaults=True):
    """The unique lock that a task holds: `key`, until it is `started` or `finished`, or for all of its `ttl`."""

    key: str
    until: str = "finished"


class Workflow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which member of which group a task is."""

    id: Id
    index: Annotated[int, Meta(ge=0, lt=limits.GROUP_MEMBERS_MAX)]


class Joins(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which group a task joins: it runs with the results of its `count` members as the argument `takes`."""

    id: Id
    count: Annotated[int, Meta(ge=1, le=limits.GROUP_MEMBERS_MAX)]
    takes: str = ""


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task to be sent, complete: what `task.s(…)` gives and what stands in `then`.

    Attributes:
        queue: where to.
        envelope: what, with its id.
        takes: the parameter that the result before it fills; empty: none (immutable).
        delay_ms: hidden for so long once it is sent.
        group: the message's group.
    """

    queue: Queue
    envelope: Envelope
    takes: str = ""
    delay_ms: Annotated[int, Meta(ge=0, le=limits.DELAY_MAX_MS)] = 0
    group: GroupId | None = None


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task's message.

    Attributes:
        task: its name.
        id: 32 hex digits that sort by time; stays the same through retries and redrives.
        args: arguments by parameter name, as JSON.
        attempt: attempts made before.
        losses: how many of them ended with their worker, or its lease.
        history: the newest attempts, oldest first, redrives included.
        retries_max: how often it may be tried again; None takes the task's.
        unique: the lock that it holds.
        group: the tenant, or the FIFO group, as the message has it.
        expires_ms: not to be begun after this time.
        timeout_s: may run so long; None takes the task's.
        result_ttl_s: how long its result is kept; None: not at all.
        then: what is sent when it succeeds.
        workflow: its membership in a group; each task of a chain that is a member has it, the last one counts.
        joins: the group whose join it is.
        limit_key: what `key=` made of the arguments, for the task's rate and concurrency.
        reserved_ms: when a rate limit lets it start: it has waited for that and does not ask again.
        parent: the task that sent it.
        trace: W3C `traceparent`.
        scheduled: `name@fire time` of the schedule that sent it.
        sent_ms: when it was first sent.
    """

    task: Name
    id: Id
    args: msgspec.Raw
    attempt: Attempts = 0
    losses: Attempts = 0
    history: tuple[Attempt, ...] = ()
    retries_max: Annotated[int, Meta(ge=0, le=limits.RETRIES_MAX)] | None = None
    unique: Unique | None = None
    group: GroupId | None = None
    expires_ms: Moment | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=limits.TIMEOUT_MAX_MS / 1_000)] | None = None
    result_ttl_s: Annotated[float, Meta(gt=0, le=limits.RESULT_KEEP_MAX_MS / 1_000)] | None = None
    then: tuple[Signature, ...] = ()
    workflow: Workflow | None = None
    joins: Joins | None = None
    limit_key: str | None = None
    reserved_ms: Moment | None = None
    parent: str | None = None
    trace: str | None = None
    scheduled: str | None = None
    sent_ms: Moment = 0

    @property
    def failures(self) -> int:
        """Attempts that raised, ran too long or were refused: those that retries are for."""
        return max(0, self.attempt - self.losses)

    def with_failure(self, error: ErrorInfo, *, at_ms: int, worker: str = "", lost: bool = False) -> Envelope:
        """After one more attempt that failed, or was lost."""
        attempt = self.attempt + 1
        entry = Attempt(at_ms, attempt, error.type, error.message, error.traceback, worker)
        history = (*self.history, entry)[-limits.HISTORY_MAX :]
        return msgspec.structs.replace(self, attempt=attempt, losses=self.losses + lost, history=history)


NO_ARGUMENTS: Final = msgspec.Raw(b"{}")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


BYTES_MAX: Final = 1_048_576 - 4_096
"""A message's most, less what a dead letter's attributes may take."""


def encode(envelope: Envelope) -> bytes:
    """One that its history would make too long for a message goes without tracebacks, or without the history."""
    body = _encoder.encode(envelope)
    if len(body) <= BYTES_MAX or not envelope.history:
        return body
    bare = tuple(msgspec.structs.replace(entry, traceback="") for entry in envelope.history)
    body = _encoder.encode(msgspec.structs.replace(envelope, history=bare))
    if len(body) <= BYTES_MAX:
        return body
    return _encoder.encode(msgspec.structs.replace(envelope, history=()))


def decode(body: bytes) -> Envelope:
    """Anybody's bytes as an envelope whose fields are within their bounds; that its task takes its arguments is not known.

    Raises:
        EnvelopeInvalid
    """
    try:
        envelope = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(str(error)) from None
    _check(envelope)
    return envelope


def _check(envelope: Envelope) -> None:
    """What the types do not say, here and in what follows. Raises EnvelopeInvalid."""
    if not envelope.task or not envelope.id:
        raise EnvelopeInvalid("`task` or `id` is empty")
    if bytes(envelope.args)[:1] != b"{":
        raise EnvelopeInvalid("`args` is no object: arguments stand under their names")
    left = list(envelope.then)
    while left:
        signature = left.pop()
        if not signature.queue or not signature.envelope.id or bytes(signature.envelope.args)[:1] != b"{":
            raise EnvelopeInvalid("something in `then` has no `queue`, no `id`, or `args` that are no object")
        left += signature.envelope.then


def new_id(now_ms: int | None = None) -> str:
    """An id that nobody else makes: 48 bits of time, 80 random ones, as a UUID of version 7 has them."""
    moment = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return f"{moment:012x}{os.urandom(10).hex()}"
