"""Packed answers: when, how they say so, and that the client gets every byte, at once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.http import compress
from headrace.http.compress import PACKED_BYTES_MAX, PIECE_BYTES, WHOLE_BYTES_MAX, compressed, is_worth_packing
from headrace.http.exchange import ANSWERING, DONE, WAITING, Exchange, LengthMismatch
from headrace.http.fields import Fields
from headrace.http.packing import CODINGS, Stream, packers
from headrace.http.wrapped import Wrapped
from tests.http.fake_exchange import FakeExchange
from tests.http.support import on_loop

brotli = pytest.importorskip("brotli")
zstandard = pytest.importorskip("zstandard")

TEXT = json.dumps([{"id": n, "name": f"name {n}"} for n in range(200)]).encode()
JSON = (b"Content-Type", b"application/json")


def fields(*pairs: tuple[bytes, bytes]) -> Fields:
    return Fields.of((JSON, *pairs))


def unpack(coding: bytes, packed: bytes) -> bytes:
    """What a client that has read `packed` so far can show; strict about rests."""
    if coding == b"gzip":
        return zlib.decompressobj(31).decompress(packed)
    if coding == b"br":
        decoder = brotli.Decompressor()
        return bytes(decoder.process(packed))
    return bytes(zstandard.ZstdDecompressor().decompressobj().decompress(packed))


def is_complete(coding: bytes, packed: bytes) -> bool:
    if coding == b"gzip":
        gzip = zlib.decompressobj(31)
        gzip.decompress(packed)
        return gzip.eof and not gzip.unused_data
    if coding == b"br":
        decoder = brotli.Decompressor()
        decoder.process(packed)
        return bool(decoder.is_finished())
    zstd = zstandard.ZstdDecompressor().decompressobj()
    zstd.decompress(packed)
    return bool(zstd.eof and not zstd.unused_data)


def asking(accept: bytes = b"gzip", *, method: str = "GET", room: int = 1 << 60) -> tuple[FakeExchange, Exchange]:
    inner = FakeExchange("/", {b"accept-encoding": accept}, method=method, room=room)
    return inner, compressed(inner)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_all_codings_are_there() -> None:
    assert CODINGS == ("zstd", "br", "gzip")


# The decision


@pytest.mark.parametrize(
    ("status", "pairs", "length", "expected"),
    [
        (200, [JSON], 5_000, True),
        (200, [JSON], 1_024, True),
        (200, [JSON], 1_023, False),
        (200, [JSON], 0, False),
        (200, [JSON], None, True),
        (200, [JSON], PACKED_BYTES_MAX, True),
        (200, [JSON], PACKED_BYTES_MAX + 1, False),
        (404, [JSON], 5_000, True),
        (500, [(b"content-type", b"text/html")], 5_000, True),
        (204, [JSON], None, False),
        (206, [JSON], 5_000, False),
        (304, [JSON], None, False),
        (200, [(b"Content-Type", b"image/png")], 5_000, False),
        (200, [], 5_000, False),
        (200, [JSON, (b"Content-Encoding", b"gzip")], 5_000, False),
        (200, [JSON, (b"content-encoding", b"identity")], 5_000, False),
        (200, [JSON, (b"Cache-Control", b"private, No-Transform")], 5_000, False),
        (200, [JSON, (b"Cache-Control", b"max-age=1")], 5_000, True),
        (200, [JSON, (b"Content-Digest", b"sha-256=:x:")], 5_000, False),
        (200, [JSON, (b"Digest", b"x")], 5_000, False),
        (200, [(b"X-Content-Type", b"text/html"), (b"Content-Type", b"image/png")], 5_000, False),
    ],
)
def test_what_is_worth_packing(
    status: int, pairs: list[tuple[bytes, bytes]], length: int | None, expected: bool
) -> None:
    assert is_worth_packing(status, Fields.of(pairs), length) is expected


@pytest.mark.parametrize("accept", [b"", b"deflate", b"identity", b"gzip;q=0, br;q=0, zstd;q=0"])
def test_client_that_takes_none_gets_its_exchange_as_it_is(accept: bytes) -> None:
    inner, outer = asking(accept)
    assert outer is inner
    assert compressed(plain := FakeExchange("/")) is plain


def test_tunnels_are_left_alone() -> None:
    inner = FakeExchange("/", {b"accept-encoding": b"gzip"})
    inner.upgrade = b"websocket"
    assert compressed(inner) is inner


# Whole answers


@pytest.mark.parametrize("accept", [b"gzip", b"br", b"zstd"])
def test_whole_answer_is_packed(accept: bytes) -> None:
    inner, outer = asking(accept)
    done: list[Exchange] = []
    inner.on_done = done.append
    outer.respond(200, fields((b"Content-Length", b"%d" % len(TEXT)), (b"ETag", b'"x"')), TEXT)
    assert inner.answer == {
        b"content-type": b"application/json",
        b"etag": b'W/"x"',
        b"content-encoding": accept,
        b"vary": b"Accept-Encoding",
    }
    assert unpack(accept, inner.body) == TEXT and is_complete(accept, inner.body)
    assert len(inner.body) < len(TEXT) / 3
    assert inner.sent_bytes == outer.sent_bytes == inner.shown_length == len(inner.body)
    assert done == [inner] and inner.stage is outer.stage is DONE and outer.status == 200


def test_headers_are_changed_as_little_as_needed() -> None:
    inner, outer = asking()
    given = fields(
        (b"Vary", b"Cookie"), (b"ETag", b'W/"y"'), (b"Accept-Ranges", b"bytes"), (b"Set-Cookie", b"a=1"), (b"Date", b"now")
    )  # fmt: skip
    outer.respond(200, given, TEXT)
    assert inner.block.pairs() == [
        (b"content-type", b"application/json"),
        (b"vary", b"Cookie"),
        (b"etag", b'W/"y"'),
        (b"set-cookie", b"a=1"),
        (b"date", b"now"),
        (b"content-encoding", b"gzip"),
        (b"vary", b"Accept-Encoding"),
    ]
    assert inner.block.dated and not inner.block.served


@pytest.mark.parametrize("vary", [b"Accept-Encoding", b"Cookie, accept-encoding", b"*"])
def test_vary_is_not_said_twice(vary: bytes) -> None:
    inner, outer = asking()
    outer.respond(200, fields((b"Vary", vary)), TEXT)
    assert [value for name, value in inner.block.pairs() if name == b"vary"] == [vary]


def test_answers_not_worth_it_pass_unchanged() -> None:
    inner, outer = asking()
    outer.respond(200, given := Fields.of(((b"Content-Type", b"image/png"),)), TEXT)
    assert inner.block is given and inner.body == TEXT and inner.sent_bytes == len(TEXT)
    inner, outer = asking()
    outer.respond(200, given := fields(), b"short")
    assert inner.block is given and inner.body == b"short"


def test_wrong_length_of_the_application_is_refused_as_without() -> None:
    inner, outer = asking()
    with pytest.raises(LengthMismatch):
        outer.respond(200, fields((b"Content-Length", b"5000")), TEXT)
    assert inner.stage is WAITING


@pytest.mark.parametrize("as_stream", [True, False])
def test_head_has_the_headers_of_get_without_its_length(*, as_stream: bool) -> None:
    get, outer = asking()
    given = fields((b"Content-Length", b"%d" % len(TEXT)), (b"ETag", b'"x"'))
    outer.respond(200, given, TEXT)
    head, outer = asking(method="HEAD")
    if as_stream:
        outer.start(200, given)
        outer.send(TEXT)
        outer.finish()
    else:
        outer.respond(200, given)
    assert head.done and head.body == b"" and head.sent_bytes == 0
    assert head.block.block == get.block.block and head.block.length is None


@on_loop
async def test_long_body_is_packed_a_piece_a_turn() -> None:
    body = random.Random(1).randbytes(1_000) * 500
    inner, outer = asking(b"zstd")
    outer.respond(200, fields((b"Content-Length", b"%d" % len(body))), body)
    assert inner.stage is ANSWERING and not outer.writable and inner.sends == []
    turns = 0
    while not inner.done:
        await asyncio.sleep(0)
        turns += 1
        assert len(inner.sends) <= turns + 1
    assert turns >= len(body) / PIECE_BYTES
    assert unpack(b"zstd", inner.body) == body and is_complete(b"zstd", inner.body)
    assert inner.sent_bytes == len(inner.body) < len(body)


@on_loop
async def test_long_body_waits_for_the_client() -> None:
    body = TEXT * 100
    inner, outer = asking(room=1)
    outer.respond(200, fields(), body)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(inner.sends) == 1 and not inner.done
    while not inner.done:
        inner.take_more(1)
        await asyncio.sleep(0)
    assert unpack(b"gzip", inner.body) == body


@on_loop
async def test_client_that_leaves_ends_the_packing() -> None:
    inner, outer = asking()
    told: list[int] = []
    outer.notify = lambda: told.append(1)
    outer.respond(200, fields(), TEXT * 100)
    await asyncio.sleep(0)
    inner.lost()
    assert told == [1]
    for _ in range(9):
        await asyncio.sleep(0)
    assert len(inner.sends) == 1 and outer.gone and outer.stage is DONE


# Streams


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


# The wrapper


def test_wrapper_has_no_state_of_its_own() -> None:
    inner = FakeExchange("/path?q", {b"host": b"h"})
    outer = Wrapped(Wrapped(inner))
    for name in Exchange.__slots__:
        if name != "on_done":
            assert getattr(outer, name) == getattr(inner, name)
    outer.route, outer.lane, outer.waited_s = "r", 2, 1.5
    assert (inner.route, inner.lane, inner.waited_s) == ("r", 2, 1.5)
    inner.received = b"body"
    assert outer.take() == b"body" and outer.ended
    outer.inform(103, Fields())
    assert inner.informed == [103]
    outer.start(200, Fields())
    outer.send(b"12345")
    assert (inner.stage, inner.sent_bytes, inner.body) == (ANSWERING, 5, b"12345")
    told: list[int] = []
    outer.notify = lambda: told.append(1)
    inner.lost()
    assert outer.gone and told == [1] and outer.writable
    outer.send(b"more")
    outer.finish()
    outer.abort()
    assert inner.body == b"12345" and not inner.done


def test_wrapper_aborts_and_tunnels_through() -> None:
    inner = FakeExchange("/")
    inner.upgrade = b"websocket"
    done: list[Exchange] = []
    outer = Wrapped(inner)
    outer.on_done = done.append
    outer.tunnel(Fields())
    outer.send(b"raw")
    assert inner.status == 101 and inner.body == b"raw"
    outer.abort()
    assert inner.gone and done == [inner]
