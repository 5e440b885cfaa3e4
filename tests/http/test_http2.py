"""Requests and answers as streams of an HTTP/2 connection: bodies, windows, ends, deadlines, departures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h2.events
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame

from headrace.http.exchange import Exchange, LengthMismatch
from headrace.http.fields import FieldInvalid, Fields
from headrace.http.h2_exchange import ANSWER_BYTES_MAX
from headrace.http.h2_frames import Code
from headrace.http.h2_protocol import CONNECTION_ROOM, STREAM_ROOM, STREAMS_MAX
from headrace.http.limits import Limits
from tests.http import h2_frames as frames
from tests.http.h2_frames import frame
from tests.http.h2_support import PLAIN, LibraryClient, Pair, RawClient, request_head
from tests.http.support import on_loop

UPLOAD = request_head(b"POST", b"/up")
LARGE = Limits(body_bytes=1 << 30)


def hello(exchange: Exchange) -> None:
    exchange.respond(200, PLAIN, b"hello")


def echo(exchange: Exchange) -> None:
    """Streams the body back, waiting in both directions."""

    def go() -> None:
        while exchange.writable and not exchange.gone:
            data = exchange.take()
            if data:
                exchange.send(data)
            else:
                if exchange.ended:
                    exchange.notify = None
                    exchange.finish()
                return

    exchange.start(200, PLAIN)
    exchange.notify = go
    go()


def counting(exchange: Exchange) -> list[None]:
    calls: list[None] = []
    exchange.notify = lambda: calls.append(None)
    return calls


# Requests


@on_loop
async def test_request_is_presented_like_http1s() -> None:
    client = RawClient()
    more = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x", b"1"), (b"x", b"2")]
    client.feed(client.head(1, request_head(b"PUT", b"/a%20b?c=d", *more)))
    (exchange,) = client.exchanges
    assert (exchange.method, exchange.target, exchange.path, exchange.query) == ("PUT", "/a%20b?c=d", "/a%20b", "c=d")
    assert exchange.headers == {b"host": b"localhost", b"cookie": b"a=1; b=2", b"x": b"1, 2"}
    assert (exchange.version, exchange.length, exchange.ended, exchange.upgrade) == ("2", 0, True, b"")
    assert (exchange.peer, exchange.peer_port, exchange.secure) == ("192.0.2.1", 5000, False)


@on_loop
async def test_body_that_came_along_is_there_when_the_target_is_called() -> None:
    seen: list[tuple[bytes, bool]] = []
    client = RawClient(lambda exchange: seen.append((exchange.take(), exchange.ended)))
    client.feed(client.head(1, UPLOAD, end=False) + frame(frames.DATA, frames.END_STREAM, 1, b"body"))
    assert seen == [(b"body", True)]


@on_loop
async def test_body_that_comes_later_is_notified_once_a_packet() -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False))
    (exchange,) = client.exchanges
    calls = counting(exchange)
    assert exchange.take() == b"" and not exchange.ended
    client.feed(frame(frames.DATA, 0, 1, b"one ") + frame(frames.DATA, 0, 1, b"two"))
    assert len(calls) == 1 and exchange.take() == b"one two" and not exchange.ended
    client.feed(frame(frames.DATA, frames.END_STREAM, 1))
    assert len(calls) == 2 and exchange.ended


@on_loop
async def test_untaken_body_is_not_acknowledged_and_taken_is() -> None:
    client = RawClient(limits=LARGE)
    client.feed(client.head(1, UPLOAD, end=False))
    for _ in range(STREAM_ROOM // 16_384):
        client.feed(frame(frames.DATA, 0, 1, bytes(16_384)))
    assert client.widened(1) == 0
    before = client.widened(0)
    assert len(client.exchanges[0].take()) == STREAM_ROOM
    await client.turn()
    assert client.widened(1) == STREAM_ROOM and client.widened(0) == before, "the connection's half is not yet used"


@on_loop
async def test_more_than_the_window_ends_the_connection_and_padding_counts() -> None:
    client = RawClient(limits=LARGE)
    client.feed(client.head(1, UPLOAD, end=False))
    for _ in range(STREAM_ROOM // 16_384):
        client.feed(frame(frames.DATA, 0, 1, bytes(16_384)))
    client.feed(frame(frames.DATA, frames.PADDED, 1, b"\x05" + bytes(5)))
    assert client.goaway() is Code.FLOW_CONTROL_ERROR and client.exchanges[0].gone


@on_loop
async def test_more_than_the_connections_window_ends_the_connection() -> None:
    client = RawClient(limits=LARGE)
    for stream in range(1, 11, 2):
        client.feed(client.head(stream, UPLOAD, end=False))
        for _ in range(STREAM_ROOM // 16_384):
            client.feed(frame(frames.DATA, 0, stream, bytes(16_384)))
    assert client.goaway() is Code.FLOW_CONTROL_ERROR
    assert all(exchange.gone for exchange in client.exchanges)


@on_loop
async def test_what_nobody_has_taken_is_given_back_when_the_stream_ends() -> None:
    client = RawClient(limits=LARGE)
    sent = 0
    for stream in range(1, 41, 2):
        client.feed(client.head(stream, UPLOAD, end=False))
        for _ in range(8):
            client.feed(frame(frames.DATA, 0, stream, bytes(16_384)))
            sent += 16_384
        client.feed(frames.reset(stream, Code.CANCEL))
    assert sent > 2 * CONNECTION_ROOM and client.alive()


@on_loop
async def test_trailers_end_the_body_and_are_dropped() -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + frame(frames.DATA, 0, 1, b"x"))
    calls = counting(client.exchanges[0])
    client.feed(client.head(1, [(b"x-sum", b"1")]))
    assert len(calls) == 1 and client.exchanges[0].ended
    assert b"x-sum" not in client.exchanges[0].headers


@on_loop
async def test_body_beyond_the_limit_is_refused_by_413() -> None:
    client = RawClient(limits=Limits(body_bytes=10_000))
    client.feed(client.head(1, UPLOAD, end=False) + frame(frames.DATA, 0, 1, bytes(9_999)))
    done: list[int] = []
    client.exchanges[0].on_done = lambda exchange: done.append(exchange.status)
    client.feed(frame(frames.DATA, 0, 1, bytes(2)))
    assert client.statuses[1] == 413 and client.ended(1)
    assert client.exchanges[0].gone and done == [413]
    client.exchanges[0].respond(200, PLAIN, b"late")
    assert client.alive()


@on_loop
async def test_100_continue_is_sent_when_the_body_is_asked_for() -> None:
    client = RawClient()
    client.feed(client.head(1, [*UPLOAD, (b"expect", b"100-continue")], end=False))
    (exchange,) = client.exchanges
    assert exchange.expects and not client.statuses
    assert exchange.take() == b"" and exchange.take() == b""
    await client.turn()
    client.collect()
    assert client.statuses == {1: 100}
    client.feed(frame(frames.DATA, frames.END_STREAM, 1, b"x"))
    exchange.respond(200, PLAIN, exchange.take())
    await client.turn()
    client.collect()
    assert client.statuses == {1: 200} and client.body(1) == b"x"


@on_loop
async def test_no_100_is_sent_behind_the_head_of_the_answer() -> None:
    client = RawClient()
    client.feed(client.head(1, [*UPLOAD, (b"expect", b"100-continue")], end=False))
    exchange = client.exchanges[0]
    exchange.start(200, PLAIN)
    exchange.take()
    exchange.finish()
    await client.turn()
    assert client.ended(1) and client.statuses == {1: 200}


@on_loop
async def test_body_sent_without_waiting_needs_no_100() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, exchange.take()))
    head = client.head(1, [*UPLOAD, (b"expect", b"100-continue")], end=False)
    client.feed(head + frame(frames.DATA, frames.END_STREAM, 1, b"x"))
    assert client.statuses == {1: 200} and client.body(1) == b"x"


@on_loop
async def test_target_that_fails_costs_its_request(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        if exchange.path == "/late":
            exchange.start(200, PLAIN)
        raise ValueError

    client = RawClient(fail)
    client.feed(client.head(1) + client.head(3, request_head(path=b"/late")))
    assert client.statuses[1] == 500 and client.ended(1)
    assert client.reset(3) is Code.INTERNAL_ERROR and not client.ended(3)
    assert client.alive() and "a target failed" in caplog.text


@on_loop
async def test_consumer_that_fails_when_notified_costs_its_request(caplog: pytest.LogCaptureFixture) -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + client.head(3))

    def fail() -> None:
        raise ValueError

    client.exchanges[0].notify = fail
    client.feed(frame(frames.DATA, 0, 1, b"x"))
    assert client.statuses == {1: 500} and not client.exchanges[1].gone
    assert client.alive() and "a target failed" in caplog.text


# Answers


@on_loop
async def test_small_answers_of_one_packet_leave_in_one_write() -> None:
    client = RawClient(hello)
    before = len(client.transport.writes)
    client.feed(b"".join([client.head(stream) for stream in range(1, 21, 2)]))
    assert len(client.transport.writes) == before + 1
    assert list(client.statuses.values()) == [200] * 10


@on_loop
async def test_answer_has_the_fields_of_the_application_and_ours() -> None:
    fields = Fields.of([(b"Content-Type", b"text/x"), (b"Set-Cookie", b"a=1"), (b"Connection", b"close")])
    client = RawClient(lambda exchange: exchange.respond(201, fields, b"xy"))
    client.feed(client.head(1))
    assert client.fields[1] == {
        b":status": b"201",
        b"content-type": b"text/x",
        b"set-cookie": b"a=1",
        b"server": b"headrace",
        b"date": b"Thu, 01 Jan 1970 00:00:00 GMT",
        b"content-length": b"2",
    }


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [(b"HEAD", 200, b"5"), (b"GET", 204, None), (b"GET", 304, None), (b"GET", 200, b"5")],
)
@on_loop
async def test_answers_without_a_body(method: bytes, status: int, length: bytes | None) -> None:
    client = RawClient(lambda exchange: exchange.respond(status, PLAIN, b"hello"))
    client.feed(client.head(1, request_head(method)))
    assert client.fields[1].get(b"content-length") == length and client.ended(1)
    assert client.body(1) == (b"hello" if (method, status) == (b"GET", 200) else b"")


@on_loop
async def test_head_whose_body_is_not_made_announces_no_length() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN))
    client.feed(client.head(1, request_head(b"HEAD")))
    assert client.ended(1) and b"content-length" not in client.fields[1]


@on_loop
async def test_streamed_head_is_ended_without_a_body() -> None:
    client = RawClient()
    client.feed(client.head(1, request_head(b"HEAD")))
    exchange = client.exchanges[0]
    exchange.start(200, Fields.of([(b"content-length", b"9")]))
    exchange.send(b"dropped")
    exchange.finish()
    await client.turn()
    assert client.ended(1) and client.body(1) == b"" and client.fields[1][b"content-length"] == b"9"


@on_loop
async def test_large_answer_waits_for_windows_and_is_cut_to_frames() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, bytes(200_000)))
    client.feed(client.head(1))
    await client.turn()
    assert len(client.body(1)) == 65_535, "both windows"
    client.feed(frames.window_update(1, 100_000))
    await client.turn()
    assert len(client.body(1)) == 65_535, "the connection's window"
    client.feed(frames.window_update(0, 50_000))
    await client.turn()
    assert len(client.body(1)) == 115_535
    client.feed(frames.window_update(0, 500_000) + frames.window_update(1, 500_000))
    await client.until(lambda: client.ended(1))
    assert len(client.body(1)) == 200_000
    assert max(len(found.data) for found in client.of(DataFrame)) == 16_384


@on_loop
async def test_streams_take_turns() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, bytes(60_000)))
    client.feed(frames.settings({4: 100_000}) + frames.window_update(0, 1_000_000))
    client.feed(b"".join([client.head(stream) for stream in (1, 3, 5)]))
    await client.until(lambda: client.ended(5))
    order = [found.stream_id for found in client.of(DataFrame)]
    assert order[:6] == [1, 3, 5, 1, 3, 5]


@on_loop
async def test_writable_says_when_to_wait_and_notify_when_to_go_on() -> None:
    client = RawClient()
    client.feed(client.head(1))
    exchange = client.exchanges[0]
    calls = counting(exchange)
    exchange.start(200, PLAIN)
    while exchange.writable:
        exchange.send(bytes(10_000))
    await client.turn()
    assert len(client.body(1)) == 65_535 and exchange.writable, "a window's worth has left"
    while exchange.writable:
        exchange.send(bytes(10_000))
    before = len(calls)
    await client.turn()
    assert len(calls) == before
    client.feed(frames.window_update(1, 40_000) + frames.window_update(0, 40_000))
    await client.turn()
    assert len(calls) == before + 1 and exchange.writable
    exchange.finish()
    client.feed(frames.window_update(1, 100_000) + frames.window_update(0, 100_000))
    await client.until(lambda: client.ended(1))


@on_loop
async def test_client_that_does_not_take_its_answers_is_not_read_from() -> None:
    client = RawClient(hello)
    client.connection.pause_writing()
    client.feed(client.head(1))
    assert not client.transport.reading
    client.connection.resume_writing()
    await client.turn()
    client.collect()
    assert client.transport.reading and client.statuses[1] == 200


@on_loop
async def test_many_small_pieces_share_frames() -> None:
    client = RawClient()
    client.feed(client.head(1))
    exchange = client.exchanges[0]
    exchange.start(200, PLAIN)
    for number in range(100):
        exchange.send(b"%03d" % number)
    exchange.finish()
    await client.turn()
    assert client.body(1) == b"".join([b"%03d" % number for number in range(100)])
    assert len(client.of(DataFrame)) == 1 and client.ended(1)


@on_loop
async def test_file_is_sent_in_pieces_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(150_000))
    client = RawClient()
    client.feed(client.head(1) + frames.window_update(0, 1_000_000) + frames.window_update(1, 1_000_000))
    exchange = client.exchanges[0]
    exchange.start(200, Fields.of([(b"content-length", b"140003")]))
    fd = os.open(path, os.O_RDONLY)
    exchange.send_file(fd, 10_000, 140_000)
    assert not exchange.writable
    exchange.send(b"end")
    exchange.finish()
    await client.until(lambda: client.ended(1))
    assert client.body(1) == path.read_bytes()[10_000:] + b"end"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@on_loop
async def test_file_that_becomes_shorter_cuts_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    client = RawClient()
    client.feed(client.head(1))
    exchange = client.exchanges[0]
    calls = counting(exchange)
    exchange.start(200, PLAIN)
    fd = os.open(path, os.O_RDONLY)
    exchange.send_file(fd, 0, 20_000)
    await client.turn()
    assert client.reset(1) is Code.INTERNAL_ERROR and not client.ended(1)
    assert exchange.gone and len(calls) == 1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@on_loop
async def test_file_of_a_client_that_leaves_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000_000))
    client = RawClient()
    client.feed(client.head(1))
    client.exchanges[0].start(200, PLAIN)
    fd = os.open(path, os.O_RDONLY)
    client.exchanges[0].send_file(fd, 0, 1_000_000)
    client.connection.connection_lost(None)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@on_loop
async def test_short_answer_is_cut_not_ended() -> None:
    client = RawClient()
    client.feed(client.head(1))
    exchange = client.exchanges[0]
    exchange.start(200, Fields.of([(b"content-length", b"10")]))
    exchange.send(b"four")
    with pytest.raises(LengthMismatch):
        exchange.finish()
    await client.turn()
    assert client.reset(1) is Code.INTERNAL_ERROR and not client.ended(1)
    assert client.alive()


@on_loop
async def test_early_hints_go_before_the_answer() -> None:
    client = RawClient()
    client.feed(client.head(1))
    client.exchanges[0].inform(103, Fields.of([(b"Link", b"</a.css>; rel=preload")]))
    await client.turn()
    client.collect()
    assert client.statuses[1] == 103 and client.fields[1][b"link"] == b"</a.css>; rel=preload"
    client.exchanges[0].respond(200, PLAIN, b"x")
    await client.turn()
    client.collect()
    assert client.statuses[1] == 200


@on_loop
async def test_only_interim_statuses_inform() -> None:
    client = RawClient()
    client.feed(client.head(1))
    for status in (99, 100, 101, 200):
        with pytest.raises(FieldInvalid):
            client.exchanges[0].inform(status, PLAIN)
    client.exchanges[0].respond(200, PLAIN)
    await client.turn()
    client.collect()
    assert client.statuses == {1: 200}


@on_loop
async def test_answer_before_the_body_lets_a_short_rest_come() -> None:
    client = RawClient(hello)
    client.feed(client.head(1, UPLOAD, end=False))
    assert client.ended(1) and client.reset(1) is None
    client.feed(frame(frames.DATA, 0, 1, bytes(16_000)) + frame(frames.DATA, frames.END_STREAM, 1, b"x"))
    assert client.reset(1) is None and not client.connection.streams and client.alive()


@on_loop
async def test_answer_before_the_body_stops_a_long_rest() -> None:
    client = RawClient(hello, LARGE)
    client.feed(client.head(1, UPLOAD, end=False))
    for _ in range(5):
        client.feed(frame(frames.DATA, 0, 1, bytes(16_384)))
    assert client.reset(1) is Code.NO_ERROR and not client.connection.streams
    client.feed(frame(frames.DATA, frames.END_STREAM, 1, b"on its way"))
    assert client.alive()


@on_loop
async def test_answer_gives_back_what_of_the_body_nobody_has_taken() -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + frame(frames.DATA, 0, 1, bytes(16_384)) * (STREAM_ROOM // 16_384))
    client.exchanges[0].respond(200, PLAIN, b"no, thanks")
    await client.turn()
    assert client.ended(1) and client.widened(1) == STREAM_ROOM
    client.advance(25)
    assert not client.connection.streams and client.alive()


@on_loop
async def test_body_that_was_never_invited_is_not_waited_for_behind_its_answer() -> None:
    client = RawClient(hello)
    client.feed(client.head(1, [*UPLOAD, (b"expect", b"100-continue")], end=False))
    client.advance(25)
    assert not client.connection.streams and client.alive()


@pytest.mark.parametrize("trailers", [True, False])
@on_loop
async def test_fault_in_the_end_of_an_answered_request_costs_nothing_more(trailers: bool) -> None:
    client = RawClient(hello, LARGE)
    client.feed(client.head(1, UPLOAD, end=False))
    assert client.ended(1)
    client.feed(frame(frames.DATA, 0, 1, bytes(16_384)) * 4)
    last = client.head(1, [(b"connection", b"x")]) if trailers else frame(frames.DATA, frames.END_STREAM, 1, b"x")
    client.feed(last)
    assert client.reset(1) is None and not client.connection.streams and client.alive()


# The client goes


@on_loop
async def test_cancelled_stream_is_gone_and_the_others_go_on() -> None:
    client = RawClient()
    client.feed(client.head(1) + client.head(3))
    first, second = client.exchanges
    calls = counting(first)
    client.feed(frames.reset(1, Code.CANCEL))
    assert first.gone and first.status == 499 and len(calls) == 1
    first.respond(200, PLAIN, b"nobody")
    second.respond(200, PLAIN, b"x")
    await client.turn()
    client.collect()
    assert client.statuses == {3: 200}


@on_loop
async def test_consumer_that_fails_when_its_client_leaves_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = RawClient()
    client.feed(client.head(1) + client.head(3) + client.head(5))

    def fail() -> None:
        raise ValueError

    for exchange in client.exchanges[:2]:
        exchange.notify = fail
    client.feed(frames.reset(1, Code.CANCEL))
    assert client.alive() and "a consumer failed" in caplog.text
    calls = counting(client.exchanges[2])
    client.connection.connection_lost(None)
    assert len(calls) == 1


@on_loop
async def test_lost_connection_tells_every_stream() -> None:
    client = RawClient()
    client.feed(client.head(1) + client.head(3))
    calls = [counting(exchange) for exchange in client.exchanges]
    client.connection.connection_lost(None)
    assert [len(call) for call in calls] == [1, 1]
    assert all(exchange.gone for exchange in client.exchanges)


@on_loop
async def test_half_closed_connection_has_left() -> None:
    client = RawClient()
    client.feed(client.head(1))
    assert not client.connection.eof_received()
    assert client.exchanges[0].gone and client.transport.closed


@on_loop
async def test_clients_goaway_lets_open_streams_finish() -> None:
    client = RawClient()
    client.feed(client.head(1) + frames.goaway(0, Code.NO_ERROR))
    assert not client.transport.eof_written
    client.exchanges[0].respond(200, PLAIN, b"x" * 50_000)
    await client.turn()
    assert len(client.body(1)) == 50_000 and client.ended(1)
    assert client.transport.eof_written


# The server goes


@on_loop
async def test_drain_finishes_streams_and_takes_what_is_on_its_way() -> None:
    client = RawClient()
    client.feed(client.head(1))
    client.service.drain()
    await client.turn()
    assert [found.last_stream_id for found in client.of(GoAwayFrame)] == [2**31 - 1]
    client.feed(client.head(3))
    client.advance(1)
    await client.turn()
    assert [found.last_stream_id for found in client.of(GoAwayFrame)] == [2**31 - 1, 3]
    client.feed(client.head(5))
    assert client.reset(5) is Code.REFUSED_STREAM
    for exchange in client.exchanges:
        exchange.respond(200, PLAIN, b"x")
    await client.turn()
    client.collect()
    assert client.statuses == {1: 200, 3: 200} and client.transport.eof_written
    client.advance(4)
    assert client.transport.aborted


@on_loop
async def test_drain_closes_an_idle_connection_at_once() -> None:
    client = RawClient(hello)
    client.feed(client.head(1))
    client.service.drain()
    assert client.goaway() is Code.NO_ERROR and client.transport.closed


@on_loop
async def test_idle_connection_is_closed_with_a_goaway() -> None:
    client = RawClient(hello)
    client.feed(client.head(1))
    client.advance(59)
    assert not client.transport.closed
    client.advance(2)
    assert client.goaway() is Code.NO_ERROR and client.transport.closed


@on_loop
async def test_waiting_for_a_slow_answer_is_not_idle() -> None:
    client = RawClient()
    client.feed(client.head(1))
    client.advance(300)
    assert not client.transport.closed and not client.exchanges[0].gone


# Deadlines


@on_loop
async def test_connection_that_says_nothing_is_closed() -> None:
    client = RawClient(greet=False)
    client.advance(11)
    assert client.transport.closed


@on_loop
async def test_slow_body_is_refused_by_408() -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + client.head(3))
    client.exchanges[0].take()
    for _ in range(12):
        client.advance(1)
        client.feed(frame(frames.DATA, 0, 1, b"x"))
        client.exchanges[0].take()
    assert client.statuses == {1: 408} and client.exchanges[0].gone
    assert not client.exchanges[1].gone


@on_loop
async def test_rest_of_a_refused_request_is_not_waited_for_without_end() -> None:
    client = RawClient()
    client.feed(client.head(1, request_head(b"POST", b"no-slash"), end=False))
    assert client.statuses == {1: 400} and client.connection.streams
    client.advance(25)
    assert not client.connection.streams and client.alive()


@on_loop
async def test_body_that_the_consumer_does_not_take_is_not_slow() -> None:
    client = RawClient()
    client.feed(client.head(1, UPLOAD, end=False) + frame(frames.DATA, 0, 1, b"x"))
    client.advance(100)
    assert not client.exchanges[0].gone


@on_loop
async def test_header_block_that_does_not_end_is_not_waited_for() -> None:
    client = RawClient()
    client.feed(frame(frames.HEADERS, 0, 1, b"\x82"))
    for _ in range(12):
        client.advance(1)
        if not client.transport.eof_written:
            client.feed(frame(frames.CONTINUATION, 0, 1, b"\x84"))
    assert client.goaway() is Code.ENHANCE_YOUR_CALM


@on_loop
async def test_untaken_answer_of_one_stream_is_given_up() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, bytes(100_000)) if exchange.path == "/" else None)
    client.feed(client.head(1) + client.head(3, request_head(path=b"/wait")))
    await client.turn()
    client.advance(25)
    await client.turn()
    assert client.reset(1) is Code.CANCEL and not client.ended(1)
    assert client.alive()


# WebSocket


CONNECT: list[Pair] = [
    (b":protocol", b"websocket"),
    *request_head(b"CONNECT", b"/ws"),
    (b"sec-websocket-version", b"13"),
]


@on_loop
async def test_websocket_is_a_tunnel_in_both_directions() -> None:
    client = RawClient()
    client.feed(client.head(1, CONNECT, end=False))
    (exchange,) = client.exchanges
    assert (exchange.method, exchange.upgrade, exchange.path) == ("GET", b"websocket", "/ws")
    exchange.tunnel(Fields.of([(b"Sec-WebSocket-Protocol", b"chat")]))
    await client.turn()
    client.collect()
    assert client.statuses[1] == 200 and client.fields[1][b"sec-websocket-protocol"] == b"chat"
    calls = counting(exchange)
    client.feed(frame(frames.DATA, 0, 1, b"to the server"))
    assert len(calls) == 1 and exchange.take() == b"to the server" and not exchange.ended
    exchange.send(b"to the client")
    await client.turn()
    assert client.body(1) == b"to the client"
    client.advance(300)
    assert not exchange.gone, "an idle tunnel is not slow"
    client.feed(frame(frames.DATA, frames.END_STREAM, 1))
    assert exchange.ended
    exchange.finish()
    await client.turn()
    assert client.ended(1) and not client.connection.streams


@on_loop
async def test_refused_websocket_is_an_answer() -> None:
    client = RawClient(lambda exchange: exchange.respond(403, PLAIN, b"no"))
    client.feed(client.head(1, CONNECT, end=False))
    assert client.statuses[1] == 403 and client.ended(1)


# With a client that others have written


@on_loop
async def test_bodies_stream_both_ways_at_once() -> None:
    client = LibraryClient(echo, LARGE)
    stream = int(client.h2.get_next_available_stream_id())
    client.h2.send_headers(stream, UPLOAD)
    sent = os.urandom(1_000_000)
    at = 0
    while True:
        room = min(client.h2.local_flow_control_window(stream), 16_384, len(sent) - at)
        if room:
            client.h2.send_data(stream, sent[at : at + room])
            at += room
        await client.settle()
        fields, body, _ = client.answer(stream)
        if at == len(sent) == len(body):
            break
    client.h2.end_stream(stream)
    await client.settle()
    fields, body, whole = client.answer(stream)
    assert whole and body == sent and fields[b":status"] == b"200"


@on_loop
async def test_hundred_streams_at_once_and_the_next_is_refused() -> None:
    client = RawClient()
    for number in range(STREAMS_MAX + 1):
        client.feed(client.head(2 * number + 1))
    assert len(client.exchanges) == STREAMS_MAX
    assert client.reset(2 * STREAMS_MAX + 1) is Code.REFUSED_STREAM
    for exchange in client.exchanges:
        exchange.respond(200, PLAIN, b"x")
    await client.turn()
    client.collect()
    assert len(client.statuses) == STREAMS_MAX
    client.feed(client.head(2 * STREAMS_MAX + 3))
    assert len(client.exchanges) == STREAMS_MAX + 1


@on_loop
async def test_thousands_of_requests_of_the_library() -> None:
    client = LibraryClient(hello)
    streams = [client.ask(request_head(path=b"/%d" % number)) for number in range(500)]
    assert all(len(client.seen(kind)) == 500 for kind in (h2.events.ResponseReceived, h2.events.StreamEnded))
    assert client.answer(streams[-1])[1] == b"hello"


@on_loop
async def test_one_packet_of_many_requests_is_taken_in_turns() -> None:
    seen: list[str] = []

    def target(exchange: Exchange) -> None:
        seen.append(exchange.path)
        hello(exchange)

    client = RawClient(target)
    heads = [client.head(2 * number + 1, request_head(path=b"/%d" % number)) for number in range(90)]
    client.feed(b"".join(heads))
    assert len(seen) == 32 and not client.transport.reading, "one turn's share"
    await client.until(lambda: len(seen) == 90)
    await client.turn()
    assert client.transport.reading and seen == [f"/{number}" for number in range(90)]


@on_loop
async def test_notify_never_comes_from_inside_a_call_of_the_consumer() -> None:
    inside = 0
    wrong: list[str] = []

    def call(act: Callable[[], object]) -> None:
        nonlocal inside
        inside += 1
        act()
        inside -= 1

    def target(exchange: Exchange) -> None:
        exchange.notify = lambda: wrong.append(exchange.path) if inside else None
        call(lambda: exchange.start(200, PLAIN))
        while exchange.writable:
            call(lambda: exchange.send(bytes(ANSWER_BYTES_MAX)))
        call(exchange.take)
        if exchange.path == "/abort":
            call(exchange.abort)

    client = RawClient(target)
    client.feed(client.head(1) + client.head(3, request_head(path=b"/abort")))
    await client.turn()
    client.feed(frames.window_update(1, 500_000) + frames.window_update(0, 500_000))
    await client.turn()
    assert wrong == []
