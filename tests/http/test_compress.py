"""Packed answers: when, and how they say so."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import pytest

from headrace.http.compress import PACKED_BYTES_MAX, PIECE_BYTES, compressed, is_worth_packing
from headrace.http.exchange import ANSWERING, DONE, WAITING, Exchange, LengthMismatch
from headrace.http.fields import Fields
from headrace.http.packing import CODINGS
from tests.http.fake_exchange import FakeExchange
from tests.http.packed import JSON, TEXT, asking, fields, is_complete, unpack
from tests.http.support import on_loop
from tests.patience import PATIENCE_S


def test_without_the_extra_packages_there_is_gzip() -> None:
    code = (
        "import sys; sys.modules['brotli'] = sys.modules['zstandard'] = None\n"
        "from headrace.http.packing import CODINGS, pack, packers\n"
        "import gzip; assert CODINGS == ('gzip',) and list(packers()) == ['gzip']\n"
        "assert gzip.decompress(pack('gzip', b'x' * 2000)) == b'x' * 2000"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


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
