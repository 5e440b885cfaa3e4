"""Batches on their way to a sink outside the store: committed, delivered by a thread, then forgotten by a later commit."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from headrace.stream import limits
from headrace.stream.errors import SinkFailed
from headrace.stream.runner.feeds import News
from headrace.stream.sinks.base import Outbox

_log = logging.getLogger("headrace.stream")


class Deliveries:
    """One sink's batches, in the order of their numbers. A batch that fails is tried again, as long as `retry_timeout_s`
    allows (None: for ever); the pipeline waits meanwhile, since at most OUTBOX_BATCHES_MAX may be under way."""

    def __init__(self, sink: Outbox, *, news: News, retry_timeout_s: float | None) -> None:
        self.sink = sink
        self._news = news
        self._retry_timeout_s = retry_timeout_s
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._done: deque[int] = deque()
        self._error: BaseException | None = None
        self._work = threading.Semaphore(0)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace sink {sink.name}", daemon=True)

    def start(self, left: list[tuple[int, bytes]]) -> None:
        """Begin with what is still to be delivered; everything else that was staged is removed."""
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
                self._news.tell()
        except BaseException as error:  # noqa: BLE001 - it is raised where deliveries are taken
            self._error = error
            self._news.tell()

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
