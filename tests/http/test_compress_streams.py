"""Packed streams and files: the client gets every byte, and at once."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.http import compress
from headrace.http.compress import PIECE_BYTES, WHOLE_BYTES_MAX
from headrace.http.exchange import ANSWERING, DONE, LengthMismatch
from headrace.http.fields import Fields
from headrace.http.packing import Stream, packers
from tests.http.packed import TEXT, asking, fields, is_complete, open_files, unpack
from tests.http.support import on_loop


@pytest.mark.parametrize("accept", [b"gzip", b"br", b"zstd"])
def test_every_piece_can_be_read_at_once(accept: bytes) -> None:
    inner, outer = asking(accept)
    outer.start(200, Fields.of(((b"Content-Type", b"text/event-stream"),)))
    said = b""
    for number in range(5):
        event = b"data: %d\n\n" % number
        outer.send(event)
        said += event
        assert unpack(accept, inner.body) == said
    assert not is_complete(accept, inner.body)
    outer.finish()
    assert inner.done and unpack(accept, inner.body) == said and is_complete(accept, inner.body)
    assert inner.sent_bytes == len(inner.body) and inner.shown_length is None


@given(st.lists(st.integers(0, 5_000), max_size=12), st.sampled_from([b"gzip", b"br", b"zstd"]), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_any_split_unpacks_to_the_same_body(cuts: list[int], accept: bytes, seed: int) -> None:
    body = random.Random(seed).randbytes(500) * 4 + TEXT
    inner, outer = asking(accept)
    outer.start(200, fields((b"Content-Length", b"%d" % len(body))))
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    start = 0
    for end in ends:
        outer.send(body[start:end])
        start = end
    outer.finish()
    assert unpack(accept, inner.body) == body and is_complete(accept, inner.body)


@on_loop
async def test_long_pieces_hold_the_consumer_back_and_keep_their_order() -> None:
    pieces = [TEXT * 20, b"short", TEXT * 15, b"end"]
    inner, outer = asking(b"br")
    outer.start(200, fields())
    waiting = list(pieces)

    def go_on() -> None:
        while waiting and outer.writable:
            outer.send(waiting.pop(0))
        if not waiting and outer.stage is ANSWERING:
            outer.finish()

    outer.notify = go_on
    go_on()
    assert len(waiting) == 3
    await inner.wait_done()
    assert unpack(b"br", inner.body) == b"".join(pieces) and is_complete(b"br", inner.body)


@on_loop
async def test_consumer_that_does_not_wait_loses_nothing() -> None:
    pieces = [TEXT * 20, b"short", TEXT * 15, b"end"]
    inner, outer = asking()
    outer.start(200, fields((b"Content-Length", b"%d" % sum(map(len, pieces)))))
    for piece in pieces:
        outer.send(piece)
    outer.notify = lambda: None  # set late: must not displace ours
    outer.finish()
    await inner.wait_done()
    assert unpack(b"gzip", inner.body) == b"".join(pieces)


@on_loop
async def test_consumer_that_fails_when_there_is_room_again_costs_its_request(caplog: pytest.LogCaptureFixture) -> None:
    inner, outer = asking(b"gzip")

    def fail() -> None:
        raise ValueError

    outer.notify = fail
    outer.start(200, fields())
    outer.send(TEXT * 20)
    for _ in range(20):
        await asyncio.sleep(0)
    assert inner.stage is DONE and inner.gone and not inner.done
    assert "a consumer failed" in caplog.text


def test_body_shorter_than_announced_aborts() -> None:
    inner, outer = asking()
    outer.start(200, fields((b"Content-Length", b"5000")))
    outer.send(b"x" * 4_999)
    with pytest.raises(LengthMismatch):
        outer.finish()
    assert inner.gone and not inner.done


def test_body_longer_than_announced_is_cut_there() -> None:
    inner, outer = asking()
    outer.start(200, fields((b"Content-Length", b"5000")))
    with pytest.raises(LengthMismatch):
        outer.send(b"x" * 5_001)
    outer.finish()
    assert unpack(b"gzip", inner.body) == b"x" * 5_000 and inner.done


def test_second_answer_is_refused() -> None:
    _, outer = asking()
    outer.respond(200, fields(), TEXT)
    with pytest.raises(RuntimeError):
        outer.respond(200, fields(), TEXT)


def test_open_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "STREAMS_MAX", Stream.open_count + 1)
    (_, first), (second, outer), (whole, third) = asking(), asking(), asking()
    first.start(200, fields())
    outer.start(200, fields())
    outer.send(b"plain")
    assert second.body == b"plain" and b"content-encoding" not in second.answer
    third.respond(200, fields(), TEXT)
    assert whole.answer[b"content-encoding"] == b"gzip"
    third = asking()[1]
    third.respond(200, fields(), TEXT * (WHOLE_BYTES_MAX // len(TEXT) + 1))
    assert third.answered and b"content-encoding" not in dict(third.inner.block.pairs())  # type: ignore[attr-defined]  # a fake
    before = Stream.open_count
    del first
    assert Stream.open_count == before - 1


# Files


@on_loop
async def test_file_is_packed_as_it_is_read(tmp_path: Path) -> None:
    data = TEXT * 60
    (tmp_path / "f").write_bytes(data)
    before = open_files()
    inner, outer = asking(b"zstd")
    outer.start(200, fields((b"Content-Length", b"%d" % (len(data) - 10))))
    outer.send_file(os.open(tmp_path / "f", os.O_RDONLY), 10, len(data) - 10)
    assert not outer.writable
    outer.finish()
    await inner.wait_done()
    assert unpack(b"zstd", inner.body) == data[10:]
    assert open_files() == before


@on_loop
async def test_file_that_is_cut_aborts(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(TEXT * 60)
    inner, outer = asking()
    told: list[int] = []
    outer.notify = lambda: told.append(1)
    outer.start(200, fields())
    outer.send_file(os.open(tmp_path / "f", os.O_RDONLY), 0, len(TEXT) * 61)
    outer.finish()
    for _ in range(100):
        await asyncio.sleep(0)
    assert inner.gone and not inner.done and told == [1]


def test_file_of_an_image_stays_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"png" * 1_000)
    inner, outer = asking()
    outer.start(200, Fields.of(((b"Content-Type", b"image/png"),)))
    outer.send_file(os.open(tmp_path / "f", os.O_RDONLY), 0, 3_000)
    outer.finish()
    assert inner.body == b"png" * 1_000


def test_packers_pack_what_clients_unpack() -> None:
    for coding, packer in packers().items():
        assert unpack(coding.encode(), packer(TEXT)) == TEXT


@given(
    pieces=st.lists(st.integers(0, 3 * PIECE_BYTES), min_size=1, max_size=6),
    accept=st.sampled_from([b"gzip", b"br", b"zstd"]),
    rooms=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    leaves_after=st.integers(0, 40),
)
@settings(max_examples=60)
def test_whatever_the_client_does_it_gets_a_begin_of_the_body(
    pieces: list[int], accept: bytes, rooms: list[int], leaves_after: int
) -> None:
    """It takes answers by fits and starts, and may leave: what it has is always the begin, and the whole if it stayed."""

    async def run() -> None:
        body = random.Random(1).randbytes(2_000) * (sum(pieces) // 2_000 + 1)
        ends = [sum(pieces[: n + 1]) for n in range(len(pieces))]
        inner, outer = asking(accept, room=0)
        outer.start(200, fields())
        todo = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]

        def go_on() -> None:
            while todo and outer.writable and not outer.gone:
                outer.send(todo.pop(0))
            if not todo and outer.stage is ANSWERING and outer.writable:
                outer.finish()

        outer.notify = go_on
        for turn in range(200):
            if turn == leaves_after:
                inner.lost()
            if inner.stage is DONE:
                break
            inner.take_more(rooms[turn % len(rooms)] or turn % 2)
            await asyncio.sleep(0)
        assert inner.stage is DONE
        got = unpack(accept, inner.body) if inner.body else b""
        assert body[: ends[-1]].startswith(got)
        if inner.done:
            assert got == body[: ends[-1]] and is_complete(accept, inner.body)
        else:
            assert outer.gone

    asyncio.run(run())
