from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

import headrace
import headrace.stream as hs
from headrace.stream import limits, plan
from headrace.stream.errors import SinkFailed
from headrace.stream.runner import state_keys
from headrace.stream.runner.sink_set import DeliveryQueue, _parts
from headrace.stream.runner.source_set import Wakeup
from headrace.stream.sinks.base import Outbox
from tests.patience import PATIENCE_S
from tests.stream.runner.pipelines import copied, event, send


class Sink(Outbox):
    """Takes what a test lets it."""

    name = "sink"

    def __init__(self, answer: Callable[[int], None] = lambda _: None) -> None:
        self.delivered: list[tuple[int, bytes]] = []
        self.collected: list[bytes] = []
        self.closed = False
        self._answer = answer

    def stage(self, batch: int, rows: object, *, token: str | None = None) -> bytes:
        return b"%d" % batch

    def deliver(self, batch: int, staged: bytes) -> None:
        self._answer(batch)
        self.delivered.append((batch, staged))

    def collect(self, staged: Sequence[bytes]) -> None:
        self.collected = list(staged)

    def close(self) -> None:
        self.closed = True


def started(sink: Sink, *left: tuple[int, bytes], retry_timeout_s: float | None = None) -> tuple[DeliveryQueue, Wakeup]:
    wakeup = Wakeup()
    deliveries = DeliveryQueue(sink, wakeup=wakeup, retry_timeout_s=retry_timeout_s)
    deliveries.start(list(left))
    return deliveries, wakeup


def done(deliveries: DeliveryQueue, wakeup: Wakeup, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        wakeup.wait(PATIENCE_S)
        found += deliveries.take_done()
    return found


def test_batches_are_delivered_in_order_those_left_first() -> None:
    sink = Sink()
    deliveries, wakeup = started(sink, (3, b"3"), (4, b"4"))
    deliveries.put(5, b"5")
    assert done(deliveries, wakeup, 3) == [3, 4, 5]
    assert sink.delivered == [(3, b"3"), (4, b"4"), (5, b"5")] and sink.collected == [b"3", b"4"]
    deliveries.close()
    assert sink.closed


def test_failed_batch_comes_again_before_the_next() -> None:
    failures = iter([True, True, False, False])

    def refuse(_: int) -> None:
        if next(failures):
            raise SinkFailed("sink", "busy")

    sink = Sink(refuse)
    deliveries, wakeup = started(sink)
    deliveries.put(1, b"1")
    deliveries.put(2, b"2")
    assert done(deliveries, wakeup, 2) == [1, 2]
    assert [number for number, _ in sink.delivered] == [1, 2]
    deliveries.close()


def test_patience_ends_with_the_error() -> None:
    def refuse(_: int) -> None:
        raise SinkFailed("sink", "broken")

    deliveries, wakeup = started(Sink(refuse), retry_timeout_s=0.01)
    deliveries.put(1, b"1")
    with pytest.raises(SinkFailed, match="broken"):
        done(deliveries, wakeup, 1)
    deliveries.close()


def test_it_is_full_when_a_sink_is_behind() -> None:
    gate = threading.Event()

    def wait(_: int) -> None:
        assert gate.wait(PATIENCE_S)

    deliveries, wakeup = started(Sink(wait))
    for number in range(limits.OUTBOX_BATCHES_MAX):
        assert not deliveries.full
        deliveries.put(number, b"")
    assert deliveries.full
    gate.set()
    done(deliveries, wakeup, limits.OUTBOX_BATCHES_MAX)
    assert not deliveries.full
    deliveries.close()


def test_close_does_not_wait_for_a_sink_that_fails() -> None:
    tried = threading.Event()

    def refuse(_: int) -> None:
        tried.set()
        raise SinkFailed("sink", "down")

    sink = Sink(refuse)
    deliveries, _ = started(sink)
    deliveries.put(1, b"1")
    assert tried.wait(PATIENCE_S)
    deliveries.close()
    assert sink.closed and deliveries.under_way == 1


def test_sink_that_fails_for_good_ends_the_run_even_if_it_is_far_behind(client: headrace.Client) -> None:
    """When no more may be given to it, nobody puts another batch, and nobody would look."""
    go_on = threading.Event()

    def fails(batch: int, rows: pa.Table) -> None:
        assert go_on.wait(PATIENCE_S)
        raise ValueError("no more")

    failed: list[Exception] = []

    def run() -> None:
        try:
            copied(sink=hs.callback(fails)).run(client, batch_rows=1, stop=stop)
        except ValueError as error:
            failed.append(error)

    send(client, [event(number) for number in range(10)])
    stop = threading.Event()
    runner = threading.Thread(target=run)
    runner.start()
    outbox = state_keys.outbox_key(0, 0)
    while len(client.state(state_keys.state_name("copied"), outbox)) < limits.OUTBOX_BATCHES_MAX:
        assert not stop.wait(0.01)
    go_on.set()
    runner.join(PATIENCE_S)
    stop.set()
    runner.join()
    assert len(failed) == 1


def test_rows_are_staged_in_halves_until_each_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal shares would put all the long ones into one."""
    monkeypatch.setattr(limits, "STAGED_BYTES_MAX", 1_000)
    rows = pa.table({"v": ["x" * 300] * 9 + ["y"] * 400})
    parts = list(_parts(rows, plan.ConsoleSink()))
    assert max(part.nbytes for part in parts) <= 1_000
    assert pa.concat_tables(parts).equals(rows)
