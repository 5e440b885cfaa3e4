"""A session: a pipeline that this process runs. Chunks in, one step of the engine, one commit, again and again.

The commit of a batch with many rows runs in a thread, beside the next step; the next commit waits for it. So the engine's
memory is at most two batches ahead of the store, and no commit overtakes the one before it. When a turn fails, the session is
dropped, and the next one starts from the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

import msgspec
import pyarrow as pa

from headrace.errors import ClaimRefused
from headrace.native.client import Client
from headrace.stream import limits, plan
from headrace.stream.engine.engine import Engine, Step
from headrace.stream.engine.operator import END
from headrace.stream.engine.state import StateBackend
from headrace.stream.engine.state_backend import DurableStateBackend, MemoryStateBackend
from headrace.stream.errors import SourceFailed
from headrace.stream.physical import PhysicalPlan, Project
from headrace.stream.runner import membership, sharing, watermarks
from headrace.stream.runner.batch import Batch, batch_span, check_failures
from headrace.stream.runner.commit import Change, Committer
from headrace.stream.runner.job import Job
from headrace.stream.runner.progress import Progress, SourceProgress
from headrace.stream.runner.sharing import SourceWatermarks
from headrace.stream.runner.shuffle import SharedRun
from headrace.stream.runner.sink_set import SinkSet, dead_of
from headrace.stream.runner.source_set import SourceSet, Wakeup, source_to_backfill
from headrace.stream.runner.store import RetryPolicy, SchemaRecorder, Store
from headrace.stream.sources.base import Progress as SourceReport
from headrace.stream.sources.tables import load_table

_log = logging.getLogger("headrace.stream")


class StaticTables:
    """The tables of a plan, and when each is due."""

    def __init__(self, physical: PhysicalPlan, engine: Engine) -> None:
        self._engine = engine
        self._refs = {ref.name: ref for node in physical.operators if isinstance(node, Project) for ref in node.tables}
        self._due_ms: dict[str, float] = dict.fromkeys(self._refs, 0.0)

    def load(self, now_ms: int) -> None:
        """Load what is due. A table that cannot be reloaded stays as it is until the next time: a restarted database
        must not end the pipeline.

        Raises SourceFailed: at the first time.
        """
        for name, ref in self._refs.items():
            if self._due_ms[name] <= now_ms:
                self._load(name, ref, first=not self._due_ms[name])
                self._due_ms[name] = _next_ms(ref, now_ms)

    def _load(self, name: str, ref: plan.TableRef, *, first: bool) -> None:
        try:
            self._engine.set_table(name, load_table(ref))
        except SourceFailed as error:
            if first:
                raise
            _log.warning(
                "%s; table %s stays as it was read before", error, name,
                extra={"action": "stream.table_kept", "table": name},
            )  # fmt: skip


def _next_ms(ref: plan.TableRef, now_ms: int) -> float:
    return float("inf") if ref.reload_us is None else now_ms + ref.reload_us / 1_000


# --- The session ---


class Session:
    """From `open` to `close`. One thread calls it; readers and sinks have threads of their own, which notify `wakeup`.

    Attributes:
        rested: whether the last turn found no rows, and none had arrived for a while when it began; it then did the work of
            idle timeouts.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        client: Client | None,
        committer: Committer,
        *,
        wakeup: Wakeup,
        retry: RetryPolicy,
        backfill: str | None = None,
    ) -> None:
        self._job = job
        self._store = store
        self._client = client
        self._committer = committer
        self._wakeup = wakeup
        self._retry = retry
        self._backfill = backfill
        self._times = {source.name: source.time for source in job.sources}
        self.rested = False
        self._share: SharedRun | None = None
        self._measured_s = -limits.TELL_S  # at once
        self._measured_bytes = 0
        self._closing = ExitStack()
        self._commits = ThreadPoolExecutor(1, thread_name_prefix="headrace commit")
        self._closing.callback(self._commits.shutdown)  # waits: nothing of this session happens after it
        self._under_way: tuple[Future[None], pa.Table] | None = None
        self._rows: list[pa.Table] = []

    # --- from the store, and back ---

    def open(self) -> None:
        """Load the state and start reading. Raises TakenOver, and the errors of readers and sinks."""
        self._committer.recover()
        for slot in self._left_slots():
            self._committer.of_slot(slot).recover()
        self._sink_set = SinkSet(
            self._job, self._store, self._client, self._committer.slot, wakeup=self._wakeup, retry=self._retry
        )
        self._closing.callback(self._sink_set.close)
        self._sink_set.open()
        self._share = self._open_share()
        if self._share is not None:
            self._catch_up(self._share)
        self._open_engine(self._share.owned if self._share is not None else None, self._reached())
        self._closing.callback(self._engine.close)
        self._open_sources()

    def close(self) -> None:
        """Idempotent. Uncommitted input is read again by the next session."""
        self._closing.close()

    def _left_slots(self) -> list[int]:
        """The slots without a process whose claims this slot processes."""
        owners = membership.read_owners(self._committer.owners)
        return owners.left_to(self._committer.slot) if owners.slots else []

    def _open_share(self) -> SharedRun | None:
        """None: no other process takes or took part in this pipeline, or there is no state to share."""
        owners = membership.read_owners(self._committer.owners)
        exchange = sharing.exchange_of(self._job.physical)
        if owners.used < 2 or exchange is None or self._client is None:
            return None
        return SharedRun(
            self._job, exchange, self._store, self._client,
            slot=self._committer.slot, owners=owners, retry=self._retry,
        )  # fmt: skip

    def _reached(self) -> SourceWatermarks:
        """The watermarks that the state has reached."""
        if self._share is not None:
            return self._share.reached
        return {name: source.watermark for name, source in self.progress.sources.items()}

    def _open_parts(self, owned: frozenset[int] | None) -> StateBackend:
        if not self._store.durable:
            return MemoryStateBackend()
        return DurableStateBackend(
            self._scan,
            shards=self._job.shards,
            owned=owned,
            memory_bytes=self._job.settings.state_memory_bytes,
        )

    def _scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """State that was evicted from memory: it may be in the commit in progress."""
        self._await_commit()
        return self._store.scan(prefix)

    def _open_engine(self, owned: frozenset[int] | None, reached: SourceWatermarks) -> None:
        """The engine over the state of these shards (None: all)."""
        settings = self._job.settings
        self._parts = SchemaRecorder(self._open_parts(owned), self._store, self._job.pipeline.name)
        self._engine = Engine(
            self._job.physical,
            self._parts,
            memory_bytes=settings.memory_bytes,
            threads=settings.threads,
            watermarks=reached,
            shuffle=self._share.shuffle if self._share is not None else None,
        )
        self._tables = StaticTables(self._job.physical, self._engine)
        self._tables.load(self._store.now_ms())

    def _catch_up(self, share: SharedRun) -> None:
        """Advance the shards of members that were behind to the watermarks of the others. One commit."""
        change = Change()
        steps: list[Step] = []
        for shards, reached in share.behind().items():
            share.take_in(shards)
            self._open_engine(shards, reached)
            with closing(self._engine):
                steps.append(self._engine.step({}, share.reached))
            change.state += self._parts.take_puts()
        if steps:
            step = Step(
                pa.concat_tables([step.output for step in steps]),
                [refused for step in steps for refused in step.late],
                [refused for step in steps for refused in step.dead],
            )
            self._put(change, Batch(), step, self.progress, share.reached)

    def _open_sources(self) -> None:
        self._source_set = SourceSet(
            self._job, self._client, self._committer.slot, wakeup=self._wakeup, retry=self._retry
        )
        self._closing.callback(self._source_set.close)
        now_ms = self._store.now_ms()
        begun = {
            source.name: SourceProgress(heard_ms=now_ms, backfill=self._backfilled(source))
            for source in self._job.sources
        }
        self._sources = begun | self.progress.sources
        self._source_set.open(self._sources, self._left_slots())

    def _backfilled(self, source: plan.Source) -> str | None:
        """The backfill that precedes this source's new rows."""
        if self._backfill is None:
            return None
        return self._backfill if source_to_backfill(self._job.sources) is source else None

    # --- turns ---

    @property
    def progress(self) -> Progress:
        """The last committed progress."""
        return self._committer.progress

    @property
    def state_bytes(self) -> int:
        return self._parts.size_bytes()

    def source_progress(self) -> dict[str, SourceReport]:
        """The position and lag of each source. Sends requests to the broker."""
        return self._source_set.progress()

    @property
    def undelivered(self) -> int:
        return self._sink_set.under_way

    def turn(self) -> pa.Table | None:
        """Process and commit the arrived rows and the effects of time. Does nothing if there are none.

        Returns:
            The output rows that were committed since the last turn; None if nothing was done.

        Raises:
            TakenOver: another process has the pipeline.
            TooManyFailures: nothing of this turn was committed.
        """
        quiet = self._is_quiet()
        self.rested = False
        if self._sink_set.full:
            return None
        batch = Batch() if self._share is not None and self._share.stalled else self._gathered()
        if not batch.chunks and self._under_way is not None:
            return self.wait_for_commit()
        self.rested = not batch.chunks and quiet
        sources = self._advanced(batch)
        goal = self._goal(batch, sources)
        if not batch.chunks and sources == self._sources and not (self._share and self._share.has_changes(goal)):
            self._forget()
            return None
        self._tables.load(self._store.now_ms())
        with batch_span(self._job.pipeline.name, batch):
            step = self._engine.step(batch.inputs(), goal)
            self._await_commit()
            self._commit(batch, sources, step, goal)
        return self._taken_rows()

    def wait_for_commit(self) -> pa.Table:
        """Wait for the commit in progress. Returns and raises like `turn`."""
        self._await_commit()
        return self._taken_rows()

    def wait(self, seconds: float | None) -> None:
        """Wait for new rows, or until a timer may be due."""
        now_ms = self._store.now_ms()
        sources = self._sources if self._share is None else self._share.together
        deadline_ms = watermarks.next_deadline_ms(sources, self._times, now_ms)
        if deadline_ms is not None:
            left_s = (deadline_ms - now_ms) / 1_000
            seconds = left_s if seconds is None else min(seconds, left_s)
        if self._share is not None:
            pause_s = self._share.pause_s()
            seconds = pause_s if seconds is None else min(seconds, pause_s)
        self._wakeup.wait(None if seconds is None else max(seconds, 0.001))

    def _is_quiet(self) -> bool:
        """No rows are available, and none have arrived for a while."""
        return self._source_set.quiet and not self._sink_set.under_way and self._under_way is None

    @property
    def ended(self) -> bool:
        """All sources have ended, and all deliveries are done and recorded."""
        return all(source.ended for source in self._sources.values()) and not self._sink_set.under_way

    def _gathered(self) -> Batch:
        try:
            return self._source_set.gather()
        except ClaimRefused:
            # The present owner of the slot, or of one that this process looked after, has acknowledged these claims.
            self._committer.confirm()
            raise

    def _advanced(self, batch: Batch) -> dict[str, SourceProgress]:
        """The sources' progress after this batch: first its rows, then idle timeouts and ends."""
        now_ms = self._store.now_ms()
        sources = dict(self._sources)
        for name, chunks in batch.chunks.items():
            before = sources[name]
            own = batch.own(name)
            sources[name] = msgspec.structs.replace(
                before,
                watermark=watermarks.of_chunks(own, self._times[name], before.watermark),
                position=own[-1].position if own else before.position,
                rows=before.rows + sum(chunk.rows.num_rows + len(chunk.dead) for chunk in chunks),
                heard_ms=now_ms,
            )
        moved = self._silent(sources, now_ms) if self._share is None else {}
        moved |= dict.fromkeys(self._source_set.finished, END)
        return sources | {
            name: msgspec.structs.replace(sources[name], watermark=watermark) for name, watermark in moved.items()
        }

    def _goal(self, batch: Batch, sources: dict[str, SourceProgress]) -> SourceWatermarks:
        """The sources' watermarks for the step: this process's own, if there is no other."""
        if self._share is None:
            return {name: source.watermark for name, source in sources.items()}
        return self._share.look(
            sources,
            batch,
            ended=self._job.settings.until == "end" and self.rested,
            pending=self._engine.pending,
        )

    def _silent(self, sources: dict[str, SourceProgress], now_ms: int) -> dict[str, int]:
        """Idle sources advance also while others are busy: a backlog of theirs must not hold all windows back."""
        idle = watermarks.idle_sources(sources, self._times, now_ms)
        if self._job.settings.until == "end" and self.rested:
            idle = frozenset(sources)
        return watermarks.idle_watermarks(sources, self._times, idle, self._engine.pending()) if idle else {}

    def _commit(self, batch: Batch, sources: dict[str, SourceProgress], step: Step, goal: SourceWatermarks) -> None:
        progress = msgspec.structs.replace(self.progress, batch=self.progress.batch + 1, sources=sources)
        self._put(Change(state=self._parts.take_puts(), claims=batch.claims()), batch, step, progress, goal)
        self._sources = sources

    def _measured(self) -> int:
        """The size of the state, cached: with many windows open measuring takes longer than a batch."""
        now_s = time.monotonic()
        if now_s - self._measured_s >= limits.TELL_S:
            self._measured_s, self._measured_bytes = now_s, self.state_bytes
        return self._measured_bytes

    def _put(self, change: Change, batch: Batch, step: Step, before: Progress, goal: SourceWatermarks) -> None:
        dead = batch.dead() + dead_of(step.dead, batch)
        progress = msgspec.structs.replace(
            before,
            state_bytes=self._measured(),
            rows_out=before.rows_out + step.output.num_rows,
            late=before.late + sum(group.rows.num_rows for group in step.late),
            dead=before.dead + len(dead),
        )
        check_failures(self._job.pipeline, progress, dead)
        progress = self._sink_set.stage(step, dead, change, progress)
        if self._share is not None:
            progress = self._share.note(change, progress, goal)
        if batch.rows >= limits.BESIDE_ROWS_MIN and self._share is None and not self._sink_set.outside:
            self._under_way = self._commits.submit(self._committer.commit, change, progress), step.output
            return
        self._committer.commit(change, progress)
        self._rows.append(step.output)
        self._sink_set.committed()
        if self._share is not None:
            self._share.committed(self.progress, goal)

    def _await_commit(self) -> None:
        """The commit under way, if there is one, is done. Raises what it raised."""
        if self._under_way is not None:
            (commit, rows), self._under_way = self._under_way, None
            commit.result()
            self._rows.append(rows)
            self._sink_set.committed()

    def _taken_rows(self) -> pa.Table:
        rows, self._rows = self._rows, []
        return pa.concat_tables(rows) if rows else self._job.physical.output.schema.arrow().empty_table()

    def _forget(self) -> None:
        """Note that batches were delivered; with the next batch if there is one, else by a commit of its own."""
        change = Change()
        self._sink_set.forget(change)
        if change.state:
            self._committer.commit(change, self.progress)
            self._sink_set.committed()
            self._wakeup.notify()  # only the next turn is quiet
