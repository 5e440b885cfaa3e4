"""Cancelling: a task that waits is taken out of its queue; one that runs, or cannot be found, is wished to end.

A wish is a row. Workers read all wishes once a second, and end what they run of them; a task that is begun looks into
what was read last. So a wish for a task that waits holds as well: it is met at the latest when the task is begun.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from headrace.errors import CallerError, QueueNotFound, ReceiptExpired, StateChanged
from headrace.queue.model import Delivery
from headrace.queue.operations import Transact
from headrace.work import cancel_request, keys, settling
from headrace.work.backend import Backend
from headrace.work.job import Job, open_job
from headrace.work.outcome import Cancelled

Answer: TypeAlias = Literal["cancelled", "cancel_requested", "finished"]
"""cancelled: it has not run and will not. asked: it ends when its worker sees the wish, unless it is done before.
finished: it had ended already."""

TAKE_MS: Final = 10_000
"""The lease under which a waiting task is taken out."""
TRIES_MAX: Final = 10


class CancelRequests:
    """What is wished to end, as a worker knows it. Safe for threads: `refresh` replaces what `wanted` reads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._ids: frozenset[str] = frozenset()

    def refresh(self) -> frozenset[str]:
        """Read them. To be called once a second; raises what the backend raises, and keeps what it knew."""
        if self._backend.capabilities.state:
            rows = self._backend.state(keys.CANCEL)
            self._ids = frozenset(key[len(keys.CANCEL) :].decode() for key, _ in rows)
        return self._ids

    def wanted(self, task_id: str) -> bool:
        """Whether this task is to end."""
        return task_id in self._ids


def cancel(backend: Backend, task_id: str, *, now_ms: int, queue: str = "", seq: int | None = None) -> Answer:
    """Cancel a task.

    Args:
        queue, seq: where its message is, as far as known: then a task that waits is cancelled at once and exactly.

    Raises:
        NotSupported: the backend keeps no state.
    """
    if queue and seq is not None and _take_out(backend, queue, seq, task_id, now_ms):
        return "cancelled"
    if backend.read(keys.result(task_id)) is not None:
        return "finished"
    backend.transact(Transact(state=list(cancel_request.wished(task_id, now_ms).items()), name=keys.NAME))
    return "cancel_requested"


def _take_out(backend: Backend, queue: str, seq: int, task_id: str, now_ms: int) -> bool:
    """Whether the message was there to be taken, and is gone now: with a result, its lock and its group in one commit."""
    try:
        (delivery,) = backend.take(queue, [seq], visibility_ms=TAKE_MS)
    except QueueNotFound:
        return False
    if isinstance(delivery, CallerError):
        return False
    job = _job(queue, delivery)
    if job.envelope.id != task_id:
        backend.change_visibility(queue, [(delivery.receipt, 0)])
        return False
    for _ in range(TRIES_MAX):
        batch = settling.Batch(backend.read)
        batch.add(settling.settle(job, Cancelled(), now_ms=now_ms, read=batch.read))
        try:
            backend.transact(batch.operation())
        except StateChanged:
            continue
        except ReceiptExpired:
            return False
        return True
    backend.change_visibility(queue, [(delivery.receipt, 0)])
    return False


def _job(queue: str, delivery: Delivery) -> Job:
    """As a worker has it, without its task: nothing of that is needed to end it."""
    job = open_job(queue, delivery, {}, {})
    return Job(queue, delivery, job.envelope, foreign=job.foreign)
