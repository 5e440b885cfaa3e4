from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from headrace.errors import Unavailable
from headrace.stream import limits
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.source_set import Prefetcher, Wakeup
from headrace.stream.runner.store import RetryPolicy
from headrace.stream.schema import ORIGIN
from headrace.stream.sources.base import Chunk, Dead, Origins, Progress, Reader
from tests.patience import PATIENCE_S


class Named(Origins):
    def __init__(self, name: str) -> None:
        self.name = name

    def dead(self, origin: int, reason: str, step: str) -> Dead:
        return Dead(b"", reason, f"{self.name}:{origin}", self.name, step)


def chunk(name: str, rows: int) -> Chunk:
    table = pa.table({"v": pa.array(range(rows), pa.int64()), ORIGIN: pa.array(range(rows), pa.int32())})
    return Chunk(table, Named(name), position=name.encode(), claims=[(name, "r", 1)], size_bytes=rows)


class Scripted(Reader):
    """Gives chunks and errors, then ends."""

    def __init__(self, *answers: Chunk | Exception | None) -> None:
        self.answers = deque(answers)
        self.reads = 0
        self.closed = False
        self.opened: bytes | None = None

    def open(self, position: bytes | None) -> None:
        self.opened = position

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        self.reads += 1
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def finished(self) -> bool:
        return not self.answers

    def progress(self) -> Progress:
        return Progress(0, None, "rows")

    def close(self) -> None:
        self.closed = True


def prepared(reader: Scripted) -> tuple[Prefetcher, Wakeup]:
    wakeup = Wakeup()
    return Prefetcher(
        "s", reader, rows_max=10, wait_s=0, wakeup=wakeup, retry=RetryPolicy(5, threading.Event())
    ), wakeup


def started(reader: Scripted) -> tuple[Prefetcher, Wakeup]:
    prefetcher, wakeup = prepared(reader)
    prefetcher.start(b"at")
    return prefetcher, wakeup


def next_of(prefetcher: Prefetcher, wakeup: Wakeup) -> Chunk:
    while (got := prefetcher.take()) is None:
        wakeup.wait(PATIENCE_S)
    return got


def all_of(prefetcher: Prefetcher, wakeup: Wakeup) -> list[Chunk]:
    found = []
    while not prefetcher.finished:
        got = prefetcher.take()
        if got is None:
            wakeup.wait(PATIENCE_S)
        else:
            found.append(got)
    return found


def test_chunks_come_in_order_until_the_source_ends() -> None:
    chunks = [chunk(name, 1) for name in "abcde"]
    reader = Scripted(*chunks[:2], None, *chunks[2:])
    prefetcher, wakeup = started(reader)
    assert all_of(prefetcher, wakeup) == chunks
    assert prefetcher.quiet and reader.opened == b"at"
    prefetcher.close()
    assert reader.closed


def test_reader_is_a_bounded_number_of_chunks_ahead() -> None:
    reader = Scripted(*(chunk(str(number), 1) for number in range(9)))
    prefetcher, wakeup = started(reader)
    while reader.reads < limits.BATCHES_AHEAD:
        wakeup.wait(PATIENCE_S)
    prefetcher.take()
    assert reader.reads <= limits.BATCHES_AHEAD + 1
    prefetcher.close()


def test_error_comes_after_the_chunks_before_it() -> None:
    prefetcher, wakeup = started(Scripted(chunk("a", 1), ValueError("broken"), chunk("b", 1)))
    assert next_of(prefetcher, wakeup).rows.num_rows == 1
    with pytest.raises(ValueError, match="broken"):
        next_of(prefetcher, wakeup)
    prefetcher.close()


class Hooked(deque[Chunk]):
    """Chunks of a prefetcher, and what happens whenever one has been put there, or one has looked whether there is one."""

    def __init__(
        self, *, appended: Callable[[], None] = lambda: None, looked: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._appended, self._looked = appended, looked

    def append(self, item: Chunk) -> None:
        super().append(item)
        self._appended()

    def __len__(self) -> int:
        count = super().__len__()
        self._looked()
        return count


def test_error_does_not_overtake_a_chunk_that_comes_while_one_looks_for_it() -> None:
    prefetcher, wakeup = prepared(Scripted(chunk("a", 1), ValueError("broken")))

    def let_it_read() -> None:
        if prefetcher._thread.ident is None:
            prefetcher.start(None)
            prefetcher._thread.join()

    prefetcher._chunks = Hooked(looked=let_it_read)
    assert next_of(prefetcher, wakeup).rows.num_rows == 1
    with pytest.raises(ValueError, match="broken"):
        next_of(prefetcher, wakeup)


def test_feed_is_not_quiet_as_soon_as_the_first_chunk_after_silence_is_taken() -> None:
    def take_at_once() -> None:
        prefetcher.take()
        quiet.append(prefetcher.quiet)

    quiet: list[bool] = []
    prefetcher, _ = prepared(Scripted(None, chunk("a", 1), chunk("b", 1)))
    prefetcher._chunks = Hooked(appended=take_at_once)
    prefetcher.start(None)
    prefetcher._thread.join()
    assert quiet == [False, False]


def test_broker_that_is_away_for_a_moment_is_borne_with() -> None:
    prefetcher, wakeup = started(Scripted(Unavailable("away"), chunk("a", 1)))
    assert len(all_of(prefetcher, wakeup)) == 1
    prefetcher.close()


def test_feed_is_quiet_when_a_read_has_waited_in_vain() -> None:
    class Silent(Scripted):
        def read(self, rows_max: int, wait_s: float) -> Chunk | None:
            return super().read(rows_max, wait_s) if self.answers else None

        @property
        def finished(self) -> bool:
            return False

    prefetcher, wakeup = started(Silent(chunk("a", 1)))
    next_of(prefetcher, wakeup)
    while not prefetcher.quiet:
        wakeup.wait(PATIENCE_S)
    assert not prefetcher.finished
    prefetcher.close()


def test_feed_is_not_quiet_while_rows_are_on_their_way() -> None:
    """The third read finds nothing, as the one before; but it began when everything was there."""

    class Late(Scripted):
        @property
        def behind(self) -> bool:
            quiet.append(prefetcher.quiet)
            return len(quiet) < 3

    quiet: list[bool] = []
    prefetcher, wakeup = prepared(Late(None, None, None))
    prefetcher.start(None)
    while not prefetcher.finished:
        wakeup.wait(PATIENCE_S)
    assert quiet == [False, False, False] and prefetcher.quiet
    prefetcher.close()


def test_asking_how_far_a_source_is_bears_with_a_broker_that_is_away() -> None:
    answers: Iterator[Progress | Exception] = iter([Progress(7, 1, "rows"), Unavailable("away")])

    class Asked(Scripted):
        def progress(self) -> Progress:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    prefetcher, _ = started(Asked(None))
    assert [prefetcher.progress().done, prefetcher.progress().done] == [7, 7]
    prefetcher.close()


def test_batch_counts_origins_through_its_chunks() -> None:
    batch = Batch()
    for name, rows in (("a", 3), ("b", 0), ("c", 2)):
        batch.add("s", chunk(name, rows))
    batch.add("t", chunk("d", 2))
    inputs = batch.inputs()
    assert inputs["s"].column(ORIGIN).to_pylist() == [0, 1, 2, 3, 4]
    assert [batch.dead_of(origin, "r", "x").message_id for origin in (0, 2, 3, 4, 5, 6)] == [
        "a:0", "a:2", "c:0", "c:1", "d:0", "d:1",
    ]  # fmt: skip
    assert (batch.rows, batch.size_bytes, len(batch.claims())) == (7, 7, 4)
