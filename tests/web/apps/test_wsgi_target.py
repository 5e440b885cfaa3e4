"""A WSGI application in the same process, on exchanges without a client."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from headrace.errors import InvalidParameter
from headrace.web.apps.wsgi_target import WINDOW_BYTES, WsgiTarget
from tests.patience import PATIENCE_S
from tests.web.fakes import FakeExchange


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def serving(app: Any, threads: int = 2) -> AsyncIterator[WsgiTarget]:
    target = WsgiTarget(app, threads=threads)
    yield target
    assert await target.close(PATIENCE_S)
    assert target.in_flight == 0


def descriptors_of(path: Path) -> int:
    """Of this process; other threads of the tests may open and close others meanwhile."""
    wanted = path.stat()
    found = 0
    for link in Path("/dev/fd").iterdir():
        with suppress(OSError):
            found += os.path.samestat(os.fstat(int(link.name)), wanted)
    return found


async def done(exchange: FakeExchange) -> FakeExchange:
    await asyncio.wait_for(exchange.done.wait(), PATIENCE_S)
    return exchange


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what threads do sets no event here
            await asyncio.sleep(0)


def echo(environ: Any, start_response: Any) -> Any:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode() + b" " + body]


@on_a_loop
async def test_request_is_answered_whole() -> None:
    async with serving(echo) as target:
        exchange = FakeExchange("POST", "/a", body=b"abc")
        target(exchange)
        assert (await done(exchange)).log == ["respond 200"]
        assert exchange.text == "/a abc"


@on_a_loop
async def test_validator_has_nothing_to_say() -> None:
    async with serving(validator(iter_of)) as target:
        for method in ("GET", "HEAD"):
            exchange = FakeExchange(method, "/%C3%A4?x=1")
            target(exchange)
            assert (await done(exchange)).whole


def iter_of(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([b"one", b"two"])


@on_a_loop
async def test_many_requests_go_through_few_threads() -> None:
    freed = []
    async with serving(echo) as target:
        target.on_free = lambda: freed.append(target.in_flight)
        exchanges = [FakeExchange(target=f"/{number}") for number in range(500)]
        for exchange in exchanges:
            target(exchange)
        assert target.in_flight == 500
        for number, exchange in enumerate(exchanges):
            assert (await done(exchange)).text == f"/{number} "
        await until(lambda: not target.in_flight)
    assert (len(freed), min(freed), target.requests) == (500, 0, 500)


@on_a_loop
async def test_body_that_arrives_later_is_read_as_it_comes() -> None:
    async with serving(echo) as target:
        exchange = FakeExchange("POST", "/", {"Expect": "100-continue"}, body=None)
        target(exchange)
        await until(lambda: exchange.invited)
        exchange.arrive(b"ab")
        exchange.arrive(b"c")
        exchange.end()
        assert (await done(exchange)).text == "/ abc"


@on_a_loop
async def test_body_is_not_taken_ahead_of_the_app_beyond_the_window() -> None:
    begun, going_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"]
        body.read(1)
        begun.set()
        assert going_on.wait(PATIENCE_S)
        size = 1 + len(body.read())
        start_response("200 OK", [])
        return [str(size).encode()]

    async with serving(app) as target:
        exchange = FakeExchange("POST", body=None)
        target(exchange)
        await until(lambda: exchange.invited)
        exchange.arrive(b"x" * 50_000)
        await until(begun.is_set)
        for _ in range(49):
            exchange.arrive(b"x" * 50_000)
        assert exchange.taken < 2 * WINDOW_BYTES
        exchange.end()
        going_on.set()
        assert (await done(exchange)).text == "2500000"


@on_a_loop
async def test_cut_body_raises_into_the_app() -> None:
    async with serving(echo) as target:
        exchange = FakeExchange("POST", body=None)
        target(exchange)
        await until(lambda: exchange.invited)
        exchange.arrive(b"abc")
        exchange.leave()
        await until(lambda: not target.in_flight)
        assert exchange.log == []


@on_a_loop
async def test_stream_waits_for_a_client_that_does_not_take() -> None:
    made = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(200):
            made.append(number)
            yield b"x" * 50_000

    async with serving(app) as target:
        exchange = FakeExchange()
        exchange.block()
        target(exchange)
        await until(lambda: len(made) >= WINDOW_BYTES // 50_000)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(made) <= WINDOW_BYTES // 50_000 + 2
        exchange.unblock()
        assert len((await done(exchange)).body) == 10_000_000
        assert exchange.log[-1] == "finish"


@pytest.mark.parametrize("blocked", [False, True])
@on_a_loop
async def test_client_that_leaves_stops_the_stream(blocked: bool) -> None:
    closed = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 70_000
        finally:
            closed.set()

    async with serving(app) as target:
        exchange = FakeExchange()
        target(exchange)
        await until(lambda: len(exchange.log) > 2)
        if blocked:
            exchange.block()
            await until(lambda: exchange.sent_bytes)
        exchange.leave()
        await until(closed.is_set)


@on_a_loop
async def test_client_that_left_in_the_queue_is_not_served() -> None:
    running, going_on, served = threading.Event(), threading.Event(), []

    def app(environ: Any, start_response: Any) -> Any:
        served.append(environ["PATH_INFO"])
        running.set()
        assert going_on.wait(PATIENCE_S)
        start_response("200 OK", [])
        return [b""]

    async with serving(app, threads=1) as target:
        first, second = FakeExchange(target="/1"), FakeExchange(target="/2")
        target(first)
        target(second)
        await until(running.is_set)
        second.leave()
        going_on.set()
        await done(first)
    assert served == ["/1"]


@on_a_loop
async def test_broken_app_is_500_and_a_broken_stream_is_aborted() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/late":
            start_response("200 OK", [])
            yield b"a"
        raise ValueError

    async with serving(app) as target:
        early, late = FakeExchange(target="/"), FakeExchange(target="/late")
        target(early)
        target(late)
        assert (await done(early)).status == 500
        assert (await done(late)).aborted
        assert late.log == ["start 200", "send 1", "abort"]


@on_a_loop
async def test_file_is_sent_by_descriptor_and_all_descriptors_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    async with serving(app) as target:
        taking, blocked = FakeExchange(), FakeExchange()
        blocked.block()
        target(taking)
        target(blocked)
        assert bytes((await done(taking)).body) == path.read_bytes()
        assert taking.log == ["start 200", "file 300000", "finish"]
        await until(lambda: not target.in_flight)
        blocked.leave()
        assert descriptors_of(path) == 0


@on_a_loop
async def test_slow_work_after_the_answer_keeps_the_thread_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.web.apps.wsgi.SLOW_CLOSE_S", -1.0)  # every work afterwards is slow
    going_on = threading.Event()

    class Slow(list[bytes]):
        def close(self) -> None:
            assert going_on.wait(PATIENCE_S)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "1")])
        return Slow([b"x"]) if environ["PATH_INFO"] == "/slow" else [b"x"]

    async with serving(app, threads=1) as target:
        first, second = FakeExchange(), FakeExchange(target="/slow")
        target(first)
        await done(first)
        await until(lambda: not target.in_flight)
        target(second)
        assert (await done(second)).text == "x"
        assert target.in_flight == 1
        going_on.set()
        await until(lambda: not target.in_flight)


@on_a_loop
async def test_close_waits_for_what_runs_and_refuses_the_rest() -> None:
    running, going_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        running.set()
        assert going_on.wait(PATIENCE_S)
        start_response("200 OK", [])
        return [b"done"]

    target = WsgiTarget(app, threads=1)
    exchange, late = FakeExchange(), FakeExchange()
    target(exchange)
    await until(running.is_set)
    assert not await target.close(0.0)
    target(late)
    assert late.status == 503
    going_on.set()
    assert await target.close(PATIENCE_S)
    assert exchange.text == "done"


@on_a_loop
async def test_no_threads_are_refused() -> None:
    with pytest.raises(InvalidParameter):
        WsgiTarget(echo, threads=0)
