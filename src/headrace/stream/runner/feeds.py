"""Readers in threads of their own, a bounded number of chunks ahead of the engine."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque

from headrace.stream import limits
from headrace.stream.runner.store import PASSING, RetryPolicy
from headrace.stream.sources.base import Chunk, Progress, Reader

_log = logging.getLogger("headrace.stream")


class News:
    """How threads tell the runner that there is something to do. What is told before the wait is not lost."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def tell(self) -> None:
        self._event.set()

    def wait(self, seconds: float | None) -> None:
        self._event.wait(seconds)
        self._event.clear()


class Feed:
    """A source being read ahead: at most BATCHES_AHEAD chunks, and one in the making.

    The thread ends when the source does, when it fails, or with `close`.

    `left_by`: the slot whose claims it reads, if that is one whose process is gone.
    """

    left_by: int | None = None

    def __init__(
        self, name: str, reader: Reader, *, rows_max: int, wait_s: float, news: News, retry: RetryPolicy
    ) -> None:
        self.name = name
        self.reader = reader
        self._rows_max = rows_max
        self._wait_s = wait_s
        self._news = news
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
        """The next chunk, if one is there. Raises what the reader failed with, once all before it were taken."""
        # Before it is looked whether there is a chunk: one may come meanwhile, and the error behind it.
        error = self._error
        if not self._chunks:
            if error is not None:
                raise error
            return None
        self._room.release()
        return self._chunks.popleft()

    @property
    def finished(self) -> bool:
        """No chunk will come: all were taken, and the source has ended."""
        return self._ended and not self._chunks and self._error is None

    @property
    def quiet(self) -> bool:
        """Nothing is here, nothing was on its way here, and the last read has waited in vain."""
        return not self._chunks and (self._ended or self._nothing_came)

    def progress(self) -> Progress:
        """How far the source is; while its broker is away, how far it was: who only asks must not end the run."""
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
        self._news.tell()

    def _read(self) -> None:
        """One chunk into the queue; the room that was taken is given back if none comes."""
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
            self._nothing_came = False  # before the chunk can be taken: the feed would be quiet, with more to come
            self._chunks.append(chunk)
        self._news.tell()
