"""A pipeline being run by the process that has it: chunks in, one step of the engine, one commit, again and again.

The engine's memory is never ahead of the store but within a turn: whatever goes wrong in one, the session is dropped,
and the next begins from the store.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing

import msgspec
import pyarrow as pa

from headrace.native.client import Client
from headrace.stream import limits, plan
from headrace.stream.engine.engine import Engine, Step
from headrace.stream.engine.operator import END
from headrace.stream.engine.part_store import DurablePartStore, MemoryPartStore
from headrace.stream.engine.parts import PartStore
from headrace.stream.runner import keys, watermarks
from headrace.stream.runner.backfill import Backfill, files_of, source_to_backfill
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.commit import Change, Ledger
from headrace.stream.runner.failures import check_failures
from headrace.stream.runner.feeds import Feed, News
from headrace.stream.runner.job import Job
from headrace.stream.runner.outlets import Outlets
from headrace.stream.runner.progress import Progress, SourceProgress
from headrace.stream.runner.refused import dead_of
from headrace.stream.runner.schemas import RecordingParts
from headrace.stream.runner.store import Patience, Store
from headrace.stream.runner.tables import Tables
from headrace.stream.sources.base import Progress as SourceReport
from headrace.stream.sources.base import Reader
from headrace.stream.sources.open import open_reader


class Session:
    """From `open` to `close`. One thread calls it; readers and sinks have threads of their own, which tell `news`."""

    def __init__(
        self,
        job: Job,
        store: Store,
        client: Client | None,
        ledger: Ledger,
        *,
        news: News,
        patience: Patience,
        backfill: str | None = None,
    ) -> None:
        self._job = job
        self._store = store
        self._client = client
        self._ledger = ledger
        self._news = news
        self._patience = patience
        self._backfill = backfill
        self._times = {source.name: source.time for source in job.sources}
        self._feeds: dict[str, Feed] = {}
        self._quiet = False
        self._closing = ExitStack()

    # --- from the store, and back ---

    def open(self) -> None:
        """Load the state, and begin to read. Raises TakenOver; what readers and sinks cannot be opened for."""
        self._ledger.recover()
        self._parts = RecordingParts(self._open_parts(), self._store)
        self._engine = self._closing.enter_context(closing(self._open_engine()))
        self._tables = Tables(self._job.physical, self._engine)
        self._tables.load(self._store.now_ms())
        self._outlets = Outlets(
            self._job, self._store, self._client, self._ledger.slot, news=self._news, patience=self._patience
        )
        self._closing.callback(self._outlets.close)
        self._outlets.open()
        self._open_feeds()

    def close(self) -> None:
        """Idempotent. What was not committed comes again."""
        self._closing.close()

    def _open_parts(self) -> PartStore:
        if not self._store.durable:
            return MemoryPartStore()
        shards = self._job.pipeline.shards
        return DurablePartStore(
            self._store.read(keys.PARTS).items(),
            self._store.read,
            shards=shards,
            memory_bytes=self._job.settings.state_memory_bytes,
        )

    def _open_engine(self) -> Engine:
        settings = self._job.settings
        return Engine(
            self._job.physical,
            self._parts,
            memory_bytes=settings.memory_bytes,
            threads=settings.threads,
            watermarks={name: source.watermark for name, source in self.progress.sources.items()},
        )

    def _open_feeds(self) -> None:
        now_ms = self._store.now_ms()
        sources = dict(self.progress.sources)
        for source in self._job.sources:
            at = sources.setdefault(source.name, SourceProgress(heard_ms=now_ms, backfill=self._backfilled(source)))
            if not at.ended:
                self._open_feed(source, at)
        self._sources = sources

    def _backfilled(self, source: plan.Source) -> str | None:
        """The files that come before this source."""
        if self._backfill is None:
            return None
        return self._backfill if source_to_backfill(self._job.sources) is source else None

    def _open_feed(self, source: plan.Source, at: SourceProgress) -> None:
        settings = self._job.settings
        feed = Feed(
            source.name,
            self._reader(source, at),
            rows_max=settings.batch_rows,
            wait_s=limits.READ_WAIT_S if settings.until is None else limits.QUIET_S,
            news=self._news,
            patience=self._patience,
        )
        self._closing.callback(feed.close)
        self._patience.call(lambda: feed.start(at.position or None))
        self._feeds[source.name] = feed

    def _reader(self, source: plan.Source, at: SourceProgress) -> Reader:
        reader = open_reader(source, self._client, pipeline=self._job.pipeline.name, slot=self._ledger.slot)
        if at.backfill is None:
            return reader
        files = open_reader(
            files_of(source, at.backfill), None, pipeline=self._job.pipeline.name, slot=self._ledger.slot
        )
        return Backfill(files, reader)

    # --- turns ---

    @property
    def progress(self) -> Progress:
        """As it was committed last."""
        return self._ledger.progress

    @property
    def state_bytes(self) -> int:
        return self._parts.size_bytes()

    def source_progress(self) -> dict[str, SourceReport]:
        """How far each source is. Asks the broker."""
        return {name: feed.progress() for name, feed in self._feeds.items()}

    @property
    def undelivered(self) -> int:
        return self._outlets.under_way

    def turn(self) -> pa.Table | None:
        """Process what has come, and what time has done; commit it. Nothing is done if there is nothing to do.

        Returns:
            The rows that came out; None if nothing was done.

        Raises:
            TakenOver: somebody else has the pipeline.
            TooManyFailures: nothing of this turn was committed.
        """
        self._quiet = self._is_quiet()
        if self._outlets.full:
            return None
        batch = self._gather()
        sources = self._advanced(batch)
        if batch.rows == 0 and not batch.chunks and sources == self._sources:
            self._forget()
            return None
        self._tables.load(self._store.now_ms())
        step = self._engine.step(batch.inputs(), {name: source.watermark for name, source in sources.items()})
        self._commit(batch, sources, step)
        return step.output

    def wait(self, seconds: float | None) -> None:
        """Until something has come, or time may have done something."""
        now_ms = self._store.now_ms()
        deadline_ms = watermarks.next_deadline_ms(self._sources, self._times, now_ms)
        if deadline_ms is not None:
            left_s = (deadline_ms - now_ms) / 1_000
            seconds = left_s if seconds is None else min(seconds, left_s)
        self._news.wait(None if seconds is None else max(seconds, 0.001))

    @property
    def quiet(self) -> bool:
        """When the last turn began, nothing was here to be processed, and nothing had come for a while.

        Not now: what a turn did not take for quiet, it has not closed windows for (`until` end).
        """
        return self._quiet

    def _is_quiet(self) -> bool:
        return all(feed.quiet for feed in self._feeds.values()) and not self._outlets.under_way

    @property
    def ended(self) -> bool:
        """All sources have ended, and everything is delivered and noted."""
        return all(source.ended for source in self._sources.values()) and not self._outlets.under_way

    def _gather(self) -> Batch:
        """The chunks that are there, up to `batch_rows`; for `batch_ms` after the first it is waited for more."""
        batch = Batch()
        deadline_s = time.monotonic() + self._job.settings.batch_ms / 1_000
        while True:
            took = self._take_round(batch)
            if batch.rows >= self._job.settings.batch_rows or batch.size_bytes >= limits.BATCH_BYTES_MAX:
                return batch
            left_s = deadline_s - time.monotonic()
            if not took:
                if not batch.chunks or left_s <= 0 or all(feed.finished for feed in self._feeds.values()):
                    return batch
                self._news.wait(left_s)

    def _take_round(self, batch: Batch) -> bool:
        """A chunk of each source that has one."""
        took = False
        for name, feed in self._feeds.items():
            chunk = feed.take()
            if chunk is not None:
                batch.add(name, chunk)
                took = True
        return took

    def _advanced(self, batch: Batch) -> dict[str, SourceProgress]:
        """The sources' progress after this batch: what their rows did, then what silence and ends do."""
        now_ms = self._store.now_ms()
        sources = dict(self._sources)
        for name, chunks in batch.chunks.items():
            before = sources[name]
            after = before.watermark
            for chunk in chunks:
                after = watermarks.of_rows(chunk.rows, self._times[name], after)
            sources[name] = msgspec.structs.replace(
                before,
                watermark=after,
                position=chunks[-1].position,
                rows=before.rows + sum(chunk.rows.num_rows + len(chunk.dead) for chunk in chunks),
                messages=before.messages + sum(chunk.messages for chunk in chunks),
                heard_ms=now_ms,
            )
        moved = self._silent(sources, now_ms, came=bool(batch.chunks))
        moved |= {name: END for name, feed in self._feeds.items() if feed.finished}
        return sources | {
            name: msgspec.structs.replace(sources[name], watermark=watermark) for name, watermark in moved.items()
        }

    def _silent(self, sources: dict[str, SourceProgress], now_ms: int, *, came: bool) -> dict[str, int]:
        """Also while others are busy: a backlog of theirs must not hold everything back until it is done."""
        idle = watermarks.silent(sources, self._times, now_ms)
        if self._job.settings.until == "end" and not came and self.quiet:
            idle = frozenset(sources)
        return watermarks.of_silence(sources, self._times, idle, self._engine.pending()) if idle else {}

    def _commit(self, batch: Batch, sources: dict[str, SourceProgress], step: Step) -> None:
        before = self.progress
        dead = batch.dead() + dead_of(step.dead, batch)
        progress = msgspec.structs.replace(
            before,
            batch=before.batch + 1,
            sources=sources,
            rows_out=before.rows_out + step.output.num_rows,
            late=before.late + sum(group.rows.num_rows for group in step.late),
            dead=before.dead + len(dead),
        )
        check_failures(self._job.pipeline, progress, dead)
        change = Change(state=self._parts.take_puts(), claims=batch.claims())
        progress = self._outlets.stage(step, dead, change, progress)
        self._ledger.commit(change, progress)
        self._sources = sources
        self._outlets.committed()

    def _forget(self) -> None:
        """Note that batches were delivered; with the next batch if there is one, else by a commit of its own."""
        change = Change()
        self._outlets.forget(change)
        if change.state:
            self._ledger.commit(change, self.progress)
            self._outlets.committed()
            self._news.tell()  # only the next turn is quiet
