"""The same queue before an application in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.dispatch.local_dispatcher import LocalDispatcher
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange
from tests.web.scripted import Clock, answered


class Threads:
    """A target with threads, which the test plays."""

    capacity = 2

    def __init__(self) -> None:
        self.given: list[Exchange] = []
        self.in_flight = 0
        self.on_free: Callable[[], None] | None = None

    def __call__(self, exchange: Exchange) -> None:
        self.given.append(exchange)
        self.in_flight += 1

    def free(self) -> None:
        self.in_flight -= 1
        assert self.on_free is not None
        self.on_free()


def ok(exchange: Exchange) -> None:
    exchange.respond(200, Fields(), b"ok")


class Rig:
    def __init__(self, target: Any, *, capacity: int = 2, **settings: Any) -> None:
        self.hung: list[int] = []
        self.dispatcher = LocalDispatcher(
            target, capacity=capacity, ahead=0, chance=lambda: 0.0, on_hung=self.hung.append, **settings
        )

    def ask(self, method: str = "GET", **kwargs: Any) -> FakeExchange:
        exchange = FakeExchange(method, **kwargs)
        self.dispatcher(exchange)
        return exchange

    def close(self) -> None:
        if self.dispatcher._timer is not None:
            self.dispatcher._timer.cancel()


@on_loop
async def test_no_more_than_its_threads_are_given(tmp_path: Path) -> None:
    threads = Threads()
    rig = Rig(threads)
    exchanges = [rig.ask() for _ in range(4)]
    assert len(threads.given) == 2 and rig.dispatcher.statistics().queue_length == 2
    threads.in_flight -= 1
    ok(threads.given[0])
    assert len(threads.given) == 3 and exchanges[0].whole
    rig.close()


@on_loop
async def test_one_more_for_each_thread_is_ready() -> None:
    threads = Threads()
    dispatcher = LocalDispatcher(threads, capacity=2)
    exchanges = [FakeExchange() for _ in range(6)]
    for exchange in exchanges:
        dispatcher(exchange)
    assert threads.given == exchanges[:4]
    assert dispatcher._timer is not None
    dispatcher._timer.cancel()


@on_loop
async def test_thread_of_a_client_that_left_is_busy_until_it_says_so() -> None:
    threads = Threads()
    rig = Rig(threads, capacity=1)
    left, waits = rig.ask(), rig.ask()
    left.leave()
    assert threads.given == [left] and rig.dispatcher.statistics().client_disconnects == 1
    threads.free()
    assert threads.given == [left, waits]
    rig.close()


@on_loop
async def test_access_log_is_told_before_the_queue() -> None:
    order: list[str] = []
    rig = Rig(ok, capacity=1, adaptive=False)
    exchange = FakeExchange()
    exchange.on_done = lambda _: order.append(f"running {len(rig.dispatcher.running)}")
    rig.dispatcher(exchange)
    assert order == ["running 1"] and not rig.dispatcher.running
    rig.close()


@on_loop
async def test_long_queue_before_a_target_that_answers_at_once_is_no_deep_recursion() -> None:
    held: list[Exchange] = []

    def target(exchange: Exchange) -> None:
        if exchange.path == "/hold":
            held.append(exchange)
        else:
            ok(exchange)

    rig = Rig(target, capacity=1, adaptive=False, queue_size=5_000)
    rig.ask(target="/hold")
    exchanges = [rig.ask() for _ in range(3_000)]
    ok(held[0])
    assert all(exchange.whole for exchange in exchanges)
    rig.close()


@on_loop
async def test_body_is_whole_before_a_thread_gets_it() -> None:
    threads = Threads()
    rig = Rig(threads)
    exchange = rig.ask("POST", body=None)
    exchange.arrive(b"ab")
    assert threads.given == []
    exchange.end()
    [given] = threads.given
    assert given.take() == b"ab" and given.length == 2
    ok(given)
    assert exchange.whole
    rig.close()


@on_loop
async def test_full_queue_and_old_requests_are_503() -> None:
    clock = Clock()
    rig = Rig(Threads(), capacity=2, queue_size=1, queue_timeout_s=2.0, now_s=clock)
    _, _, waits, refused = [rig.ask() for _ in range(4)]
    assert refused.status == 503 and refused.refused == "queue-full"
    clock.now_s += 2.0
    rig.dispatcher.advance(clock.now_s)
    assert waits.status == 503
    rig.close()


@on_loop
async def test_hung_request_is_504_and_this_process_is_reported() -> None:
    clock = Clock()
    rig = Rig(Threads(), request_timeout_s=3.0, now_s=clock)
    exchange = rig.ask()
    clock.now_s += 3.0
    rig.dispatcher.advance(clock.now_s)
    assert exchange.status == 504 and rig.hung == [os.getpid()]
    rig.close()


@on_loop
async def test_target_that_raises_is_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken(exchange: Exchange) -> None:
        raise ValueError("no")

    rig = Rig(broken)
    exchange = rig.ask()
    assert exchange.status == 500 and not rig.dispatcher.running
    assert [record.__dict__["action"] for record in caplog.records] == ["web.request.failed"]
    rig.close()


@on_loop
async def test_late_loop_lets_fewer_in() -> None:
    """The clock says how late the probe of the loop is."""
    clock = Clock()
    held: list[Exchange] = []
    rig = Rig(held.append, capacity=100, now_s=clock)
    for _ in range(20):
        rig.ask()
    assert len(held) == 16
    clock.now_s += 1.0
    rig.dispatcher._on_probe()
    for exchange in held[:6]:
        ok(exchange)
    assert len(held) == 16 + 1, "11 may be in now"
    for exchange in held:
        if not exchange.answered:
            ok(exchange)
    rig.close()


@on_loop
async def test_quick_loop_lets_more_in() -> None:
    held: list[Exchange] = []
    rig = Rig(held.append, capacity=100, now_s=Clock())
    exchanges = [rig.ask() for _ in range(40)]
    while len(held) < 40:
        ok(next(exchange for exchange in held if not exchange.answered))
        await answered(exchanges[0])
    rig.close()
