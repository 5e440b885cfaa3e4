"""The corpus against both kinds of connection, cut at every place where a network may cut it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.http.messages import Request
from tests.http.hostile.cases import CUT, HOSTILE, LAST, LIMITS, SMUGGLED, SOUND
from tests.http.streamed import Echo, StreamRig, read_answers
from tests.http.support import Rig

ENGINES = ("buffered", "streamed")
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
TURNS = 50  # more than any stream of the corpus needs to come to rest


@dataclass(frozen=True)
class Outcome:
    statuses: tuple[int, ...]
    closing: bool
    """Whether the server takes no more requests."""
    seen: tuple[tuple[str, str, bytes], ...]


def outcome(engine: str, pieces: Sequence[bytes]) -> Outcome:
    """What becomes of a stream that arrives in `pieces`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_outcome(engine, pieces))


async def _outcome(engine: str, pieces: Sequence[bytes]) -> Outcome:
    echo = Echo()

    def handler(request: Request) -> None:
        echo.seen.append((request.method, request.target, request.body))
        request.respond(200, request.body, b"text/plain")

    rig = Rig(handler, LIMITS) if engine == "buffered" else StreamRig(echo, LIMITS)
    transport = rig.transport
    try:
        for piece in pieces:
            for _ in range(TURNS):
                if transport.reading or transport.closed:
                    break
                await asyncio.sleep(0)
            if transport.closed:
                break
            rig.receive(piece)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        methods = [method for method, _, _ in echo.seen]
        statuses = tuple(answer.status for answer in read_answers(transport.written, methods) if answer.status != 100)
        return Outcome(statuses, transport.closed or transport.eof_written, tuple(echo.seen))
    finally:
        transport.socket.close()
        transport.client.close()


def splits(stream: bytes) -> list[list[bytes]]:
    """In one piece; a byte at a time; and in two, around every line's end."""
    found = [[stream], [stream[at : at + 1] for at in range(len(stream))]]
    if len(stream) < 1_500:
        ends = [at for at in range(1, len(stream)) if stream[at - 1 : at] in {b"\r", b"\n"}]
        found += [[stream[:at], stream[at:]] for at in ends]
    return found


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_stream_is_refused_however_it_is_cut(engine: str, name: str) -> None:
    stream, status = HOSTILE[name]
    for pieces in splits(stream + SMUGGLED):
        assert outcome(engine, pieces) == Outcome((status,), closing=True, seen=()), pieces


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("engine", ENGINES)
def test_valid_stream_is_served_however_it_is_cut(engine: str, name: str) -> None:
    stream, expected = SOUND[name]
    seen = (*expected, ("GET", "/next", b""))
    for pieces in splits(stream + NEXT):
        assert outcome(engine, pieces) == Outcome((200,) * len(seen), closing=False, seen=seen), pieces


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_read_behind_a_last_request(engine: str, name: str) -> None:
    for pieces in splits(LAST[name] + SMUGGLED):
        found = outcome(engine, pieces)
        assert (found.statuses, found.closing, len(found.seen)) == ((200,), True, 1), pieces


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("engine", ENGINES)
def test_cut_request_is_whole_for_nobody(engine: str, name: str) -> None:
    for pieces in splits(CUT[name]):
        assert outcome(engine, pieces) == Outcome((), closing=False, seen=()), pieces


STREAMS = [stream for stream, _ in HOSTILE.values()] + [stream for stream, _ in SOUND.values()] + list(LAST.values())


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[begin:end] for begin, end in pairwise(ends)]


@settings(max_examples=150, deadline=None)
@given(
    stream=st.sampled_from(STREAMS), behind=st.sampled_from(STREAMS), places=st.lists(st.integers(0, 6_000), max_size=6)
)
def test_same_bytes_same_answers(stream: bytes, behind: bytes, places: list[int]) -> None:
    whole = outcome("streamed", [stream + behind + SMUGGLED])
    assert alike(outcome("streamed", cut(stream + behind + SMUGGLED, places))) == alike(whole)
    assert outcome("buffered", [stream + behind + SMUGGLED]) == whole


TOKENS = st.sampled_from(
    b"\r\n|\n|\r|\0| |\t|:|;|,|0|5|_|+|-|chunked|\xff|HTTP/1.0|Host: b\r\n|Content-Length: 5\r\n"
    b"|Transfer-Encoding: chunked\r\n|Connection: close\r\n".split(b"|")
)


@settings(max_examples=300, deadline=None)
@given(
    stream=st.sampled_from(STREAMS),
    changes=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 3), TOKENS), min_size=1, max_size=4),
    places=st.lists(st.integers(0, 6_000), max_size=4),
)
def test_mutated_streams_are_read_alike_by_both_engines(
    stream: bytes, changes: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    for place, removed, added in changes:
        at = place % (len(stream) + 1)
        stream = stream[:at] + added + stream[at + removed :]
    stream += SMUGGLED
    assert alike(outcome("streamed", cut(stream, places))) == alike(outcome("buffered", [stream]))


def alike(found: Outcome) -> Outcome:
    """Where there are two faults, the one that is seen first depends on what arrives first; refused it is."""
    return replace(found, statuses=tuple([min(status, 400) for status in found.statuses]))
