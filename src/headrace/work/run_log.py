"""The run log: what workers have run of late, for the console and `headrace task ls`. Written with the commits of the runs.

A *chunk* is the packed runs of one worker's commit, under `h/<time>/<worker>`. Small chunks are written again with the
next runs, so that a slow worker does not leave thousands of them. Kept are the last 20,000 runs or 24 hours: writers drop
their own oldest chunks with the same commits, and a sweep drops those of workers that are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from headrace.work import keys
from headrace.work.backend import Backend

RUNS_MAX: Final = 20_000
RUNS_AGE_MS: Final = 24 * 3_600_000
CHUNK_RUNS: Final = 50
"""A chunk that has fewer is written again with the next runs: below this, its rewriting is cheaper than another row."""
ERROR_CHARACTERS_MAX: Final = 300
_PAGE: Final = 200


class Run(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One run of a task.

    Attributes:
        id: the task's; its further attempts are runs of their own.
        task: its name.
        queue: where it came from, plain.
        worker: the holder that ran it.
        enqueued_ms: when it could have run: sent, or its delay over. Wall clock, as all times here.
        started_ms, ended_ms: of this run; equal for what was not run (cancelled, expired, put off).
        attempt: which, from 1.
        status: done, retried, dead, cancelled, expired or deferred.
        error: in one line, of one that failed.
    """

    id: str
    task: str
    queue: str
    worker: str
    enqueued_ms: int
    started_ms: int
    ended_ms: int
    attempt: int
    status: str
    error: str = ""


class _Chunk(msgspec.Struct, array_like=True, gc=False):
    worker: str
    runs: list[Run]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Chunk)

Puts = dict[bytes, "bytes | None"]


class RunLog:
    """A worker's writer. `write` says what to put; once that is committed `written` is called, else `write` anew.

    If it is unknown whether it is committed, `doubt` is called; `is_there` finds out later. Unless it is `written` after all,
    its chunk is touched no more, whether it is there or not."""

    def __init__(self, worker: str, *, share: int = RUNS_MAX) -> None:
        """Args:
        share: how many runs this worker keeps itself.
        """
        self._worker = worker
        self._share = share
        self._chunks: deque[tuple[bytes, int]] = deque()
        """Key and number of runs of what is there, the oldest first."""
        self._kept = 0
        self._open: list[Run] = []
        """Of the newest chunk, while it is small."""
        self._pending: tuple[bytes, list[Run], int] | None = None
        self._doubted = False
        self._value = b""
        """Of the newest chunk, as `write` gave it: no other commit writes the same."""

    def write(self, runs: Sequence[Run], *, now_ms: int) -> Puts:
        """What to put into the commit of these runs."""
        if self._doubted:
            self.written()
            self._open = []
        joined = [*self._open, *runs]
        key = self._chunks[-1][0] if self._open else self._new_key(now_ms)
        dropped = self._overdue(len(runs))
        self._pending = (key, joined, dropped)
        puts: Puts = {self._chunks[place][0]: None for place in range(dropped)}
        puts[key] = self._value = _encoder.encode(_Chunk(self._worker, joined))
        return puts

    def doubt(self) -> None:
        self._doubted = True

    def is_there(self, read: Callable[[bytes], bytes | None]) -> bool:
        """Whether what is in doubt was committed. False if nothing is."""
        if not self._doubted:
            return False
        assert self._pending is not None
        return read(self._pending[0]) == self._value

    def written(self) -> None:
        assert self._pending is not None
        key, joined, dropped = self._pending
        for _ in range(dropped):
            self._kept -= self._chunks.popleft()[1]
        if self._open:
            self._kept -= self._chunks.pop()[1]
        self._chunks.append((key, len(joined)))
        self._kept += len(joined)
        self._open = joined if len(joined) < CHUNK_RUNS else []
        self._pending = None
        self._doubted = False

    def _new_key(self, now_ms: int) -> bytes:
        """Two chunks of one millisecond must not be one."""
        key = keys.runs(now_ms, self._worker)
        last = self._chunks[-1][0] if self._chunks else b""
        return key if key > last else keys.runs(_time_of(last) + 1, self._worker)

    def _overdue(self, new: int) -> int:
        """How many of the oldest chunks go; the open one stays."""
        kept, number = self._kept + new, 0
        for _, count in list(self._chunks)[: len(self._chunks) - bool(self._open)]:
            if kept - count < self._share:
                break
            kept -= count
            number += 1
        return number


def read_runs(backend: Backend, *, since_ms: int = 0, limit: int = 1_000) -> list[Run]:
    """The newest runs, newest first.

    Args:
        since_ms: only chunks begun after this time.
        limit: no more than these.
    """
    runs = [run for _, chunk in _chunks(backend, since_ms) for run in chunk.runs]
    return sorted(runs, key=lambda run: run.ended_ms, reverse=True)[:limit]


def unpack(value: bytes) -> list[Run]:
    """The runs of one row."""
    return _decoder.decode(value).runs


def sweep(backend: Backend, *, now_ms: int) -> list[bytes]:
    """Keys of chunks that are too old, or beyond the newest 20,000 runs: to be removed. Sorted."""
    found = [(key, len(chunk.runs)) for key, chunk in _chunks(backend, 0)]
    return overdue(found, now_ms=now_ms)


def overdue(chunks: Sequence[tuple[bytes, int]], *, now_ms: int) -> list[bytes]:
    """As `sweep`, of (key, runs) sorted by key."""
    kept, gone = 0, []
    for key, count in reversed(chunks):
        if kept >= RUNS_MAX or _time_of(key) < now_ms - RUNS_AGE_MS:
            gone.append(key)
        kept += count
    return gone[::-1]


def _chunks(backend: Backend, since_ms: int) -> Iterator[tuple[bytes, _Chunk]]:
    after = keys.runs(since_ms, "") if since_ms else b""
    while page := backend.state(keys.RUNS, limit=_PAGE, after=after):
        for key, value in page:
            yield key, _decoder.decode(value)
        after = page[-1][0]
        if len(page) < _PAGE:
            return


def _time_of(key: bytes) -> int:
    return int(key[len(keys.RUNS) : len(keys.RUNS) + 14])
