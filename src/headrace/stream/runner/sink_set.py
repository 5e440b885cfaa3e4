"""The sinks of a running pipeline, its late queue and its dead letter queue: what is written in the commit, and what is
delivered after it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec
import pyarrow as pa

from headrace.native.client import Client
from headrace.queue import limits as queue_limits
from headrace.queue.model import Entry, arn_of
from headrace.stream import limits, plan
from headrace.stream.dead_letters import dead_letter
from headrace.stream.engine.engine import Step
from headrace.stream.engine.operator import RejectedRows
from headrace.stream.errors import SinkFailed
from headrace.stream.formats.encoding import JsonEncoder
from headrace.stream.runner import state_keys
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.commit import Change
from headrace.stream.runner.job import Job
from headrace.stream.runner.progress import Progress
from headrace.stream.runner.source_set import Wakeup
from headrace.stream.runner.store import RetryPolicy, Store
from headrace.stream.schema import ORIGIN
from headrace.stream.sinks.base import Outbox, TransactionalSink
from headrace.stream.sinks.open import open_sink
from headrace.stream.sources.base import Dead

_log = logging.getLogger("headrace.stream")


class DeliveryQueue:
    """The batches of one sink, in the order of their numbers. A failed batch is retried for `retry_timeout_s`
    (None: without limit); the pipeline waits meanwhile, since at most OUTBOX_BATCHES_MAX may be under way."""

    def __init__(self, sink: Outbox, *, wakeup: Wakeup, retry_timeout_s: float | None) -> None:
        self.sink = sink
        self._wakeup = wakeup
        self._retry_timeout_s = retry_timeout_s
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._done: deque[int] = deque()
        self._error: BaseException | None = None
        self._work = threading.Semaphore(0)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace sink {sink.name}", daemon=True)

    def start(self, left: list[tuple[int, bytes]]) -> None:
        """Start with the batches that are still to be delivered; all other staged batches are removed."""
        self.sink.collect([staged for _, staged in left])
        for number, staged in left:
            self.put(number, staged)
        self._thread.start()

    def put(self, number: int, staged: bytes) -> None:
        """A committed batch."""
        self._waiting.append((number, staged))
        self._work.release()

    @property
    def under_way(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return self.under_way >= limits.OUTBOX_BATCHES_MAX

    def take_done(self) -> list[int]:
        """The numbers that were delivered since the last call. Raises what the sink failed with for good."""
        if self._error is not None:
            raise self._error
        return [self._done.popleft() for _ in range(len(self._done))]

    def close(self) -> None:
        """What is being delivered is finished; the rest comes again at the next start."""
        self._closing.set()
        self._work.release()
        if self._thread.ident is not None:
            self._thread.join()
        self.sink.close()

    def _run(self) -> None:
        try:
            while True:
                self._work.acquire()
                if self._closing.is_set():
                    return
                number, staged = self._waiting[0]
                if not self._deliver(number, staged):
                    return
                self._done.append(number)
                self._waiting.popleft()
                self._wakeup.notify()
        except BaseException as error:  # noqa: BLE001 - it is raised where deliveries are taken
            self._error = error
            self._wakeup.notify()

    def _deliver(self, number: int, staged: bytes) -> bool:
        """Until it is done; False: it is to end before that."""
        started_s, pause_s = time.monotonic(), limits.RETRY_FIRST_S
        while True:
            try:
                self.sink.deliver(number, staged)
                return True
            except SinkFailed as error:
                if self._retry_timeout_s is not None and time.monotonic() + pause_s > started_s + self._retry_timeout_s:
                    raise
                _log.warning(
                    "%s; batch %d is kept and given again", error, number,
                    extra={"action": "stream.sink_failed", "sink": self.sink.name, "batch": number},
                )  # fmt: skip
            if self._closing.wait(pause_s):
                return False
            pause_s = min(pause_s * 2, limits.RETRY_MAX_S)


# --- Rows that left the stream, as messages: late rows for the late queue, dead ones for the dead letters ---


def late_entries(refused: Iterable[RejectedRows], *, pipeline: str) -> list[Entry]:
    """A message a row: its columns as they are, `_reason` and `_step` behind them. So that what reads the source's
    messages reads these, too. A row that is too long by that is a dead letter here: no commit must fail by a late row."""
    found: list[Entry] = []
    for group in refused:
        rows = without_origin(group.rows)
        for name, value in (("_reason", group.reason), ("_step", group.step)):
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
        for body in JsonEncoder(rows.schema).rows(rows):
            if len(body) <= queue_limits.MESSAGE_BYTES_MAX:
                found.append(Entry(body))
            else:
                found.append(dead_letter(Dead(body, group.reason, "", "", group.step), pipeline=pipeline))
    return found


def dead_of(refused: Sequence[RejectedRows], batch: Batch) -> list[Dead]:
    """The dead letters of rows that failed in a step: one a message, however many of its rows failed."""
    found: dict[int, Dead] = {}
    rest: list[Dead] = []
    for group in refused:
        if ORIGIN not in group.rows.column_names:
            bodies = JsonEncoder(group.rows.schema).rows(group.rows)
            rest += [Dead(body, group.reason, "", "", group.step) for body in bodies]
            continue
        for origin in group.rows.column(ORIGIN).to_pylist():
            if origin not in found:
                found[origin] = batch.dead_of(origin, group.reason, group.step)
    return [*found.values(), *rest]


def without_origin(rows: pa.Table) -> pa.Table:
    return rows.drop_columns([ORIGIN]) if ORIGIN in rows.column_names else rows


# --- Where a pipeline's rows go: sinks, the late queue, the dead letters. What is inside the commit, and what comes after ---


class SinkSet:
    """All sinks of a session. Call `stage` before a commit and `committed` after it."""

    def __init__(
        self, job: Job, store: Store, client: Client | None, slot: int, *, wakeup: Wakeup, retry: RetryPolicy
    ) -> None:
        self._job = job
        self._store = store
        self._client = client
        self._slot = slot
        self._wakeup = wakeup
        self._retry = retry
        self._inside: list[TransactionalSink] = []
        self._outside: list[tuple[int, plan.Sink, DeliveryQueue]] = []
        self._staged: list[tuple[DeliveryQueue, int, bytes]] = []
        self._delivered: dict[int, list[int]] = {}

    def open(self) -> None:
        """Open the sinks, and continue with the batches that were committed and not delivered."""
        for index, sink in enumerate(self._job.pipeline.sinks):
            opened = self._retry.call(partial(self._opened, index, sink))
            if isinstance(opened, TransactionalSink):
                self._inside.append(opened)
            else:
                self._open_outside(index, sink, opened)

    def close(self) -> None:
        for _, _, deliveries in self._outside:
            deliveries.close()

    @property
    def full(self) -> bool:
        """A sink is at its limit of undelivered batches. Raises the error of a sink that has failed for good."""
        self._look()
        return any(deliveries.full for _, _, deliveries in self._outside)

    @property
    def outside(self) -> bool:
        """Whether there is a sink whose rows are delivered after the commit."""
        return bool(self._outside)

    @property
    def under_way(self) -> int:
        """Batches that are not delivered, or not yet recorded as delivered."""
        self._look()
        return sum(deliveries.under_way + len(self._delivered[index]) for index, _, deliveries in self._outside)

    def stage(self, step: Step, dead: Sequence[Dead], change: Change, progress: Progress) -> Progress:
        """Add the output of the step, and `dead`, to `change`. Returns the progress with the sinks' batch numbers."""
        self.forget(change)
        self._staged = []
        if step.output.num_rows:
            change.sends += [(sink.arn, sink.entries(step.output)) for sink in self._inside]
            progress = self._stage_outside(step.output, change, progress)
        pipeline = self._job.pipeline
        if pipeline.late_queue is not None and step.late:
            change.sends.append((arn_of(pipeline.late_queue), late_entries(step.late, pipeline=pipeline.name)))
        if pipeline.dead_letter_queue is not None and dead:
            change.sends.append(
                (arn_of(pipeline.dead_letter_queue), [dead_letter(one, pipeline=pipeline.name) for one in dead])
            )
        return progress

    def forget(self, change: Change) -> None:
        """Add to `change` the removal of delivered batches."""
        self._look()
        change.state += [
            (state_keys.outbox_key(self._slot, index, number), None)
            for index, numbers in self._delivered.items()
            for number in numbers
        ]

    def committed(self) -> None:
        """Deliver the staged batches, after the commit."""
        for numbers in self._delivered.values():
            numbers.clear()
        for deliveries, number, staged in self._staged:
            deliveries.put(number, staged)
        self._staged = []

    def _opened(self, index: int, sink: plan.Sink) -> TransactionalSink | Outbox:
        schema = self._job.physical.output.schema
        return open_sink(sink, schema, self._client, pipeline=self._job.pipeline.name, index=index, slot=self._slot)

    def _open_outside(self, index: int, sink: plan.Sink, opened: Outbox) -> None:
        deliveries = DeliveryQueue(opened, wakeup=self._wakeup, retry_timeout_s=self._job.settings.retry_timeout_s)
        left = self._store.read(state_keys.outbox_key(self._slot, index))
        self._outside.append((index, sink, deliveries))
        self._delivered[index] = []
        deliveries.start([(state_keys.read_number(key), staged) for key, staged in left.items()])

    def _stage_outside(self, rows: pa.Table, change: Change, progress: Progress) -> Progress:
        numbers = dict(progress.outbox)
        for index, sink, deliveries in self._outside:
            for part in _parts(rows, sink):
                number = numbers.get(index, 0) + 1
                staged = deliveries.sink.stage(number, part)
                change.state.append((state_keys.outbox_key(self._slot, index, number), staged))
                self._staged.append((deliveries, number, staged))
                numbers[index] = number
        return msgspec.structs.replace(progress, outbox=numbers)

    def _look(self) -> None:
        for index, _, deliveries in self._outside:
            self._delivered[index] += deliveries.take_done()


def _parts(rows: pa.Table, sink: plan.Sink) -> Iterator[pa.Table]:
    """The portions to stage: all rows for a folder, which stages only the name of a file; otherwise what fits into a state value."""
    if isinstance(sink, plan.ParquetSink) or rows.nbytes <= limits.STAGED_BYTES_MAX or rows.num_rows == 1:
        yield rows
        return
    middle = rows.num_rows // 2  # halves, not equal shares: a few rows may be as large as all others
    yield from _parts(rows.slice(0, middle), sink)
    yield from _parts(rows.slice(middle), sink)
