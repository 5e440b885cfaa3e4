"""The sources of a running pipeline: threads that read ahead, the files of a backfill, and the claims that ended processes left."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from headrace.native.client import Client
from headrace.stream import limits, plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.column_pruning import pruned_columns
from headrace.stream.runner.job import Job
from headrace.stream.runner.progress import SourceProgress
from headrace.stream.runner.store import PASSING, RetryPolicy
from headrace.stream.sources.base import Chunk, Progress, Reader
from headrace.stream.sources.file_listing import FORMATS, format_of
from headrace.stream.sources.open import open_orphaned_reader, open_reader

_log = logging.getLogger("headrace.stream")


class Wakeup:
    """Wakes the runner's thread from other threads. A notification before the wait is not lost."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def notify(self) -> None:
        self._event.set()

    def wait(self, seconds: float | None) -> None:
        self._event.wait(seconds)
        self._event.clear()


class Prefetcher:
    """Reads a source ahead in a thread: at most BATCHES_AHEAD chunks, and the one that it is reading.

    The thread ends when the source does, when it fails, or with `close`.

    `left_by`: the slot whose claims it reads, if the process of that slot has ended.
    """

    left_by: int | None = None

    def __init__(
        self, name: str, reader: Reader, *, rows_max: int, wait_s: float, wakeup: Wakeup, retry: RetryPolicy
    ) -> None:
        self.name = name
        self.reader = reader
        self._rows_max = rows_max
        self._wait_s = wait_s
        self._wakeup = wakeup
        self._retry = retry
        self._chunks: deque[Chunk] = deque()
        self._room = threading.Semaphore(limits.BATCHES_AHEAD)
        self._closing = False
        self._error: BaseException | None = None
        self._ended = False
        self._nothing_came = False
        self._progress = Progress(0, None, "rows")
        self._thread = threading.Thread(target=self._run, name=f"headrace read {name}", daemon=True)

    def start(self, position: bytes | None) -> None:
        self.reader.open(position)
        self._thread.start()

    def take(self) -> Chunk | None:
        """The next chunk, if there is one. Raises the reader's error after all chunks before it."""
        # Read before the chunks: a chunk may arrive meanwhile, and the error behind it.
        error = self._error
        if not self._chunks:
            if error is not None:
                raise error
            return None
        self._room.release()
        return self._chunks.popleft()

    @property
    def finished(self) -> bool:
        """No chunk will come: the source has ended, and all chunks were taken."""
        return self._ended and not self._chunks and self._error is None

    @property
    def quiet(self) -> bool:
        """No chunk is available or on its way, and the last read found nothing."""
        return not self._chunks and (self._ended or self._nothing_came)

    def progress(self) -> Progress:
        """The progress of the source; the last known one while its broker is unavailable, since a report must not end the run."""
        with contextlib.suppress(*PASSING):
            self._progress = self.reader.progress()
        return self._progress

    def close(self) -> None:
        self._closing = True
        self._room.release()
        self.reader.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._room.acquire()
                self._read()
                if self.reader.finished:
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised where chunks are taken
            self._error = error
        self._ended = not self._closing
        self._wakeup.notify()

    def _read(self) -> None:
        """Read one chunk into the queue; release the reserved room if there is none."""
        behind = False
        try:
            behind = self._retry.call(lambda: self.reader.behind)  # before: what is on its way now may be here then
            chunk = self._retry.call(lambda: self.reader.read(self._rows_max, self._wait_s))
        except PASSING:
            if not self._closing:  # a reader that is being closed may find its broker gone
                raise
            chunk = None
        if chunk is None:
            self._room.release()
            self._nothing_came = not behind
        else:
            self._nothing_came = (
                False  # before the chunk can be taken: the prefetcher would be quiet, with more to come
            )
            self._chunks.append(chunk)
        self._wakeup.notify()


# --- Old rows first: files are read to their end, then the source itself, as one source ---


class BackfillPosition(msgspec.Struct, frozen=True):
    """The position of a Backfill: in the files, or (`live`) in the source."""

    live: bool
    position: bytes


class Backfill(Reader):
    """A reader of `files` to their end, then of `source`."""

    def __init__(self, files: Reader, source: Reader) -> None:
        self._files = files
        self._source = source
        self._live = False

    def open(self, position: bytes | None) -> None:
        at = msgspec.json.decode(position, type=BackfillPosition) if position else BackfillPosition(False, b"")
        self._live = at.live
        if not self._live:
            self._files.open(at.position or None)
        self._source.open(at.position or None if at.live else None)

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        if not self._live:
            chunk = self._files.read(rows_max, wait_s)
            if chunk is not None:
                return self._placed(chunk)
            self._live = self._files.finished
            if not self._live:
                return None
        chunk = self._source.read(rows_max, wait_s)
        return None if chunk is None else self._placed(chunk)

    @property
    def behind(self) -> bool:
        return self._source.behind

    @property
    def finished(self) -> bool:
        return self._live and self._source.finished

    def progress(self) -> Progress:
        return (self._source if self._live else self._files).progress()

    def close(self) -> None:
        self._files.close()
        self._source.close()

    def _placed(self, chunk: Chunk) -> Chunk:
        chunk.position = msgspec.json.encode(BackfillPosition(self._live, chunk.position))
        return chunk


def files_of(source: plan.Source, path: str) -> plan.FileSource:
    """The files as a source with the same name, columns and event time.

    Raises UnsupportedQuery: their names do not show the format.
    """
    metadata = getattr(source, "metadata", ())
    if metadata:
        raise UnsupportedQuery(
            f"backfill {path!r}", f"source {source.name!r} has {', '.join(metadata)}, which files do not have"
        )
    form = format_of(Path(path))
    if form is None:
        raise UnsupportedQuery(f"backfill {path!r}", f"unknown format; known suffixes: {', '.join(FORMATS)}")
    return plan.FileSource(source.name, path, form, source.schema, source.time)


def source_to_backfill(sources: tuple[plan.Source, ...]) -> plan.Source:
    """The source to backfill: the only one that is a queue or topic.

    Raises UnsupportedQuery: there is none, or there are several.
    """
    live = [source for source in sources if isinstance(source, plan.QueueSource | plan.TopicSource)]
    if len(live) != 1:
        names = ", ".join(source.name for source in live) or "none"
        raise UnsupportedQuery("backfill", f"it needs exactly one source that is a queue or topic; found: {names}")
    return live[0]


# --- Where a pipeline's rows come from: its sources, and what processes that are gone have claimed of them ---


class SourceSet:
    """All prefetchers of a session: of each source that has not ended, and of each slot that is looked after."""

    def __init__(self, job: Job, client: Client | None, slot: int, *, wakeup: Wakeup, retry: RetryPolicy) -> None:
        self._job = job
        self._client = client
        self._slot = slot
        self._wakeup = wakeup
        self._retry = retry
        self._prefetchers: dict[str, Prefetcher] = {}
        self._left: list[Prefetcher] = []
        self._closing = ExitStack()

    def open(self, sources: Mapping[str, SourceProgress], left_slots: Iterable[int]) -> None:
        """Start reading each source from its position. Raises the errors of readers."""
        for source in self._job.sources:
            at = sources[source.name]
            if not at.ended:
                self._prefetchers[source.name] = self._started(
                    source.name, self._reader(source, at), at.position or None
                )
        for slot in left_slots:
            for source in self._job.sources:
                self._open_left(source, slot)

    def close(self) -> None:
        """Idempotent."""
        self._closing.close()

    @property
    def quiet(self) -> bool:
        """No rows are available, and the last reads found none."""
        return all(prefetcher.quiet for prefetcher in self._all())

    @property
    def finished(self) -> list[str]:
        """The sources that have ended in this session and whose chunks were all taken."""
        return [name for name, prefetcher in self._prefetchers.items() if prefetcher.finished]

    def progress(self) -> dict[str, Progress]:
        """The progress of each source. Sends requests to the broker."""
        return {name: prefetcher.progress() for name, prefetcher in self._prefetchers.items()}

    def gather(self) -> Batch:
        """The available chunks, up to `batch_rows`; waits for more until `batch_ms` after the first."""
        batch = Batch()
        deadline_s = time.monotonic() + self._job.settings.batch_ms / 1_000
        while True:
            took = self._take_round(batch)
            if batch.rows >= self._job.settings.batch_rows or batch.size_bytes >= limits.BATCH_BYTES_MAX:
                return batch
            left_s = deadline_s - time.monotonic()
            if not took:
                if not batch.chunks or left_s <= 0 or all(prefetcher.finished for prefetcher in self._all()):
                    return batch
                self._wakeup.wait(left_s)

    def _take_round(self, batch: Batch) -> bool:
        """Take one chunk of each source that has one."""
        took = False
        for prefetcher in self._all():
            chunk = prefetcher.take()
            if chunk is not None:
                batch.add(prefetcher.name, chunk, prefetcher.left_by)
                took = True
        return took

    def _all(self) -> list[Prefetcher]:
        return [*self._prefetchers.values(), *self._left]

    def _open_left(self, source: plan.Source, slot: int) -> None:
        assert isinstance(source, plan.QueueSource | plan.TopicSource)  # others are not shared
        assert self._client is not None
        reader = open_orphaned_reader(source, self._client, pipeline=self._job.pipeline.name, slot=slot)
        prefetcher = self._started(source.name, reader, None)
        prefetcher.left_by = slot
        self._left.append(prefetcher)

    def _started(self, name: str, reader: Reader, position: bytes | None) -> Prefetcher:
        settings = self._job.settings
        prefetcher = Prefetcher(
            name,
            reader,
            rows_max=settings.batch_rows,
            wait_s=limits.READ_WAIT_S if settings.until is None else limits.QUIET_S,
            wakeup=self._wakeup,
            retry=self._retry,
        )
        self._closing.callback(prefetcher.close)
        self._retry.call(lambda: prefetcher.start(position))
        return prefetcher

    def _reader(self, source: plan.Source, at: SourceProgress) -> Reader:
        columns = pruned_columns(self._job.pipeline, self._job.physical, source.name)
        reader = open_reader(source, self._client, pipeline=self._job.pipeline.name, slot=self._slot, columns=columns)
        if at.files is None:
            return reader
        files = open_reader(files_of(source, at.files), None, pipeline=self._job.pipeline.name, slot=self._slot)
        return Backfill(files, reader)
