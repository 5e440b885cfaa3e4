"""Where a pipeline's rows come from: its sources, and what processes that are gone have claimed of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from headrace.native.client import Client
from headrace.stream import limits, plan
from headrace.stream.runner.backfill import Backfill, files_of
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.column_pruning import pruned_columns
from headrace.stream.runner.feeds import Feed, News
from headrace.stream.runner.job import Job
from headrace.stream.runner.progress import SourceProgress
from headrace.stream.runner.store import RetryPolicy
from headrace.stream.sources.base import Progress, Reader
from headrace.stream.sources.open import open_left_reader, open_reader


class SourceSet:
    """All feeds of a session: of each source that has not ended, and of each slot that is looked after."""

    def __init__(self, job: Job, client: Client | None, slot: int, *, news: News, retry: RetryPolicy) -> None:
        self._job = job
        self._client = client
        self._slot = slot
        self._news = news
        self._retry = retry
        self._feeds: dict[str, Feed] = {}
        self._left: list[Feed] = []
        self._closing = ExitStack()

    def open(self, sources: Mapping[str, SourceProgress], left_slots: Iterable[int]) -> None:
        """Begin to read, each source from where it is. Raises what readers cannot be opened for."""
        for source in self._job.sources:
            at = sources[source.name]
            if not at.ended:
                self._feeds[source.name] = self._started(source.name, self._reader(source, at), at.position or None)
        for slot in left_slots:
            for source in self._job.sources:
                self._open_left(source, slot)

    def close(self) -> None:
        """Idempotent."""
        self._closing.close()

    @property
    def quiet(self) -> bool:
        """Nothing is here, and the last reads have waited in vain."""
        return all(feed.quiet for feed in self._all())

    @property
    def finished(self) -> list[str]:
        """The sources that have ended in this session, and of which every chunk was taken."""
        return [name for name, feed in self._feeds.items() if feed.finished]

    def progress(self) -> dict[str, Progress]:
        """How far each source is. Asks the broker."""
        return {name: feed.progress() for name, feed in self._feeds.items()}

    def gather(self) -> Batch:
        """The chunks that are there, up to `batch_rows`; for `batch_ms` after the first it is waited for more."""
        batch = Batch()
        deadline_s = time.monotonic() + self._job.settings.batch_ms / 1_000
        while True:
            took = self._take_round(batch)
            if batch.rows >= self._job.settings.batch_rows or batch.size_bytes >= limits.BATCH_BYTES_MAX:
                return batch
            left_s = deadline_s - time.monotonic()
            if not took:
                if not batch.chunks or left_s <= 0 or all(feed.finished for feed in self._all()):
                    return batch
                self._news.wait(left_s)

    def _take_round(self, batch: Batch) -> bool:
        """A chunk of each source that has one."""
        took = False
        for feed in self._all():
            chunk = feed.take()
            if chunk is not None:
                batch.add(feed.name, chunk, feed.left_by)
                took = True
        return took

    def _all(self) -> list[Feed]:
        return [*self._feeds.values(), *self._left]

    def _open_left(self, source: plan.Source, slot: int) -> None:
        assert isinstance(source, plan.QueueSource | plan.TopicSource)  # others are not shared
        assert self._client is not None
        reader = open_left_reader(source, self._client, pipeline=self._job.pipeline.name, slot=slot)
        feed = self._started(source.name, reader, None)
        feed.left_by = slot
        self._left.append(feed)

    def _started(self, name: str, reader: Reader, position: bytes | None) -> Feed:
        settings = self._job.settings
        feed = Feed(
            name,
            reader,
            rows_max=settings.batch_rows,
            wait_s=limits.READ_WAIT_S if settings.until is None else limits.QUIET_S,
            news=self._news,
            retry=self._retry,
        )
        self._closing.callback(feed.close)
        self._retry.call(lambda: feed.start(position))
        return feed

    def _reader(self, source: plan.Source, at: SourceProgress) -> Reader:
        columns = pruned_columns(self._job.pipeline, self._job.physical, source.name)
        reader = open_reader(source, self._client, pipeline=self._job.pipeline.name, slot=self._slot, columns=columns)
        if at.files is None:
            return reader
        files = open_reader(files_of(source, at.files), None, pipeline=self._job.pipeline.name, slot=self._slot)
        return Backfill(files, reader)
