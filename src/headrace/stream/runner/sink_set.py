"""Where a pipeline's rows go: sinks, the late queue, the dead letters. What is inside the commit, and what comes after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec
import pyarrow as pa

from headrace.native.client import Client
from headrace.queue.model import arn_of
from headrace.stream import limits, plan
from headrace.stream.engine.engine import Step
from headrace.stream.letters import dead_letter
from headrace.stream.runner import keys
from headrace.stream.runner.commit import Change
from headrace.stream.runner.deliveries import Deliveries
from headrace.stream.runner.feeds import News
from headrace.stream.runner.job import Job
from headrace.stream.runner.progress import Progress
from headrace.stream.runner.refused import late_entries
from headrace.stream.runner.store import RetryPolicy, Store
from headrace.stream.sinks.base import Entries, Outbox
from headrace.stream.sinks.open import open_sink
from headrace.stream.sources.base import Dead


class SinkSet:
    """All sinks of a session. `stage` before a commit, `committed` after it."""

    def __init__(
        self, job: Job, store: Store, client: Client | None, slot: int, *, news: News, retry: RetryPolicy
    ) -> None:
        self._job = job
        self._store = store
        self._client = client
        self._slot = slot
        self._news = news
        self._retry = retry
        self._inside: list[Entries] = []
        self._outside: list[tuple[int, plan.Sink, Deliveries]] = []
        self._staged: list[tuple[Deliveries, int, bytes]] = []
        self._delivered: dict[int, list[int]] = {}

    def open(self) -> None:
        """Open the sinks, and go on with what was committed and not delivered."""
        for index, sink in enumerate(self._job.pipeline.sinks):
            opened = self._retry.call(partial(self._opened, index, sink))
            if isinstance(opened, Entries):
                self._inside.append(opened)
            else:
                self._open_outside(index, sink, opened)

    def close(self) -> None:
        for _, _, deliveries in self._outside:
            deliveries.close()

    @property
    def full(self) -> bool:
        """A sink is so far behind that no more may be given. Raises what one failed with for good: it takes no more."""
        self._look()
        return any(deliveries.full for _, _, deliveries in self._outside)

    @property
    def outside(self) -> bool:
        """Whether there is a sink whose rows are delivered after the commit."""
        return bool(self._outside)

    @property
    def under_way(self) -> int:
        """Batches that are not delivered, or not noted as delivered."""
        self._look()
        return sum(deliveries.under_way + len(self._delivered[index]) for index, _, deliveries in self._outside)

    def stage(self, step: Step, dead: Sequence[Dead], change: Change, progress: Progress) -> Progress:
        """Put what the step gave, and `dead`, into `change`. Returns the progress with the sinks' numbers."""
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
        """Put into `change` that delivered batches need not be kept."""
        self._look()
        change.state += [
            (keys.outbox_key(self._slot, index, number), None)
            for index, numbers in self._delivered.items()
            for number in numbers
        ]

    def committed(self) -> None:
        """The commit was done: deliver what was staged."""
        for numbers in self._delivered.values():
            numbers.clear()
        for deliveries, number, staged in self._staged:
            deliveries.put(number, staged)
        self._staged = []

    def _opened(self, index: int, sink: plan.Sink) -> Entries | Outbox:
        schema = self._job.physical.output.schema
        return open_sink(sink, schema, self._client, pipeline=self._job.pipeline.name, index=index, slot=self._slot)

    def _open_outside(self, index: int, sink: plan.Sink, opened: Outbox) -> None:
        deliveries = Deliveries(opened, news=self._news, retry_timeout_s=self._job.settings.retry_timeout_s)
        left = self._store.read(keys.outbox_key(self._slot, index))
        self._outside.append((index, sink, deliveries))
        self._delivered[index] = []
        deliveries.start([(keys.read_number(key), staged) for key, staged in left.items()])

    def _stage_outside(self, rows: pa.Table, change: Change, progress: Progress) -> Progress:
        numbers = dict(progress.outbox)
        for index, sink, deliveries in self._outside:
            for part in _parts(rows, sink):
                number = numbers.get(index, 0) + 1
                staged = deliveries.sink.stage(number, part)
                change.state.append((keys.outbox_key(self._slot, index, number), staged))
                self._staged.append((deliveries, number, staged))
                numbers[index] = number
        return msgspec.structs.replace(progress, outbox=numbers)

    def _look(self) -> None:
        for index, _, deliveries in self._outside:
            self._delivered[index] += deliveries.take_done()


def _parts(rows: pa.Table, sink: plan.Sink) -> Iterator[pa.Table]:
    """What is staged at a time: all for a folder, which stages the name of a file; else what a state value takes."""
    if isinstance(sink, plan.ParquetSink) or rows.nbytes <= limits.STAGED_BYTES_MAX or rows.num_rows == 1:
        yield rows
        return
    middle = rows.num_rows // 2  # halves, not equal shares: a few rows may be as large as all others
    yield from _parts(rows.slice(0, middle), sink)
    yield from _parts(rows.slice(middle), sink)
