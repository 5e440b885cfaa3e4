"""Requests to handlers and answers back: order, one write, back-pressure, closing, disconnects."""

from __future__ import annotations

import asyncio

import pytest

from headrace.http.answers import HeaderInvalid
from headrace.http.buffered import LONG_BYTES
from headrace.http.limits import Limits
from headrace.http.messages import Request
from tests.http.support import Rig, get, on_loop, post, split_answers


def echo(request: Request) -> None:
    request.respond(200, request.path.encode())


@on_loop
async def test_request_shows_what_was_sent() -> None:
    rig = Rig()
    rig.receive(post("/a%20b?c=d&e", b"body", "X-Amz-Target: T", "User-Agent:  x y "))
    [request] = rig.requests
    assert (request.method, request.target) == ("POST", "/a%20b?c=d&e")
    assert (request.path, request.query, request.body) == ("/a%20b", "c=d&e", b"body")
    assert request.headers[b"x-amz-target"] == b"T"
    assert request.headers[b"user-agent"] == b"x y"
    assert (request.peer, request.secure) == ("192.0.2.1", False)


@on_loop
async def test_answer_has_the_engines_headers_and_the_handlers() -> None:
    rig = Rig(lambda request: request.respond(201, b"{}", b"text/x", ((b"X-Id", b"1"), (b"X-Id", b"2"))))
    rig.receive(get("/"))
    assert rig.transport.written == (
        b"HTTP/1.1 201 Created\r\nServer: headrace\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/x\r\n"
        b"Content-Length: 2\r\nX-Id: 1\r\nX-Id: 2\r\n\r\n{}"
    )


@on_loop
async def test_pipelined_answers_of_one_turn_leave_in_one_write() -> None:
    rig = Rig(echo)
    rig.receive(get("/1") + post("/2", b"x") + get("/3"))
    assert [answer.body for answer in rig.answers] == [b"/1", b"/2", b"/3"]
    assert len(rig.transport.writes) == 1


@on_loop
async def test_long_body_is_written_as_it_is_and_others_before_and_behind_it_keep_their_order() -> None:
    long = b"x" * LONG_BYTES
    rig = Rig(lambda request: request.respond(200, long))
    rig.receive(get("/"))
    assert [answer.body for answer in rig.answers] == [long]
    assert rig.transport.writes[-1] is long
    rig = Rig()
    rig.receive(get("/1") + get("/2") + get("/3"))
    for request, body in zip(reversed(rig.requests), (b"3", long, b"1"), strict=True):
        request.respond(200, body)
    await asyncio.sleep(0)
    assert [answer.body for answer in rig.answers] == [b"1", long, b"3"]


@on_loop
async def test_long_body_is_not_sent_where_the_answer_has_none() -> None:
    rig = Rig(lambda request: request.respond(200 if request.method == "HEAD" else 304, b"x" * LONG_BYTES))
    rig.receive(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    rig.receive(get("/"))
    assert b"xx" not in rig.transport.written
    assert b"Content-Length: %d\r\n" % LONG_BYTES in rig.transport.written


@on_loop
async def test_answers_keep_the_order_of_requests_whatever_order_handlers_finish_in() -> None:
    rig = Rig()
    rig.receive(get("/1") + get("/2"))
    rig.receive(get("/3"))
    first, second, third = rig.requests
    third.respond(200, b"3")
    second.respond(200, b"2")
    assert rig.transport.writes == []
    first.respond(200, b"1")
    await asyncio.sleep(0)
    assert [answer.body for answer in rig.answers] == [b"1", b"2", b"3"]
    assert len(rig.transport.writes) == 1


@on_loop
async def test_later_answer_does_not_hold_back_a_finished_one() -> None:
    rig = Rig()
    rig.receive(get("/1") + get("/2"))
    rig.requests[0].respond(200, b"1")
    await asyncio.sleep(0)
    assert [answer.body for answer in rig.answers] == [b"1"]


@on_loop
async def test_pipeline_depth_is_bounded_and_goes_on_when_answered() -> None:
    rig = Rig(limits=Limits(pipeline_max=3))
    rig.receive(b"".join(get(f"/{i}") for i in range(8)))
    assert [request.path for request in rig.requests] == ["/0", "/1", "/2"]
    assert not rig.transport.reading
    answered = 0
    while answered < 8:
        rig.requests[answered].respond(200, b"")
        answered += 1
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(rig.requests) <= answered + 3
    assert [request.path for request in rig.requests] == [f"/{i}" for i in range(8)]
    assert rig.transport.reading
    assert len(rig.answers) == 8


@on_loop
async def test_one_turn_takes_a_bounded_share_of_a_pipeline() -> None:
    seen: list[str] = []

    def handler(request: Request) -> None:
        seen.append(request.path)
        request.respond(200, b"")

    rig = Rig(handler, Limits(pipeline_max=10))
    rig.receive(b"".join(get(f"/{i}") for i in range(25)))
    assert len(seen) == 10
    await rig.until(lambda: rig.transport.reading)
    assert seen == [f"/{i}" for i in range(25)]
    assert len(rig.answers) == 25


@on_loop
async def test_bodies_of_waiting_requests_are_bounded() -> None:
    rig = Rig(limits=Limits(pipeline_body_bytes=1_000))
    rig.receive(post("/1", b"x" * 1_000) + post("/2", b"x"))
    assert len(rig.requests) == 1
    rig.requests[0].respond(200, b"")
    await rig.until(lambda: len(rig.requests) == 2)


@on_loop
async def test_client_that_takes_no_answers_is_not_read_from() -> None:
    rig = Rig(echo)
    rig.receive(get("/1"))
    rig.connection.pause_writing()
    rig.receive(get("/2"))
    assert len(rig.answers) == 1
    assert not rig.transport.reading
    rig.connection.resume_writing()
    await asyncio.sleep(0)
    assert [answer.body for answer in rig.answers] == [b"/1", b"/2"]
    assert rig.transport.reading


@on_loop
async def test_body_in_pieces_is_delivered_once_and_whole() -> None:
    rig = Rig()
    stream = post("/", bytes(range(256)) * 4)
    for start in range(0, len(stream), 7):
        assert rig.requests == []
        rig.receive(stream[start : start + 7])
    assert rig.requests[0].body == bytes(range(256)) * 4


@on_loop
async def test_connection_close_is_obeyed_and_said() -> None:
    rig = Rig(echo)
    rig.receive(get("/", "Connection: close"))
    assert rig.answers[0].headers[b"connection"] == b"close"
    assert rig.transport.closed


@on_loop
async def test_requests_behind_a_closing_one_are_dropped() -> None:
    rig = Rig(echo)
    rig.receive(get("/1", "Connection: Foo, CLOSE") + get("/2"))
    rig.receive(get("/3"))
    assert [answer.body for answer in rig.answers] == [b"/1"]
    assert rig.transport.eof_written, "a plain close over unread input would reset the answer away"


@pytest.mark.parametrize(("header", "kept"), [((), False), (("Connection: keep-alive",), True)])
@on_loop
async def test_http10_is_closed_unless_it_asks(header: tuple[str, ...], kept: bool) -> None:
    rig = Rig(echo)
    rig.receive(get("/", *header).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert rig.answers[0].headers[b"connection"] == (b"keep-alive" if kept else b"close")
    assert rig.transport.closed is not kept


@on_loop
async def test_head_is_answered_without_the_body() -> None:
    rig = Rig(lambda request: request.respond(200, b"12345"))
    rig.receive(get("/").replace(b"GET", b"HEAD"))
    [answer] = split_answers(rig.transport.written, to_head=True)
    assert answer.headers[b"content-length"] == b"5"
    assert rig.transport.written.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
@on_loop
async def test_status_without_body_has_no_content_length(status: int) -> None:
    rig = Rig(lambda request: request.respond(status, b"ignored"))
    rig.receive(get("/"))
    assert b"content-length" not in rig.answers[0].headers
    assert rig.transport.written.endswith(b"\r\n\r\n")


@on_loop
async def test_expectation_is_answered_once_the_body_is_awaited() -> None:
    rig = Rig(echo)
    head, body = post("/a", b"body", "Expect: 100-Continue")[:-4], b"body"
    rig.receive(head)
    assert rig.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    rig.receive(body)
    assert rig.transport.written.count(b" 100 ") == 1
    assert rig.transport.written.endswith(b"/a")


@on_loop
async def test_expectation_waits_for_the_answers_before_it() -> None:
    rig = Rig()
    rig.receive(get("/1") + post("/2", b"body", "Expect: 100-continue")[:-4])
    assert rig.transport.writes == []
    rig.requests[0].respond(200, b"")
    assert rig.transport.writes[1:] == [b"HTTP/1.1 100 Continue\r\n\r\n"]


@pytest.mark.parametrize("stream", [post("/", b"body", "Expect: 100-continue"), get("/", "Expect: 100-continue")])
@on_loop
async def test_expectation_needs_no_answer_when_nothing_is_awaited(stream: bytes) -> None:
    rig = Rig(echo)
    rig.receive(stream)
    assert [answer.status for answer in rig.answers] == [200]


@on_loop
async def test_body_too_long_is_refused_instead_of_invited() -> None:
    rig = Rig(limits=Limits(body_bytes=3))
    rig.receive(post("/", b"body", "Expect: 100-continue")[:-4])
    assert [answer.status for answer in rig.answers] == [413]


@on_loop
async def test_refusal_waits_for_the_answers_before_it_and_ends_the_connection() -> None:
    rig = Rig()
    rig.receive(get("/1") + b"JUNK\r\n\r\n" + get("/2"))
    assert rig.transport.writes == []
    rig.requests[0].respond(200, b"1")
    await asyncio.sleep(0)
    assert [answer.status for answer in rig.answers] == [200, 400]
    rig.receive(get("/3"))
    assert len(rig.requests) == 1
    assert rig.connection.eof_received() is False


@on_loop
async def test_refusals_look_as_the_listener_wants() -> None:
    rig = Rig()
    rig.service.error_body = lambda status, reason: (b"text/xml", f"<{status}>{reason}".encode())
    rig.receive(b"JUNK\r\n\r\n")
    [answer] = rig.answers
    assert (answer.status, answer.headers[b"content-type"]) == (400, b"text/xml")
    assert answer.body == b"<400>malformed request line"


BAD_HEADERS = [
    ((b"A", b"b\r\nC: d"),),
    ((b"A", b"b\n"),),
    ((b"A", b"b\rc"),),
    ((b"A", b"b\0"),),
    ((b"A\r\nB", b"c"),),
    ((b"A: b", b"c"),),
    ((b"", b"c"),),
    ((b"Content-Length", b"1"),),
    ((b"transfer-encoding", b"chunked"),),
    ((b"Connection", b"close"),),
]


@pytest.mark.parametrize("headers", BAD_HEADERS)
@on_loop
async def test_header_injection_raises_and_sends_nothing(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    rig = Rig()
    rig.receive(get("/"))
    with pytest.raises(HeaderInvalid):
        rig.requests[0].respond(200, b"", headers=headers)
    with pytest.raises(HeaderInvalid):
        rig.requests[0].respond(200, b"", b"text/plain\r\nA: b")
    with pytest.raises(HeaderInvalid):
        rig.requests[0].respond(100, b"")
    assert rig.transport.writes == []
    rig.requests[0].respond(200, b"fine")
    assert rig.answers[0].body == b"fine"


@on_loop
async def test_failing_handler_costs_a_500_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request) -> None:
        if request.path == "/bad":
            raise ValueError("a secret")
        echo(request)

    rig = Rig(handler)
    rig.receive(get("/1") + get("/bad") + get("/2"))
    assert [answer.status for answer in rig.answers] == [200, 500, 200]
    assert b"secret" not in rig.transport.written
    assert [record.__dict__["action"] for record in caplog.records] == ["http.handler.failed"]


@on_loop
async def test_second_answer_to_a_request_is_a_bug_that_shows() -> None:
    rig = Rig()
    rig.receive(get("/"))
    rig.requests[0].respond(200, b"")
    with pytest.raises(RuntimeError):
        rig.requests[0].respond(200, b"")
    assert len(rig.answers) == 1


def watch(request: Request, left: list[str]) -> None:
    request.on_disconnect = lambda: left.append(request.path)


@on_loop
async def test_disconnect_is_told_once_and_only_to_requests_without_an_answer() -> None:
    rig = Rig()
    left: list[str] = []
    rig.receive(get("/1") + get("/2") + get("/3"))
    for request in rig.requests:
        watch(request, left)
    rig.requests[1].respond(200, b"")
    rig.connection.connection_lost(None)
    assert left == ["/1", "/3"]
    for request in (rig.requests[0], rig.requests[2]):
        request.respond(200, b"nobody hears this")
        assert not request.connected()
    assert rig.transport.writes == []


@on_loop
async def test_half_close_gives_up_requests_that_watch_and_answers_the_others() -> None:
    rig = Rig()
    left: list[str] = []
    rig.receive(get("/poll") + post("/send", b"x"))
    poll, send = rig.requests
    watch(poll, left)
    assert rig.connection.eof_received() is True
    assert left == ["/poll"]
    send.respond(200, b"sent")
    assert [answer.body for answer in rig.answers] == [b"sent"]
    assert rig.transport.closed
    rig.connection.connection_lost(None)
    assert left == ["/poll"]


@on_loop
async def test_half_close_without_a_request_closes() -> None:
    rig = Rig()
    rig.receive(get("/")[:-2])
    assert rig.connection.eof_received() is False
    assert rig.transport.closed
    assert rig.requests == []


@on_loop
async def test_connected_asks_the_kernel_now() -> None:
    rig = Rig()
    rig.receive(get("/1"))
    [request] = rig.requests
    assert request.connected()
    rig.transport.client.sendall(get("/pipelined, and not read yet"))
    assert request.connected()
    rig.transport.client.shutdown(1)
    assert not request.connected()
    rig.transport.client.close()
    assert not request.connected()


@on_loop
async def test_answered_request_is_not_connected_any_more() -> None:
    rig = Rig()
    rig.receive(get("/1"))
    rig.requests[0].respond(200, b"")
    assert not rig.requests[0].connected()


@on_loop
async def test_draining_closes_idle_connections_and_lets_the_others_finish() -> None:
    idle, waiting, midway = Rig(echo), Rig(), Rig(echo)
    idle.receive(get("/"))
    waiting.receive(get("/"))
    midway.receive(post("/", b"body")[:-2])
    for rig in (idle, waiting, midway):
        rig.service.drain()
    assert (idle.transport.closed, waiting.transport.closed, midway.transport.closed) == (True, False, False)
    waiting.requests[0].respond(200, b"done")
    midway.receive(b"dy")
    for rig in (waiting, midway):
        assert rig.answers[0].headers[b"connection"] == b"close"
        assert rig.transport.closed


@on_loop
async def test_draining_serves_a_request_that_is_in_the_kernel_already() -> None:
    rig = Rig(echo)
    rig.receive(get("/1"))
    rig.transport.client.sendall(get("/2"))
    rig.service.drain()
    assert not rig.transport.closed
    rig.receive(rig.transport.socket.recv(1_000))
    assert [answer.body for answer in rig.answers] == [b"/1", b"/2"]
    assert rig.transport.closed
