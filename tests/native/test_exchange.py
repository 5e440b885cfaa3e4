from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.native.endpoint import Endpoint
from headrace.native.exchange import BadResponse, RequestWriter, ResponseReader

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@given(st.lists(st.integers(1, len(CHUNKED)), max_size=8), st.sampled_from([RESPONSE, CHUNKED]))
def test_any_cut_of_a_response_reads_the_same(cuts: list[int], response: bytes) -> None:
    reader = ResponseReader()
    reader.expect()
    places = sorted({0, *(cut for cut in cuts if cut < len(response)), len(response)})
    complete = [reader.feed(response[a:b]) for a, b in pairwise(places)]

    assert complete == [False] * (len(complete) - 1) + [True]
    assert reader.body == b"hello"
    assert (reader.status, reader.reusable) == ((200, True) if response is RESPONSE else (503, False))


def test_one_reader_reads_one_response_after_another() -> None:
    reader = ResponseReader()
    for body in (b"first", b"other"):
        reader.expect()
        assert reader.feed(RESPONSE.replace(b"hello", body))
        assert reader.body == body


def test_empty_body_is_a_response() -> None:
    reader = ResponseReader()
    reader.expect()

    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert reader.body == b""


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.7\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_what_is_not_http_is_a_bad_response(data: bytes) -> None:
    reader = ResponseReader()
    reader.expect()

    with pytest.raises(BadResponse):
        reader.feed(data)


def test_bytes_that_nobody_asked_for_are_a_bad_response() -> None:
    reader = ResponseReader()
    reader.expect()
    reader.feed(RESPONSE)

    with pytest.raises(BadResponse):
        reader.feed(RESPONSE)


@given(st.binary(max_size=100))
def test_only_bad_response_escapes_from_any_bytes(data: bytes) -> None:
    reader = ResponseReader()
    reader.expect()
    with contextlib.suppress(BadResponse):
        assert reader.feed(data) == reader.complete


def test_call_carries_length_and_wait() -> None:
    writer = RequestWriter(Endpoint("::1", 9324))

    head, _, body = writer.call(b"abc", 5_000).partition(b"\r\n\r\n")

    assert body == b"abc"
    assert {b"Host: [::1]:9324", b"Content-Length: 3", b"headrace-wait-ms: 5000"} <= set(head.split(b"\r\n"))
    assert b"headrace-wait-ms" not in writer.call(b"abc", None)
