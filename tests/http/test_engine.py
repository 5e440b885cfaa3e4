"""Slow and silent clients, with time moved by hand; and the table of phases."""

from __future__ import annotations

from headrace.http.engine import MOVES, Phase
from headrace.http.limits import Limits
from headrace.http.messages import Request
from tests.http.support import Rig, get, on_loop, post


def echo(request: Request) -> None:
    request.respond(200, request.body)


@on_loop
async def test_silent_connection_is_closed_after_the_header_time() -> None:
    rig = Rig()
    rig.advance(9)
    assert not rig.transport.closed
    rig.advance(1)
    assert rig.transport.closed
    assert rig.transport.writes == []


@on_loop
async def test_trickled_header_gets_408_after_the_header_time() -> None:
    rig = Rig()
    for byte in get("/")[:9]:
        rig.receive(bytes([byte]))
        rig.advance(1)
    assert rig.answers == []
    rig.receive(b"x")
    rig.advance(1)
    assert [answer.status for answer in rig.answers] == [408]
    assert rig.transport.eof_written


@on_loop
async def test_header_time_runs_anew_for_each_request_of_a_pipeline() -> None:
    rig = Rig(echo)
    rig.receive(get("/")[:5])
    rig.advance(9)
    rig.receive(get("/")[5:] + get("/")[:5])
    rig.advance(9)
    rig.receive(get("/")[5:])
    assert [answer.status for answer in rig.answers] == [200, 200]
    assert not rig.transport.closed


@on_loop
async def test_idle_connection_is_closed_after_the_idle_time() -> None:
    rig = Rig(echo)
    rig.receive(get("/"))
    rig.advance(59)
    rig.receive(get("/"))
    rig.advance(59)
    assert not rig.transport.closed
    rig.advance(1)
    assert rig.transport.closed
    assert len(rig.answers) == 2


@on_loop
async def test_stray_empty_line_does_not_start_the_header_time() -> None:
    rig = Rig(echo)
    rig.receive(get("/") + b"\r\n")
    rig.advance(59)
    assert not rig.transport.closed


@on_loop
async def test_waiting_for_an_answer_is_not_being_idle() -> None:
    rig = Rig()
    rig.receive(get("/poll"))
    rig.advance(300)
    assert not rig.transport.closed
    rig.requests[0].respond(200, b"")
    rig.advance(59)
    assert not rig.transport.closed
    rig.advance(1)
    assert rig.transport.closed


@on_loop
async def test_body_slower_than_the_rate_gets_408() -> None:
    rig = Rig()
    rig.receive(post("/", b"x" * 100_000)[:1_000])
    for _ in range(11):
        rig.receive(b"x" * 499)
        rig.advance(1)
    assert [answer.status for answer in rig.answers] == [408]
    assert rig.requests == []


@on_loop
async def test_body_at_the_rate_may_take_its_time() -> None:
    rig = Rig()
    rig.receive(post("/", b"x" * 50_000)[:-50_000])
    for _ in range(100):
        assert rig.requests == []
        rig.receive(b"x" * 500)
        rig.advance(1)
    assert len(rig.requests[0].body) == 50_000


@on_loop
async def test_invitation_that_has_to_wait_is_no_slow_body() -> None:
    rig = Rig()
    rig.receive(get("/poll") + post("/", b"body", "Expect: 100-continue")[:-4])
    rig.advance(60)
    rig.requests[0].respond(200, b"")
    rig.receive(b"body")
    assert [request.path for request in rig.requests] == ["/poll", "/"]


@on_loop
async def test_client_that_takes_its_answer_too_slowly_is_cut_off() -> None:
    rig = Rig(lambda request: request.respond(200, b"x" * 1_000_000))
    rig.receive(get("/"))
    rig.transport.untaken_bytes = 900_000
    rig.connection.pause_writing()
    rig.advance(1)
    for _ in range(10):
        rig.transport.untaken_bytes -= 499
        rig.advance(1)
    assert rig.transport.aborted


@on_loop
async def test_idle_client_with_a_little_left_to_take_is_cut_off_in_the_end() -> None:
    rig = Rig(echo)
    rig.receive(get("/"))
    rig.transport.untaken_bytes = 100
    rig.advance(60)
    assert not rig.transport.aborted
    rig.advance(11)
    assert rig.transport.aborted


@on_loop
async def test_client_that_takes_its_answer_at_the_rate_is_let() -> None:
    rig = Rig(lambda request: request.respond(200, b"x" * 1_000_000))
    rig.receive(get("/", "Connection: close"))
    rig.transport.untaken_bytes = 900_000
    for _ in range(100):
        rig.advance(1)
        rig.transport.untaken_bytes -= 500
    assert not rig.transport.aborted


@on_loop
async def test_lingering_ends() -> None:
    rig = Rig()
    rig.receive(b"JUNK\r\n\r\n")
    rig.receive(b"more")
    rig.advance(2)
    assert not rig.transport.aborted
    rig.advance(1)
    assert rig.transport.aborted


@on_loop
async def test_times_do_not_run_while_the_engine_itself_does_not_read() -> None:
    rig = Rig(limits=Limits(pipeline_max=1))
    rig.receive(get("/1") + get("/2")[:10])
    assert not rig.transport.reading
    rig.advance(60)
    rig.requests[0].respond(200, b"")
    await rig.until(lambda: rig.transport.reading)
    rig.receive(get("/2")[10:])
    assert [request.path for request in rig.requests] == ["/1", "/2"]


def test_every_phase_has_its_moves_and_can_end() -> None:
    assert set(MOVES) == set(Phase)
    for phase, following in MOVES.items():
        assert (Phase.CLOSED in following) is (phase is not Phase.CLOSED)
    for late in (Phase.LAST, Phase.LINGER, Phase.CLOSING):
        assert not MOVES[late] & {Phase.IDLE, Phase.HEAD, Phase.BODY}
