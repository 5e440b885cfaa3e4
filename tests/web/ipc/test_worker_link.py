"""Frames on a link: windows both ways, files, tunnels, and what no worker sends."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.web.dispatch.limits import CONSUMED_BYTES
from headrace.web.ipc import frames
from headrace.web.ipc.frames import COUNT, HEAD, HEADER, PIECE_BYTES_MAX, WINDOW_BYTES, File, Hello, Kind
from headrace.web.ipc.stream_flow import open_of_process
from tests.http.support import on_loop
from tests.web.scripted import Given, Rig, Worker, answered, dispatching, head


async def begun(rig: Rig, *, length: int = -1) -> tuple[Worker, Given]:
    worker = await rig.thread()
    rig.ask()
    request = await worker.request()
    worker.begin(request, length=length)
    return worker, request


# The body


@on_loop
async def test_long_body_follows_in_pieces_within_the_window(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        body = os.urandom(1_000_000)
        exchange = rig.ask("POST", body=body)
        request = await worker.request()
        assert not request.head.ended and request.head.length == len(body)
        received = [request.body]
        while sum(map(len, received)) < WINDOW_BYTES:
            kind, _, piece = await worker.frame()
            assert kind is Kind.BODY and len(piece) <= PIECE_BYTES_MAX
            received.append(piece)
        assert sum(map(len, received)) == WINDOW_BYTES, "and no more until it is consumed"
        worker.consumed(request, WINDOW_BYTES)
        request.body = b""
        rest = await worker.rest_of_body(request)
        assert b"".join(received) + rest == body
        worker.answer(request)
        assert (await answered(exchange)).status == 200


@on_loop
async def test_client_is_not_read_beyond_the_window(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("POST", body=None)
        request = await worker.request()
        for _ in range(10):
            exchange.arrive(bytes(50_000))
        assert WINDOW_BYTES <= exchange.taken <= WINDOW_BYTES + 50_000
        exchange.end()
        assert len(await worker.rest_of_body(request)) == 500_000


@on_loop
async def test_expecting_client_is_invited_when_the_application_asks(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("POST", body=None, headers={"Expect": "100-continue"})
        request = await worker.request()
        assert request.head.expects and not exchange.invited
        worker.consumed(request, 0)
        await rig.until(lambda: exchange.invited)
        exchange.arrive(b"body")
        exchange.end()
        assert await worker.rest_of_body(request) == b"body"


@on_loop
async def test_answer_before_the_body_has_come_ends_the_stream(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        exchange = rig.ask("POST", body=None)
        request = await worker.request()
        worker.answer(request, b"no", 413)
        await answered(exchange)
        worker.consumed(request, 0)  # crossed the end
        rig.ask()
        worker.answer(await worker.request())
        assert exchange.status == 413 and rig.links == 1


# The answer


@on_loop
async def test_answer_in_pieces(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        request = await worker.request()
        worker.send(Kind.INFORM, request.number, head(103, block=b"Link: </a>\r\n"))
        worker.begin(request, length=6)
        worker.data(request, b"abc")
        worker.data(request, b"def")
        worker.end(request)
        await answered(exchange)
        assert exchange.log == ["inform 103", "start 200", "send 3", "send 3", "finish"] and exchange.text == "abcdef"


@on_loop
async def test_slow_client_holds_back_only_its_own_stream(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        slow, quick = rig.ask(), rig.ask()
        request, other = await worker.request(), await worker.request()
        slow.block()
        worker.begin(request)
        for _ in range(4):
            worker.data(request, bytes(PIECE_BYTES_MAX))
        worker.answer(other)
        await answered(quick)
        assert slow.log == ["start 200"], "nothing is pushed at it, and nothing is consumed"
        slow.unblock()
        assert len(slow.body) == 4 * PIECE_BYTES_MAX
        for _ in range(4):
            assert await worker.frame() == (Kind.CONSUMED, request.number, COUNT.pack(CONSUMED_BYTES))


@on_loop
async def test_thread_is_free_before_a_slow_client_has_taken_the_end(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        slow, waits = rig.ask(), rig.ask()
        slow.block()
        request = await worker.request()
        worker.begin(request)
        worker.data(request, b"the end")
        worker.end(request)
        worker.answer(await worker.request())
        await answered(waits)
        assert not slow.whole
        worker.die()
        await rig.until(lambda: rig.links == 0)
        slow.unblock()
        assert slow.whole and slow.text == "the end"


@on_loop
async def test_client_that_leaves_over_a_held_answer_frees_it(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        slow = rig.ask()
        slow.block()
        request = await worker.request()
        worker.begin(request)
        worker.data(request, b"x")
        await rig.until(lambda: slow.answered)
        slow.leave()
        assert (await worker.frame())[0] is Kind.GONE
        worker.data(request, bytes(PIECE_BYTES_MAX))
        assert (await worker.frame())[0] is Kind.CONSUMED, "what goes nowhere is consumed"
        worker.end(request)
        await rig.until(lambda: not rig.dispatcher.running)


@on_loop
async def test_answer_that_ends_short_is_cut(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        request = await worker.request()
        worker.begin(request, length=10)
        worker.data(request, b"short")
        worker.end(request)
        await answered(exchange)
        assert exchange.aborted and rig.links == 1


@on_loop
async def test_answer_that_is_too_long_is_cut(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        request = await worker.request()
        worker.begin(request, length=2)
        worker.data(request, b"long")
        worker.end(request)
        await answered(exchange)
        assert exchange.aborted and exchange.body == b"lo"


@on_loop
async def test_answer_that_the_worker_gives_up(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=10)
        begun, not_begun = rig.ask(), rig.ask()
        request, other = await worker.request(), await worker.request()
        worker.begin(request)
        worker.send(Kind.GONE, request.number)
        worker.send(Kind.GONE, other.number)
        await answered(begun)
        assert begun.aborted and (await answered(not_begun)).status == 502


@on_loop
async def test_long_answer_in_one_frame(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        exchange = rig.ask()
        body = os.urandom(5_000_000)
        worker.answer(await worker.request(), body)
        assert (await answered(exchange)).body == body


# Files


@on_loop
async def test_file_is_opened_from_the_worker_s_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(pid=os.getpid())
        exchange = rig.ask()
        request = await worker.request()
        with file.open("rb") as opened:
            worker.begin(request, length=5)
            worker.file(request, fd=opened.fileno(), offset=2, count=5)
            assert await worker.frame() == (Kind.CONSUMED, request.number, COUNT.pack(frames.FILE_OPENED))
        worker.end(request)
        await answered(exchange)
        assert exchange.text == "23456" and "file 5" in exchange.log


@on_loop
async def test_file_waits_for_its_turn(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(pid=os.getpid())
        exchange = rig.ask()
        exchange.block()
        request = await worker.request()
        worker.begin(request)
        worker.data(request, b"a")
        with file.open("rb") as opened:
            worker.file(request, fd=opened.fileno(), offset=0, count=10)
            worker.data(request, b"z")
            worker.end(request)
            await rig.until(lambda: not rig.dispatcher.running)
            exchange.unblock()
        assert exchange.text == "a0123456789z" and exchange.whole


@on_loop
async def test_file_of_a_process_that_is_not_at_the_other_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(pid=os.getpid() + 1)
        rig.ask()
        request = await worker.request()
        with file.open("rb") as opened:
            worker.begin(request)
            worker.file(request, fd=opened.fileno(), offset=0, count=10)
            assert await worker.frame() == (Kind.CONSUMED, request.number, COUNT.pack(frames.FILE_REFUSED))


def test_only_regular_files_and_what_they_have_are_opened(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    reading, writing = os.pipe()
    with file.open("rb") as opened:
        fd = opened.fileno()
        for bad in (File(reading, 0, 1), File(fd, 5, 6), File(fd, -1, 1), File(fd, 0, -1), File(9_999, 0, 1)):
            assert open_of_process(os.getpid(), bad) is None
        good = open_of_process(os.getpid(), File(fd, 5, 5))
    assert good is not None and os.pread(good[0], 5, 5) == b"56789"
    for number in (reading, writing, good[0]):
        os.close(number)


# Tunnels


@on_loop
async def test_tunnel_carries_both_ways_and_takes_no_place(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=1)
        exchange, waits = rig.ask(upgrade=b"websocket"), rig.ask()
        request = await worker.request()
        worker.begin(request, 101)
        exchange.arrive(b"ping")
        worker.answer(await worker.request())
        await answered(waits)
        assert await worker.frame() == (Kind.BODY, request.number, b"ping")
        worker.data(request, b"pong")
        await rig.until(lambda: exchange.body == b"pong")
        statistics = rig.dispatcher.statistics()
        assert (statistics.in_flight, statistics.workers[0].in_flight) == (1, 0)
        worker.end(request)
        await answered(exchange)
        assert exchange.log == ["tunnel", "send 4", "finish"]
        assert statistics.routes[""].run.count == 1, "a tunnel's time is not a request's"


@on_loop
async def test_tunnel_is_cut_when_its_worker_dies(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread(interface="asgi", capacity=1)
        exchange = rig.ask(upgrade=b"websocket")
        worker.begin(await worker.request(), 101)
        await rig.until(lambda: exchange.answered)
        worker.die()
        await answered(exchange)
        assert exchange.aborted


# What no worker sends

_NESTED = b"\x91" * 20_000  # msgpack that opens one list in another


def _hello(payload: bytes) -> bytes:
    return HEADER.pack(len(payload), 0, Kind.HELLO) + payload


@pytest.mark.parametrize(
    ("kind", "number", "payload"),
    [
        (Kind.REQUEST, 1, b""),
        (Kind.BODY, 1, b""),
        (99, 1, b""),
        (Kind.ANSWER, 1, b""),
        (Kind.ANSWER, 1, HEAD.pack(200, 0, -1, 100)),
        (Kind.ANSWER, 1, HEAD.pack(700, 0, -1, 0)),
        (Kind.ANSWER, 1, HEAD.pack(200, 0, 5, 0) + b"four"),
        (Kind.HEAD, 1, HEAD.pack(99, 0, -1, 0)),
        (Kind.HEAD, 1, HEAD.pack(101, 0, -1, 0)),
        (Kind.DATA, 1, b"before a head"),
        (Kind.ENDED, 1, b""),
        (Kind.FILE, 1, b""),
        (Kind.CONSUMED, 1, b"\x00"),
        (Kind.ANSWER, 7, HEAD.pack(200, 0, -1, 0)),
        (Kind.PONG, 0, b""),
        (Kind.HELLO, 0, msgspec.msgpack.encode(Hello(1, 1, "wsgi", 1))),
    ],
)
@on_loop
async def test_malformed_frame_ends_the_link(tmp_path: Path, kind: int, number: int, payload: bytes) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.thread()
        rig.ask("POST", body=None).end()
        await worker.request()
        worker.send(kind, number, payload)
        if kind == Kind.CONSUMED:  # nothing is owed: it is not read
            worker.send(99, 0)
        await worker.left()
        await rig.until(lambda: rig.links == 0)


@pytest.mark.parametrize(
    "first",
    [
        HEADER.pack(0, 0, Kind.LEAVE),
        HEADER.pack(3, 0, Kind.HELLO) + b"abc",
        HEADER.pack(0xFFFFFFFF, 0, Kind.HELLO),
        _hello(msgspec.msgpack.encode(Hello(1, 1, "cgi", 1))),
        _hello(msgspec.msgpack.encode(Hello(1, 1, "wsgi", 1, [], -1))),
        _hello(msgspec.msgpack.encode(Hello(1, 1, "wsgi", 1, [], 1 << 32))),
        _hello(b"\x94\x01\x01\xa1\xff\x01"),  # no UTF-8
        _hello(b"\x97\x01\x01\xa4wsgi\x01\x90\x00" + _NESTED),
    ],
)
@on_loop
async def test_stranger_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture, first: bytes) -> None:
    async with dispatching(tmp_path) as rig:
        worker = await rig.connect()
        worker.writer.write(first)
        assert await worker.left() == b""
        assert [record.action for record in caplog.records] == ["web.link.malformed"]  # type: ignore[attr-defined]


@on_loop
async def test_file_that_cannot_be_read_ends_the_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with dispatching(tmp_path) as rig:
        worker, request = await begun(rig)
        caplog.clear()
        worker.send(Kind.FILE, request.number, b"\x94\x00\x00\x01" + _NESTED)
        await worker.left()
        assert "web.link.malformed" in [record.action for record in caplog.records]  # type: ignore[attr-defined]


@on_loop
async def test_overrun_window_ends_the_link(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker, request = await begun(rig)
        [queued] = rig.dispatcher.running
        queued.exchange.block()  # type: ignore[attr-defined]  # it is a fake
        for _ in range(5):
            worker.data(request, bytes(PIECE_BYTES_MAX))
        await worker.left()


@on_loop
async def test_second_file_before_the_first_was_answered_ends_the_link(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        worker, request = await begun(rig)
        [queued] = rig.dispatcher.running
        queued.exchange.block()  # type: ignore[attr-defined]  # it is a fake
        for _ in range(2):
            worker.file(request, fd=0, offset=0, count=1)
        await worker.left()


@on_loop
async def test_second_answer_ends_the_link(tmp_path: Path) -> None:
    for kind in (Kind.HEAD, Kind.ANSWER):
        async with dispatching(tmp_path) as rig:
            worker, request = await begun(rig)
            worker.send(kind, request.number, head())
            await worker.left()


@on_loop
async def test_socket_is_only_for_its_owner(tmp_path: Path) -> None:
    async with dispatching(tmp_path) as rig:
        assert rig.path.stat().st_mode & 0o777 == 0o600


_PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda kind, number, payload: HEADER.pack(len(payload), number, kind) + payload,
            st.integers(0, 16),
            st.integers(0, 2),
            st.binary(max_size=30),
        ),
    ),
    max_size=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(pieces=_PIECES)
def test_any_bytes_end_the_link_at_worst(tmp_path: Path, pieces: list[bytes]) -> None:
    @on_loop
    async def run() -> None:
        async with dispatching(tmp_path) as rig:
            worker = await rig.thread()
            exchange = rig.ask("POST", body=b"x")
            await worker.request()
            worker.writer.write(b"".join(pieces))
            worker.writer.close()
            await rig.until(lambda: rig.links == 0)
            assert exchange.whole or exchange.aborted
            assert not rig.dispatcher.running and not rig.dispatcher.statistics().workers

    run()
