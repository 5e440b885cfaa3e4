"""Streamed connections: what of a request arrives when, and what of an answer leaves how."""

from __future__ import annotations

import logging
import socket

import pytest

from headrace.http.engine import Phase
from headrace.http.exchange import DONE, TUNNEL, Exchange, LengthMismatch
from headrace.http.fields import FieldInvalid, Fields
from headrace.http.limits import Limits
from tests.http.hostile.cases import CHUNKED
from tests.http.streamed import PLAIN, Echo, StreamRig, read_answers
from tests.http.support import get, on_loop, post

UPGRADE = get("/ws", "Connection: keep-alive, Upgrade", "Upgrade: websocket")


def sized(length: int) -> Fields:
    return Fields.of([(b"Content-Length", b"%d" % length)])


def expecting(length: int) -> bytes:
    return post("/", b"x" * length, "Expect: 100-continue")[:-length]


# The request


@on_loop
async def test_exchange_says_what_the_request_said() -> None:
    rig = StreamRig()
    rig.receive(post("/a%20b?c=d", b"hi", "X-One: 1", "X-One: 2"))
    exchange = rig.exchange
    assert (exchange.method, exchange.target, exchange.path, exchange.query) == ("POST", "/a%20b?c=d", "/a%20b", "c=d")
    assert (exchange.version, exchange.secure, exchange.peer, exchange.peer_port) == ("1.1", False, "192.0.2.1", 5000)
    assert exchange.headers[b"x-one"] == b"1, 2"
    assert (exchange.length, exchange.upgrade, exchange.expects, exchange.answered) == (2, b"", False, False)


@on_loop
async def test_body_that_came_along_is_there_when_the_target_is_called() -> None:
    rig = StreamRig()
    rig.receive(post("/", b"body"))
    assert rig.exchange.ended
    assert rig.exchange.take() == b"body"
    assert rig.exchange.take() == b""


@pytest.mark.parametrize("chunked", [False, True])
@on_loop
async def test_body_streams_and_tells_of_every_piece(chunked: bool) -> None:
    rig = StreamRig()
    pieces = [b"4\r\nabcd\r\n", b"2\r\nef\r\n", b"0\r\n\r\n"] if chunked else [b"abcd", b"ef"]
    rig.receive(CHUNKED if chunked else post("/", b"abcdef")[:-6])
    told: list[tuple[bytes, bool]] = []
    exchange = rig.exchange
    exchange.notify = lambda: told.append((exchange.take(), exchange.ended))
    for piece in pieces:
        rig.receive(piece)
    assert told == ([(b"abcd", False), (b"ef", False), (b"", True)] if chunked else [(b"abcd", False), (b"ef", True)])


@on_loop
async def test_untaken_body_is_not_read_on() -> None:
    rig = StreamRig(limits=Limits(body_bytes=2**30))
    rig.receive(post("/", b"x" * 1_000_000)[:-1_000_000])
    sent = 0
    while rig.transport.reading:
        rig.receive(b"x" * 10_000)
        sent += 10_000
    assert sent == 70_000
    assert len(rig.exchange.take()) == sent
    assert rig.transport.reading


@on_loop
async def test_body_a_byte_at_a_time_is_one_piece_when_taken() -> None:
    rig = StreamRig()
    rig.receive(post("/", b"x" * 1000)[:-1000])
    for _ in range(1000):
        rig.receive(b"x")
    assert rig.exchange.take() == b"x" * 1000
    assert rig.exchange.ended


@on_loop
async def test_first_take_invites_a_body_that_waits() -> None:
    rig = StreamRig()
    rig.receive(expecting(4))
    assert rig.exchange.expects
    assert rig.written == b""
    assert rig.exchange.take() == b""
    assert rig.exchange.take() == b""
    assert rig.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    rig.receive(b"body")
    assert rig.exchange.take() == b"body"
    rig.exchange.respond(200, PLAIN, b"ok")
    assert [answer.status for answer in rig.answers] == [100, 200]
    assert b"connection" not in rig.answers[1].headers


@on_loop
async def test_body_that_does_not_wait_is_not_invited() -> None:
    rig = StreamRig()
    rig.receive(expecting(4) + b"bo")
    assert rig.exchange.take() == b"bo"
    assert rig.written == b""


@on_loop
async def test_answer_instead_of_an_invitation_closes() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(403, PLAIN, b"no"))
    rig.receive(expecting(4))
    [answer] = rig.answers
    assert (answer.status, answer.headers[b"connection"]) == (403, b"close")
    assert rig.transport.eof_written


@on_loop
async def test_uninvited_body_waits_without_a_deadline_and_an_invited_one_does_not() -> None:
    rig = StreamRig()
    rig.receive(expecting(4))
    rig.advance(100)
    assert rig.written == b""
    rig.exchange.take()
    rig.advance(9)
    assert len(rig.answers) == 1
    rig.advance(3)
    assert [answer.status for answer in rig.answers] == [100, 408]
    assert rig.exchange.gone


@on_loop
async def test_slow_body_gets_408_and_the_consumer_is_told() -> None:
    rig = StreamRig()
    ends: list[int] = []
    rig.receive(post("/", b"x" * 100_000)[:-100_000])
    rig.exchange.on_done = lambda exchange: ends.append(exchange.status)
    notified: list[bool] = []
    rig.exchange.notify = lambda: notified.append(rig.exchange.gone)
    for _ in range(11):
        rig.receive(b"x" * 499)
        rig.advance(1)
    assert [answer.status for answer in rig.answers] == [408]
    assert ends == [408]
    assert notified[-1]
    rig.exchange.respond(200, PLAIN, b"too late")
    assert len(rig.answers) == 1


@on_loop
async def test_body_that_the_consumer_does_not_take_is_not_slow() -> None:
    rig = StreamRig()
    rig.receive(post("/", b"x" * 100_000)[:-10_000])
    assert not rig.transport.reading
    rig.advance(600)
    assert rig.written == b""
    rig.exchange.take()
    rig.advance(9)
    rig.receive(b"x" * 10_000)
    rig.exchange.respond(200, PLAIN)
    assert [answer.status for answer in rig.answers] == [200]


@on_loop
async def test_two_way_stream_may_be_silent() -> None:
    rig = StreamRig()
    rig.receive(CHUNKED)
    rig.exchange.start(200, PLAIN)
    await rig.turn()
    rig.advance(600)
    rig.receive(b"5\r\nhello\r\n0\r\n\r\n")
    rig.exchange.send(rig.exchange.take())
    rig.exchange.finish()
    assert [answer.body for answer in rig.answers] == [b"hello"]
    assert not rig.transport.closed


@on_loop
async def test_malformed_chunk_gets_400_and_the_body_is_never_whole() -> None:
    rig = StreamRig()
    rig.receive(CHUNKED + b"5\r\nhello\r\n")
    rig.receive(b"5_0\r\n")
    assert [answer.status for answer in rig.answers] == [400]
    assert rig.exchange.gone
    assert not rig.exchange.ended


@on_loop
async def test_malformed_chunk_after_the_answer_has_begun_cuts_it() -> None:
    rig = StreamRig()
    rig.receive(CHUNKED + b"5\r\nhello\r\n")
    rig.exchange.start(200, PLAIN)
    rig.exchange.send(b"half")
    await rig.turn()
    rig.receive(b"zz\r\n")
    assert rig.exchange.gone
    assert rig.transport.aborted
    assert b"0\r\n\r\n" not in rig.written


@on_loop
async def test_body_beyond_the_limit_gets_413() -> None:
    rig = StreamRig(limits=Limits(body_bytes=10))
    rig.receive(post("/", b"x" * 11)[:-11])
    assert [answer.status for answer in rig.answers] == [413]
    assert rig.exchanges == []
    other = StreamRig(limits=Limits(body_bytes=10))
    other.receive(CHUNKED + b"8\r\n12345678\r\n")
    other.receive(b"8\r\n")
    assert [answer.status for answer in other.answers] == [413]
    assert other.exchange.gone


# Whole answers


@on_loop
async def test_whole_answer_is_one_write() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(200, PLAIN, b"hello"))
    rig.receive(get("/"))
    assert len(rig.transport.writes) == 1
    [answer] = rig.answers
    assert answer.body == b"hello"
    assert answer.headers == {
        b"server": b"headrace",
        b"date": b"Thu, 01 Jan 1970 00:00:00 GMT",
        b"content-type": b"text/plain",
        b"content-length": b"5",
    }


@on_loop
async def test_server_and_date_of_the_application_are_kept() -> None:
    fields = Fields.of([(b"Server", b"mine"), (b"Date", b"today")])
    rig = StreamRig(lambda exchange: exchange.respond(200, fields))
    rig.receive(get("/"))
    assert (rig.answers[0].headers[b"server"], rig.answers[0].headers[b"date"]) == (b"mine", b"today")


@pytest.mark.parametrize(
    ("request_bytes", "connection"),
    [
        (get("/"), None),
        (get("/", "Connection: close"), b"close"),
        (b"GET / HTTP/1.0\r\n\r\n", b"close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"keep-alive"),
    ],
)
@on_loop
async def test_connection_header_says_what_becomes_of_the_connection(
    request_bytes: bytes, connection: bytes | None
) -> None:
    rig = StreamRig(lambda exchange: exchange.respond(200, PLAIN, b"x"))
    rig.receive(request_bytes)
    assert rig.answers[0].headers.get(b"connection") == connection
    assert rig.transport.closed == (connection == b"close")


@on_loop
async def test_application_may_ask_to_close() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(200, Fields.of([(b"Connection", b"close")]), b"x"))
    rig.receive(get("/"))
    assert rig.answers[0].headers[b"connection"] == b"close"
    assert rig.transport.closed


@pytest.mark.parametrize(
    ("method", "status", "length", "announced"),
    [
        ("HEAD", 200, 5, b"5"),
        ("HEAD", 200, None, None),
        ("GET", 204, None, None),
        ("GET", 204, 5, None),
        ("GET", 304, None, None),
        ("GET", 304, 5, b"5"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
@on_loop
async def test_answers_without_body(
    method: str, status: int, length: int | None, announced: bytes | None, streamed: bool
) -> None:
    fields = Fields.of([(b"Content-Length", b"%d" % length)] if length is not None else [])

    def target(exchange: Exchange) -> None:
        if not streamed:
            exchange.respond(status, fields)
            return
        exchange.start(status, fields)
        exchange.send(b"not sent")
        exchange.finish()

    rig = StreamRig(target)
    rig.receive(get("/").replace(b"GET", method.encode()) + get("/").replace(b"GET", method.encode()))
    answers = read_answers(rig.written, [method] * 2)
    assert [answer.status for answer in answers] == [status] * 2
    assert answers[0].headers.get(b"content-length") == announced
    assert b"transfer-encoding" not in answers[0].headers


@on_loop
async def test_head_whose_body_is_made_announces_its_length() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(200, PLAIN, b"hello"))
    rig.receive(get("/").replace(b"GET", b"HEAD"))
    [answer] = read_answers(rig.written, ["HEAD"])
    assert answer.headers[b"content-length"] == b"5"


@on_loop
async def test_large_answer_is_not_copied() -> None:
    body = b"x" * 1_000_000
    rig = StreamRig(lambda exchange: exchange.respond(200, PLAIN, body))
    rig.receive(get("/"))
    assert rig.answers[0].body == body


# Answers in pieces


@on_loop
async def test_answer_that_is_given_in_one_turn_is_one_write() -> None:
    def target(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        exchange.send(b"hel")
        exchange.send(b"lo")
        exchange.finish()

    rig = StreamRig(target)
    rig.receive(get("/"))
    await rig.turn()
    assert len(rig.transport.writes) == 1
    assert rig.answers[0].body == b"hello"
    assert rig.answers[0].headers[b"transfer-encoding"] == b"chunked"


@on_loop
async def test_head_leaves_in_the_next_turn_at_the_latest() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.exchange.start(200, PLAIN)
    assert rig.written == b""
    await rig.turn()
    assert rig.written.endswith(b"\r\n\r\n")
    rig.exchange.send(b"x" * 100_000)
    rig.exchange.send(b"y")
    rig.exchange.finish()
    assert rig.answers[0].body == b"x" * 100_000 + b"y"


@on_loop
async def test_streamed_answer_of_known_length_keeps_the_connection() -> None:
    def target(exchange: Exchange) -> None:
        exchange.start(200, sized(5))
        exchange.send(b"hello")
        exchange.finish()

    rig = StreamRig(target)
    rig.receive(get("/a") + get("/b"))
    assert [answer.body for answer in rig.answers] == [b"hello", b"hello"]
    assert b"transfer-encoding" not in rig.answers[0].headers


@on_loop
async def test_http10_answer_of_unknown_length_ends_with_the_connection() -> None:
    def target(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        exchange.send(b"hello")
        exchange.finish()

    rig = StreamRig(target)
    rig.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert rig.answers[0].body == b"hello"
    assert rig.transport.closed


@on_loop
async def test_too_short_an_answer_is_cut() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.exchange.start(200, sized(5))
    rig.exchange.send(b"hell")
    with pytest.raises(LengthMismatch):
        rig.exchange.finish()
    assert rig.transport.aborted


@on_loop
async def test_too_long_an_answer_is_an_error_and_what_was_announced_is_sent() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.exchange.start(200, sized(5))
    with pytest.raises(LengthMismatch):
        rig.exchange.send(b"hello!")
    rig.exchange.finish()
    assert rig.answers[0].body == b"hello"


@on_loop
async def test_abort_sends_no_end() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.exchange.start(200, PLAIN)
    rig.exchange.send(b"half")
    await rig.turn()
    rig.exchange.abort()
    rig.exchange.abort()
    assert rig.transport.aborted
    assert not rig.written.endswith(b"0\r\n\r\n")
    assert rig.connection.phase is Phase.CLOSING


@on_loop
async def test_full_transport_is_not_writable_and_room_is_told() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    exchange = rig.exchange
    told: list[bool] = []
    exchange.notify = lambda: told.append(exchange.writable)
    exchange.start(200, PLAIN)
    rig.connection.pause_writing()
    assert not exchange.writable
    rig.connection.resume_writing()
    assert told == []
    await rig.turn()
    assert told == [True]


@on_loop
async def test_each_congestion_is_judged_by_itself() -> None:
    rig = StreamRig(Echo())
    for _ in range(2):
        rig.receive(get("/"))
        rig.connection.pause_writing()
        rig.transport.untaken_bytes = 70_000
        rig.advance(2)
        assert not rig.transport.aborted
        rig.transport.untaken_bytes = 0
        rig.connection.resume_writing()
        await rig.turn()
        rig.advance(50)
    assert not rig.transport.closed


@on_loop
async def test_early_hints_precede_the_answer_and_are_not_for_http10() -> None:
    def target(exchange: Exchange) -> None:
        exchange.inform(103, Fields.of([(b"Link", b"</a.css>")]))
        exchange.respond(200, PLAIN, b"x")
        exchange.inform(103, PLAIN)

    rig = StreamRig(target)
    rig.receive(get("/"))
    assert [(answer.status, answer.headers.get(b"link")) for answer in rig.answers] == [(103, b"</a.css>"), (200, None)]
    old = StreamRig(target)
    old.receive(b"GET / HTTP/1.0\r\n\r\n")
    assert [answer.status for answer in old.answers] == [200]


@on_loop
async def test_only_interim_statuses_inform() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    for status in (99, 100, 101, 200):
        with pytest.raises(FieldInvalid):
            rig.exchange.inform(status, PLAIN)
    assert rig.written == b""


@on_loop
async def test_failing_target_is_a_500_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def target(exchange: Exchange) -> None:
        if exchange.path == "/bad":
            raise RuntimeError("a bug")
        exchange.respond(200, PLAIN)

    rig = StreamRig(target)
    with caplog.at_level(logging.ERROR):
        rig.receive(get("/bad") + get("/good"))
    assert [answer.status for answer in rig.answers] == [500, 200]
    assert caplog.records[0].action == "http.target.failed"  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["target", "notify"])
@on_loop
async def test_failing_after_the_answer_has_begun_cuts_it(where: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    def target(exchange: Exchange) -> None:
        exchange.start(200, PLAIN)
        exchange.notify = fail
        if where == "target":
            fail()

    rig = StreamRig(target)
    with caplog.at_level(logging.ERROR):
        rig.receive(post("/", b"1234")[:-2])
        if where == "notify":
            rig.receive(b"4")
    assert rig.transport.aborted
    assert caplog.records


@on_loop
async def test_consumer_that_fails_when_it_is_told_of_an_end_stops_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = StreamRig()
    other = StreamRig()
    rig.service.connections.add(other.connection)

    def fail() -> None:
        raise RuntimeError("a bug")

    for each in (rig, other):
        each.receive(post("/", b"x" * 1000)[:-1000])
        each.exchange.notify = fail
    with caplog.at_level(logging.ERROR):
        rig.advance(12)
    assert [answer.status for answer in rig.answers + other.answers] == [408, 408]
    assert len(caplog.records) == 2


# One after the other


@on_loop
async def test_pipelined_requests_come_one_at_a_time_and_in_order() -> None:
    rig = StreamRig()
    rig.receive(get("/1") + get("/2") + get("/3"))
    for number in (1, 2, 3):
        assert [exchange.path for exchange in rig.exchanges] == [f"/{n}" for n in range(1, number + 1)]
        assert rig.transport.reading == (number == 3)
        rig.exchange.respond(200, PLAIN, b"%d" % number)
        assert len(rig.exchanges) == number  # the next one is not begun inside of this call
        await rig.turn()
    assert [answer.body for answer in rig.answers] == [b"1", b"2", b"3"]
    assert rig.transport.reading


@on_loop
async def test_pipelining_client_waits_in_the_kernel() -> None:
    rig = StreamRig()
    rig.receive(get("/1"))
    rig.receive(get("/2"))
    assert not rig.transport.reading
    rig.advance(100)
    assert not rig.transport.closed
    rig.exchange.respond(200, PLAIN)
    await rig.turn()
    assert rig.exchange.path == "/2"
    assert rig.transport.reading


@on_loop
async def test_answered_pipeline_shares_the_turn_with_others() -> None:
    rig = StreamRig(Echo(), Limits(pipeline_max=4))
    rig.receive(get("/") * 10)
    assert len(rig.answers) == 4
    await rig.turn(6)
    assert len(rig.answers) == 10


@on_loop
async def test_requests_wait_while_answers_are_untaken() -> None:
    rig = StreamRig(Echo())
    rig.connection.pause_writing()
    rig.receive(get("/"))
    assert rig.written == b""
    assert not rig.transport.reading
    rig.connection.resume_writing()
    await rig.turn()
    assert len(rig.answers) == 1
    assert rig.transport.reading


@on_loop
async def test_small_rest_of_an_answered_body_is_skipped() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(403, PLAIN))
    rig.receive(post("/", b"x" * 60_000)[:-60_000])
    assert b"connection" not in rig.answers[0].headers
    rig.receive(b"x" * 59_999)
    rig.receive(b"x" + get("/next"))
    assert [answer.status for answer in rig.answers] == [403, 403]
    assert not rig.transport.closed


@on_loop
async def test_held_body_is_let_go_after_the_answer() -> None:
    rig = StreamRig()
    rig.receive(post("/", b"x" * 100_000)[:-30_000])
    assert not rig.transport.reading
    rig.exchange.respond(200, PLAIN)
    rig.receive(b"x" * 30_000 + get("/next"))
    assert rig.exchange.path == "/next"


@on_loop
async def test_large_rest_of_an_answered_body_closes_without_a_reset() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(413, PLAIN))
    rig.receive(post("/", b"x" * 100_000)[:-100_000])
    assert rig.answers[0].headers[b"connection"] == b"close"
    assert rig.transport.eof_written
    rig.receive(b"x" * 100_000)
    assert not rig.transport.closed
    rig.advance(4)
    assert rig.transport.aborted


@on_loop
async def test_large_rest_behind_a_streamed_answer_closes() -> None:
    rig = StreamRig()
    rig.receive(post("/", b"x" * 200_000)[:-200_000])
    rig.exchange.start(200, PLAIN)
    rig.exchange.finish()
    assert [answer.status for answer in rig.answers] == [200]
    assert rig.transport.eof_written


@on_loop
async def test_chunked_rest_is_skipped_as_far_as_it_is_small() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(403, PLAIN))
    rig.receive(CHUNKED)
    rig.receive(b"5\r\nhello\r\n0\r\n\r\n" + get("/next"))
    assert [answer.status for answer in rig.answers] == [403, 403]
    rig.receive(CHUNKED)
    rig.receive(b"20000\r\n" + b"x" * 70_000)
    assert len(rig.answers) == 3
    assert rig.transport.eof_written


@on_loop
async def test_slow_rest_of_an_answered_body_closes_and_gets_no_second_answer() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(403, PLAIN))
    rig.receive(post("/", b"x" * 6_000)[:-6_000])
    rig.advance(12)
    assert len(rig.answers) == 1
    assert rig.transport.eof_written


@on_loop
async def test_malformed_rest_of_an_answered_body_gets_no_second_answer() -> None:
    rig = StreamRig(lambda exchange: exchange.respond(403, PLAIN))
    rig.receive(CHUNKED)
    rig.receive(b"zz\r\n" + get("/smuggled"))
    assert len(rig.answers) == 1
    assert rig.transport.eof_written


# The client leaves


@on_loop
async def test_client_that_leaves_is_noticed_by_the_consumer() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    told: list[str] = []
    rig.exchange.notify = lambda: told.append("notify")
    rig.exchange.on_done = lambda exchange: told.append(f"done {exchange.status}")
    rig.connection.connection_lost(ConnectionResetError())
    assert rig.exchange.gone
    assert told == ["done 499", "notify"]
    rig.exchange.respond(200, PLAIN)
    assert rig.written == b""


@on_loop
async def test_half_closed_client_is_answered_if_that_does_not_take_long() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    told: list[bool] = []
    rig.exchange.notify = lambda: told.append(rig.exchange.half_closed)
    assert rig.connection.eof_received()
    assert told == [True]
    rig.advance(1)
    assert not rig.exchange.gone
    rig.exchange.respond(200, PLAIN, b"still here?")
    assert [answer.headers[b"connection"] for answer in rig.answers] == [b"close"]
    assert rig.transport.closed


@on_loop
async def test_half_closed_client_has_left_when_its_answer_does_not_come() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    told: list[bool] = []
    rig.exchange.notify = lambda: told.append(rig.exchange.gone)
    rig.connection.eof_received()
    rig.advance(2)
    assert told == [False, True]
    assert rig.exchange.status == 499
    assert rig.transport.aborted


@on_loop
async def test_answer_to_a_half_closed_client_goes_on_while_it_makes_progress() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.connection.eof_received()
    rig.exchange.start(200, PLAIN)
    for _ in range(5):
        rig.exchange.send(b"x")
        await rig.turn()
        rig.advance(1)
    assert not rig.exchange.gone
    rig.transport.untaken_bytes = 1
    rig.advance(5)
    rig.transport.untaken_bytes = 0
    assert not rig.exchange.gone
    rig.advance(1)
    assert rig.exchange.gone


@on_loop
async def test_consumer_may_drop_a_half_closed_client() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.exchange.notify = rig.exchange.abort
    assert not rig.connection.eof_received()
    assert rig.transport.aborted


@pytest.mark.parametrize("stream", [post("/", b"body")[:-1], UPGRADE, expecting(4)])
@on_loop
async def test_half_closed_behind_half_a_request_has_left(stream: bytes) -> None:
    rig = StreamRig()
    rig.receive(stream)
    assert not rig.connection.eof_received()
    assert rig.exchange.gone


@on_loop
async def test_client_that_leaves_in_the_body_leaves_it_cut() -> None:
    rig = StreamRig()
    rig.receive(post("/", b"body")[:-1])
    rig.connection.connection_lost(ConnectionResetError())
    assert rig.exchange.gone
    assert not rig.exchange.ended
    rig.exchange.take()
    rig.exchange.start(200, PLAIN)


@on_loop
async def test_complete_answer_is_delivered_to_a_client_that_has_half_closed() -> None:
    rig = StreamRig(Echo())
    rig.receive(get("/"))
    rig.connection.eof_received()
    assert len(rig.answers) == 1
    assert rig.transport.closed
    assert not rig.transport.aborted


@on_loop
async def test_leaving_is_noticed_even_where_nothing_is_read() -> None:
    rig = StreamRig()
    rig.receive(get("/1") + get("/2"))
    assert not rig.transport.reading
    rig.advance(2)
    assert not rig.exchange.gone
    rig.transport.client.close()
    rig.advance(1)
    assert rig.exchange.half_closed
    rig.advance(2)
    assert rig.exchange.gone
    assert rig.transport.aborted


@on_loop
async def test_pipeline_of_a_half_closed_client_is_answered() -> None:
    rig = StreamRig()
    rig.receive(get("/1") + get("/2") + get("/3"))
    rig.transport.client.shutdown(socket.SHUT_WR)
    for number in (1, 2, 3):
        rig.advance(1)
        assert rig.exchange.path == f"/{number}"
        if number == 3:
            rig.connection.eof_received()
        assert rig.exchange.half_closed
        rig.exchange.respond(200, PLAIN)
        await rig.turn()
    assert [answer.status for answer in rig.answers] == [200] * 3
    assert rig.transport.closed


@on_loop
async def test_draining_closes_idle_connections_and_the_others_after_their_answer() -> None:
    idle, waiting, tunnel = StreamRig(Echo()), StreamRig(), StreamRig()
    idle.receive(get("/"))
    waiting.receive(get("/"))
    tunnel.receive(UPGRADE)
    tunnel.exchange.tunnel(Fields())
    for rig in (idle, waiting, tunnel):
        rig.service.drain()
    assert (idle.transport.closed, waiting.transport.closed, tunnel.transport.closed) == (True, False, False)
    waiting.exchange.respond(200, PLAIN)
    assert waiting.answers[0].headers[b"connection"] == b"close"
    assert waiting.transport.closed
    tunnel.receive(b"on")
    assert tunnel.exchange.take() == b"on"


@on_loop
async def test_busy_connection_still_notices_its_client_leave_while_draining() -> None:
    rig = StreamRig()
    rig.receive(get("/"))
    rig.service.drain()
    rig.connection.eof_received()
    assert rig.exchange.half_closed


# Tunnels


@on_loop
async def test_tunnel_is_a_plain_stream_both_ways() -> None:
    rig = StreamRig()
    rig.receive(UPGRADE)
    exchange = rig.exchange
    assert exchange.upgrade == b"websocket"
    exchange.tunnel(Fields.of([(b"Sec-WebSocket-Accept", b"x")]))
    head = rig.written
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    for line in (b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"Sec-WebSocket-Accept: x\r\n"):
        assert line in head
    assert b"Content-Length" not in head
    told: list[bytes] = []
    exchange.notify = lambda: told.append(exchange.take())
    rig.receive(b"GET / HTTP/1.1\r\n\r\n")  # no request any more
    assert told == [b"GET / HTTP/1.1\r\n\r\n"]
    exchange.send(b"frame")
    assert rig.written == head + b"frame"
    rig.advance(600)
    assert not rig.transport.closed
    exchange.finish()
    assert rig.transport.eof_written


@on_loop
async def test_bytes_behind_an_upgrade_wait_for_the_tunnel() -> None:
    rig = StreamRig()
    rig.receive(UPGRADE + b"early")
    assert rig.exchange.take() == b""
    assert not rig.transport.reading
    told: list[bytes] = []
    exchange = rig.exchange
    exchange.notify = lambda: told.append(exchange.take())
    exchange.tunnel(Fields())
    assert told == []
    await rig.turn()
    assert told == [b"early"]
    assert rig.transport.reading


@on_loop
async def test_declined_upgrade_stays_http() -> None:
    rig = StreamRig()
    rig.receive(UPGRADE + get("/next"))
    rig.exchange.respond(403, PLAIN)
    await rig.turn()
    assert rig.exchange.path == "/next"


@on_loop
async def test_untaken_tunnel_is_not_read_on_and_its_end_is_told() -> None:
    rig = StreamRig()
    rig.receive(UPGRADE)
    exchange = rig.exchange
    exchange.tunnel(Fields())
    rig.receive(b"x" * 70_000)
    assert not rig.transport.reading
    assert len(exchange.take()) == 70_000
    rig.receive(b"last")
    assert not exchange.ended
    rig.connection.eof_received()
    assert (exchange.gone, exchange.ended, exchange.stage) == (True, True, DONE)
    assert exchange.take() == b"last"


@on_loop
async def test_tunnel_that_breaks_is_told() -> None:
    rig = StreamRig()
    rig.receive(UPGRADE)
    told: list[bool] = []
    rig.exchange.tunnel(Fields())
    rig.exchange.notify = lambda: told.append(rig.exchange.gone and rig.exchange.ended)
    rig.connection.connection_lost(ConnectionResetError())
    assert told == [True]
    rig.exchange.send(b"nobody reads this")


@pytest.mark.parametrize(
    "head",
    [
        get("/", "Upgrade: websocket"),
        get("/", "Connection: Upgrade"),
        get("/", "Connection: Upgrade", "Upgrade: h2c"),
        post("/", b"", "Connection: Upgrade", "Upgrade: websocket"),
        get("/", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 1") + b"x",
        b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
@on_loop
async def test_what_is_no_upgrade_is_none(head: bytes) -> None:
    rig = StreamRig()
    rig.receive(head)
    assert rig.exchange.upgrade == b""
    assert rig.exchange.stage is not TUNNEL
