"""What a client asks, without I/O: arguments to operations, outcomes to what users get. Sync and async share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from headrace.errors import HeadraceError, InvalidParameter
from headrace.native.bodies import body_bytes
from headrace.native.messages import PartlyRefused, SentMessage
from headrace.native.settings import to_ms
from headrace.native.summary import QueueSummary
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import Entry, Sent, arn_of

SEND_BYTES: Final = 16 * 1_048_576
"""Bodies of one call at most, though the broker takes more: the first is stored while the next is prepared."""

PAGE: Final = 1_000
"""Queues, or values of state, that are asked for at a time."""
WAIT_MAX_S: Final = limits.WAIT_MAX_MS / 1000


def receive(
    queue: str, *, limit: int, visibility_timeout: float | None, attempt_id: str | None, holder: str | None
) -> ops.Receive:
    return ops.Receive(queue, limit, _visibility_ms(visibility_timeout), attempt_id, holder)


def receive_any(
    queues: Iterable[str], *, limit: int, visibility_timeout: float | None, holder: str | None
) -> ops.ReceiveAny:
    return ops.ReceiveAny([arn_of(name) for name in queues], limit, _visibility_ms(visibility_timeout), holder)


def take(queue: str, sequences: Iterable[int], *, visibility_timeout: float | None, holder: str | None) -> ops.Take:
    return ops.Take(queue, list(sequences), _visibility_ms(visibility_timeout), holder)


def _visibility_ms(visibility_timeout: float | None) -> int | None:
    return to_ms("visibility_timeout", visibility_timeout) if visibility_timeout is not None else None


def sends(queue: str, entries: Iterable[Entry]) -> Iterator[ops.Send]:
    """Calls for any number of entries, each within the bounds of one call, made as the iterable gives them."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) >= limits.NATIVE_BATCH_MAX or size + len(entry.body) > SEND_BYTES):
            yield ops.Send(queue, batch)
            batch, size = [], 0
        batch.append(entry)
        size += len(entry.body) + len(entry.attributes)
    if batch:
        yield ops.Send(queue, batch)


def check_no_settings(settings: Mapping[str, Any], tags: Mapping[str, str] | None) -> None:
    """Settings would be ignored silently where no queue is created."""
    if settings or tags:
        given = ", ".join([*settings, *(["tags"] if tags else [])])
        raise InvalidParameter("create", "False", f"{given} need create=True, or queue.change(…)")


def list_queues(prefix: str, found: Sequence[QueueSummary]) -> ops.ListQueues:
    """The page after those found."""
    return ops.ListQueues(arn_of(prefix) if prefix else "", found[-1].arn if found else "", PAGE)


def get_state(name: str, prefix: bytes | str, found: dict[bytes, bytes], limit: int | None) -> ops.GetState:
    """The page after those found, which are sorted; `limit` for all pages together."""
    page = PAGE if limit is None else min(PAGE, limit - len(found))
    return ops.GetState(name, body_bytes(prefix), page, next(reversed(found), b""))


def note_done(error: HeadraceError, outcomes: Sequence[Any]) -> None:
    """Tell with the error what the calls before it did."""
    stored = sum(isinstance(outcome, Sent) for outcome in outcomes)
    if stored:
        error.add_note(f"{stored} messages were stored by the calls before this one")


class Idleness:
    """How long a consumer has had nothing to do, and whether that is enough."""

    def __init__(self, bound_s: float | None) -> None:
        self._bound_s = bound_s
        self._waited_s = 0.0
        self.over = False

    @property
    def wait(self) -> float:
        """The next receive's wait, in seconds."""
        return WAIT_MAX_S if self._bound_s is None else max(0.0, min(WAIT_MAX_S, self._bound_s - self._waited_s))

    def note(self, received: int) -> None:
        """The receive that waited `wait` gave so many messages."""
        self._waited_s = 0.0 if received else self._waited_s + self.wait
        self.over = not received and self._bound_s is not None and self._waited_s >= self._bound_s


def slices(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Items in lists of at most one call's."""
    iterator = iter(items)
    while batch := list(islice(iterator, limits.NATIVE_BATCH_MAX)):
        yield batch


def sent(outcomes: Sequence[Any]) -> list[SentMessage]:
    """Raises PartlyRefused if any entry was refused; a batch of one raises its error itself."""
    return [SentMessage(outcome) for outcome in checked(outcomes, wrap=SentMessage)]


def checked(outcomes: Sequence[Any], wrap: Any = None) -> Sequence[Any]:
    """The outcomes, if none is an error; raises as `sent`. `wrap` makes of an outcome what the caller would return."""
    if outcomes.count(None) == len(outcomes):  # deletes that went well, at the speed of C
        return outcomes
    errors = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, HeadraceError)}
    if not errors:
        return outcomes
    if len(outcomes) == 1:
        raise errors[0]
    done = [None if place in errors else wrap(outcome) if wrap else outcome for place, outcome in enumerate(outcomes)]
    raise PartlyRefused(errors, done)
