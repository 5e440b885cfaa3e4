"""The hostile corpus against buffered connections, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.http.limits import Limits
from tests.http.hostile.cases import CHUNKED, CUT, HOSTILE, LIMITS, SMUGGLED, SOUND, with_headers
from tests.http.support import Server, serving, split_answers


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(LIMITS) as running:
        yield running


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_stream_is_refused_and_nothing_behind_it_answered(server: Server, name: str) -> None:
    stream, status = HOSTILE[name]
    before = len(server.seen)
    [answer] = split_answers(server.ask(stream + SMUGGLED))
    assert (answer.status, answer.headers[b"connection"]) == (status, b"close")
    assert server.seen[before:] == []


@pytest.mark.parametrize("name", HOSTILE)
def test_request_before_a_hostile_one_is_answered_first(server: Server, name: str) -> None:
    stream, status = HOSTILE[name]
    before = len(server.seen)
    answers = split_answers(
        server.ask(b"POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok" + stream + SMUGGLED)
    )
    assert [answer.status for answer in answers] == [200, status]
    assert server.seen[before:] == [("POST", "/good", b"ok")]


@pytest.mark.parametrize("name", SOUND)
def test_unusual_but_valid_stream_is_served_and_the_connection_kept(server: Server, name: str) -> None:
    stream, expected = SOUND[name]
    before = len(server.seen)
    answers = split_answers(server.ask(stream + b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    assert [answer.status for answer in answers if answer.status != 100] == [200] * (len(expected) + 1)
    assert server.seen[before:] == [*expected, ("GET", "/next", b"")]


@pytest.mark.parametrize("name", CUT)
def test_cut_request_reaches_nobody(server: Server, name: str) -> None:
    before = len(server.seen)
    with server.connect() as client:
        client.sendall(CUT[name])
        client.shutdown(1)
        assert client.recv(1) == b""
    assert server.seen[before:] == []


def test_refusal_reaches_a_client_that_is_still_sending(server: Server) -> None:
    with server.connect() as client:
        client.sendall(with_headers(b"Content-Length: 10000000"))
        received = client.recv(65_536)
        for _ in range(20):
            client.sendall(b"x" * 65_536)  # without lingering, the reset would come here
        assert split_answers(received)[0].status == 413


def test_body_of_tiny_chunks_is_refused_once_framing_outweighs_it() -> None:
    with serving(Limits(body_bytes=1_000_000)) as server:
        [answer] = split_answers(server.ask(CHUNKED + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"))
        assert answer.status == 400
        small = split_answers(
            server.ask(CHUNKED.replace(b"Tran", b"Connection: close\r\nTran") + b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n")
        )
        assert (small[0].status, len(small[0].body)) == (200, 5_000)
