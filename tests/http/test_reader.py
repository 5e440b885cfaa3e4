"""However the network cuts a stream, the same requests come out of it, and the same refusal."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.http.limits import Limits
from headrace.http.parse import KNOWN_BYTES_MAX, KNOWN_MAX, Head, HeadParser, Refusal
from headrace.http.reader import Reader
from tests.http.hostile.cases import HOSTILE, LIMITS, SMUGGLED, SOUND
from tests.http.support import get, post

Outcome = tuple[list[tuple[str, str, dict[bytes, bytes], bytes]], int]


def read(pieces: list[bytes], limits: Limits = LIMITS, parser: HeadParser | None = None) -> Outcome:
    """What a connection reads from `pieces`: requests, and the status of the refusal that ended it, or 0."""
    reader = Reader(parser or HeadParser(limits), limits)
    requests: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
    head: Head | None = None
    body: list[bytes] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                if head is None:
                    fresh = Head()
                    if not reader.next_head(fresh):
                        break
                    head, body = fresh, []
                if not reader.read_body(body):
                    break
                requests.append((head.method, head.target, head.headers, b"".join(body)))
                head = None
    except Refusal as refusal:
        return requests, refusal.status
    return requests, 0


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(stream), *[place % (len(stream) + 1) for place in places]})
    return [stream[start:end] for start, end in pairwise(bounds)]


STREAMS: Final = sorted(
    [stream + SMUGGLED for stream, _ in HOSTILE.values()]
    + [stream + SMUGGLED for stream, _ in SOUND.values()]
    + [get("/a") + post("/b", b"body") + get("/c", "Cookie: a=1", "Cookie: b=2", "Accept: x", "Accept: y")]
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_gives_the_same_requests(stream: bytes, places: list[int]) -> None:
    assert read(cut(stream, places)) == read([stream])


def test_byte_by_byte_gives_the_same_requests() -> None:
    for stream in STREAMS:
        assert read([bytes([byte]) for byte in stream]) == read([stream]), stream


MUTATIONS: Final = [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"_", b"+", b"\x80", b"\xff"]


@settings(max_examples=1_500, deadline=None)
@given(
    st.sampled_from(STREAMS),
    st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from(MUTATIONS), st.integers(0, 2)), min_size=1, max_size=4),
    st.lists(st.integers(0, 10_000), max_size=4),
)
def test_mutated_stream_raises_nothing_but_refusals(
    stream: bytes, edits: list[tuple[int, bytes, int]], places: list[int]
) -> None:
    for place, insert, drop in edits:
        at = place % (len(stream) + 1)
        stream = stream[:at] + insert + stream[at + drop :]
    whole = read([stream])
    split = read(cut(stream, places))
    assert split[0] == whole[0]
    assert bool(split[1]) == bool(whole[1]) or not split[1], (
        "a split stream may wait where a whole one is refused, not more"
    )


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
STRICT_HEAD: Final = re.compile(
    rb"(?:\r\n)?" + TOKEN + rb" [\x21-\x7e]+ HTTP/1\.[01]\r\n(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)


@settings(max_examples=1_500, deadline=None)
@given(
    st.sampled_from(STREAMS),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(MUTATIONS), st.integers(0, 2)), max_size=4),
)
def test_no_head_is_accepted_that_the_grammar_does_not_have(stream: bytes, edits: list[tuple[int, bytes, int]]) -> None:
    for place, insert, drop in edits:
        at = place % (len(stream) + 1)
        stream = stream[:at] + insert + stream[at + drop :]
    reader = Reader(HeadParser(LIMITS), LIMITS)
    reader.feed(stream)
    try:
        found = reader.next_head(Head())
    except Refusal:
        return
    if found:
        used = stream[: len(stream) - len(reader.buffer)]
        assert STRICT_HEAD.fullmatch(used), used


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_noise_raises_nothing_but_refusals(noise: bytes, places: list[int]) -> None:
    assert read(cut(noise, places))[0] == []
    for part in ([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", noise],):
        read(part)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=90), max_size=8), st.lists(st.integers(0, 2_000), max_size=8))
def test_chunked_body_comes_out_as_it_went_in(chunks: list[bytes], places: list[int]) -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    stream = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    requests, status = read(cut(stream, places))
    assert status == 0
    assert [body for *_, body in requests] == [b"".join(chunks)]


def test_repeated_headers_are_joined_and_cookies_by_semicolon() -> None:
    [(_, _, headers, _)], _ = read([get("/", "Accept: a", "Cookie: a=1", "ACCEPT: b", "Cookie: b=2")])
    assert headers == {b"host": b"localhost", b"accept": b"a, b", b"cookie": b"a=1; b=2"}


def test_absolute_target_replaces_host() -> None:
    [(_, target, headers, _)], _ = read([b"GET http://other:1/x HTTP/1.1\r\nHost: a\r\n\r\n"])
    assert (target, headers[b"host"]) == ("/x", b"other:1")


def test_limits_hold_exactly() -> None:
    path = "/" + "a" * (LIMITS.target_bytes - 1)
    assert read([get(path)])[1] == 0
    assert read([get(path + "a")])[1] == 414
    names = [f"A{i}: b" for i in range(LIMITS.headers_max - 1)]  # Host is one, too
    assert read([get("/", *names)])[1] == 0
    assert read([get("/", *names, "X: y")])[1] == 431
    filler = "A: " + "b" * (LIMITS.header_bytes - len(get("/", "A: ")))
    assert read([get("/", filler)])[1] == 0
    assert read([get("/", filler + "b")])[1] == 431
    assert read([post("/", b"x" * LIMITS.body_bytes)])[1] == 0
    assert read([post("/", b"x" * (LIMITS.body_bytes + 1))])[1] == 413


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=6))
def test_what_a_parser_remembers_changes_nothing(streams: list[bytes]) -> None:
    parser = HeadParser(LIMITS)
    for stream in streams:
        assert [read([stream], parser=parser) for _ in range(3)] == [read([stream])] * 3


def test_remembered_headers_are_each_request_s_own() -> None:
    parser, heads = HeadParser(LIMITS), [Head() for _ in range(4)]
    for head in heads:
        parser.parse(get("/"), head)
        head.headers[b"host"] = b"changed"
    assert len(parser._known) == 1
    parser.parse(get("/other"), heads[0])
    assert heads[0].headers[b"host"] != b"changed"


def test_parser_remembers_a_bounded_number_of_small_blocks() -> None:
    parser = HeadParser(Limits())
    for number in range(KNOWN_MAX + 50):
        for _ in range(2):
            parser.parse(get("/", f"X-Number: {number}"), Head())
            parser.parse(get("/", f"X-Long: {number:01024}"), Head())
            parser.parse(post("/", b"", f"X-Number: {number}"), Head())
    assert len(parser._known) == KNOWN_MAX and len(parser._once) <= KNOWN_MAX
    assert all(len(block) <= KNOWN_BYTES_MAX for block in parser._known)
