"""Conditions, ranges and packed siblings, as answers; the rules are in test_static_conditions.py."""

from __future__ import annotations

import email
import gzip
import random
from pathlib import Path

import pytest

from headrace.http.static import StaticFiles
from headrace.http.static_files import SMALL_BYTES_MAX
from tests.http.fake_exchange import FakeExchange
from tests.http.static_support import OLD_S, age, get, make_root, settled, write
from tests.http.support import on_loop


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def test_unchanged_file_is_304_with_its_validators(root: Path) -> None:
    files = StaticFiles(root)
    full = get(files, "/a.txt")
    for headers in (
        {b"if-none-match": full.answer[b"etag"]},
        {b"if-none-match": b'W/"x", W/' + full.answer[b"etag"]},
        {b"if-modified-since": full.answer[b"last-modified"]},
    ):
        answer = get(files, "/a.txt", headers)
        assert (answer.status, answer.body) == (304, b"")
        assert set(answer.answer) == {b"etag", b"last-modified", b"cache-control", b"vary"}
    assert get(files, "/a.txt", {b"if-match": b'"other"'}).status == 412


@pytest.mark.parametrize("size", [1_000, SMALL_BYTES_MAX + 1_000])
def test_range_of_small_and_big_files(root: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    write(root / "data.bin", data)
    files = StaticFiles(root)
    answer = get(files, "/data.bin", {b"range": b"bytes=100-299"})
    assert (answer.status, answer.body, answer.sent_bytes) == (206, data[100:300], 200)
    assert answer.answer[b"content-range"] == b"bytes 100-299/%d" % size
    assert answer.answer[b"content-length"] == b"200"
    assert get(files, "/data.bin", {b"range": b"bytes=-5"}).body == data[-5:]
    assert get(files, "/data.bin", {b"range": b"bytes=900-"}).body == data[900:]
    assert get(files, "/data.bin", {b"range": b"bytes=0-"}).status == 206
    assert get(files, "/data.bin", {b"range": b"bytes=5-1"}).status == 200
    head = get(files, "/data.bin", {b"range": b"bytes=0-1"}, method="HEAD")
    assert (head.status, head.answer[b"content-length"]) == (200, b"%d" % size)


def test_range_beyond_the_end_is_416(root: Path) -> None:
    answer = get(StaticFiles(root), "/a.txt", {b"range": b"bytes=10-"})
    assert (answer.status, answer.answer[b"content-range"]) == (416, b"bytes */10")


@pytest.mark.parametrize("path", ["/a.txt", "/big.bin"])
def test_several_ranges_are_a_multipart_message(root: Path, path: str) -> None:
    data = (root / path[1:]).read_bytes()
    answer = get(StaticFiles(root), path, {b"range": b"bytes=0-1, 4-6, -2"})
    assert answer.status == 206
    assert answer.shown_length == len(answer.body)
    message = email.message_from_bytes(b"Content-Type: " + answer.answer[b"content-type"] + b"\r\n" + answer.body)
    assert message.is_multipart()
    found = [(part["content-range"], part.get_payload(decode=True)) for part in message.walk() if part is not message]
    size = len(data)
    assert found == [
        (f"bytes 0-1/{size}", data[:2]),
        (f"bytes 4-6/{size}", data[4:7]),
        (f"bytes {size - 2}-{size - 1}/{size}", data[-2:]),
    ]


def test_if_range_with_an_old_tag_answers_the_whole_file(root: Path) -> None:
    files = StaticFiles(root)
    etag = get(files, "/a.txt").answer[b"etag"]
    headers = {b"range": b"bytes=0-1", b"if-range": etag}
    assert get(files, "/a.txt", headers).body == b"01"
    write(root / "a.txt", b"abcdefghij", seconds=OLD_S + 1)
    answer = get(files, "/a.txt", headers)
    assert (answer.status, answer.body) == (200, b"abcdefghij")


# Packed siblings

ALL = {b"accept-encoding": b"gzip, deflate, br, zstd"}


def test_sibling_is_chosen_by_the_clients_weights(root: Path) -> None:
    for suffix in (".gz", ".br", ".zst"):
        write(root / f"a.txt{suffix}", b"packed" + suffix.encode())
    files = StaticFiles(root)
    plain = get(files, "/a.txt")
    assert (plain.body, plain.answer[b"vary"]) == (b"0123456789", b"Accept-Encoding")
    tags = {plain.answer[b"etag"]}
    for accept, coding, body in (
        (b"gzip, deflate, br, zstd", b"br", b"packed.br"),
        (b"gzip", b"gzip", b"packed.gz"),
        (b"br;q=0.1, zstd;q=0.9", b"zstd", b"packed.zst"),
        (b"*;q=0.5, br;q=0", b"zstd", b"packed.zst"),
    ):
        answer = get(files, "/a.txt", {b"accept-encoding": accept})
        assert (answer.body, answer.answer[b"content-encoding"]) == (body, coding)
        assert answer.answer[b"content-type"] == b"text/plain; charset=utf-8"
        assert b"accept-ranges" not in answer.answer
        tags.add(answer.answer[b"etag"])
        again = get(files, "/a.txt", {b"accept-encoding": accept, b"if-none-match": answer.answer[b"etag"]})
        assert again.status == 304
    assert len(tags) == 4
    assert get(files, "/a.txt", {b"accept-encoding": b"identity, gzip;q=0.5"}).body == b"0123456789"
    assert get(files, "/a.txt", {**ALL, b"range": b"bytes=0-1"}).body == b"01"


def test_sibling_older_than_its_original_is_not_used(root: Path) -> None:
    write(root / "a.txt.gz", b"stale", seconds=OLD_S - 1)
    files = StaticFiles(root)
    assert get(files, "/a.txt", ALL).body == b"0123456789"


def test_replaced_original_stops_its_sibling_at_once(root: Path) -> None:
    write(root / "a.txt.br", b"packed")
    files = settled(StaticFiles(root))
    assert get(files, "/a.txt", ALL).body == b"packed"
    assert get(files, "/a.txt", ALL).body == b"packed"
    write(root / "a.txt", b"new", seconds=OLD_S + 5)
    assert get(files, "/a.txt", ALL).body == b"new"
    write(root / "a.txt.br", b"new packed", seconds=OLD_S + 5)
    files._files._clock = lambda: 1e12  # a second has passed
    assert get(files, "/a.txt", ALL).body == b"new packed"
    write(root / "a.txt.br", b"newer packed", seconds=OLD_S + 6)
    assert get(files, "/a.txt", ALL).body == b"newer packed"
    (root / "a.txt.br").unlink()
    assert get(files, "/a.txt", ALL).body == b"new"


def test_sibling_that_leads_out_is_not_used(root: Path, tmp_path: Path) -> None:
    (root / "a.txt.gz").symlink_to(age(tmp_path / "secret.txt", OLD_S + 9))
    (root / "a.txt.br").mkdir()
    assert get(StaticFiles(root), "/a.txt", ALL).body == b"0123456789"


def test_big_sibling_is_sent_from_its_descriptor(root: Path) -> None:
    write(root / "big.bin.zst", b"z" * 100_000)
    answer = get(StaticFiles(root), "/big.bin", ALL)
    assert (answer.body, answer.answer[b"content-encoding"]) == (b"z" * 100_000, b"zstd")


def test_small_text_is_packed_once_and_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def shout(body: bytes) -> bytes:
        calls.append(len(body))
        return b"PACKED"

    write(root / "long.css", b"a{color:red}" * 200)
    write(root / "photo.jpg", b"a{color:red}" * 200)
    monkeypatch.setattr("headrace.http.static.packers", lambda: {"gzip": shout})
    files = settled(StaticFiles(root, compress=True))
    for _ in range(3):
        answer = get(files, "/long.css", ALL)
        assert (answer.body, answer.answer[b"content-encoding"]) == (b"PACKED", b"gzip")
        assert answer.answer[b"etag"].endswith(b'-gzip"')
    assert calls == [2400]
    for path in ("/photo.jpg", "/a.txt"):
        assert b"content-encoding" not in get(files, path, ALL).answer
    kept = files._files._entries.values()
    assert files._files._bytes == sum(entry.weight for entry in kept)
    write(root / "long.css", b"b{color:red}" * 300)
    get(files, "/long.css", ALL)
    assert calls == [2400, 3600]


@on_loop
async def test_big_text_is_packed_as_it_is_sent(root: Path) -> None:
    data = b"a long line of text, " * 20_000
    write(root / "big.txt", data)
    files = StaticFiles(root, compress=True)
    exchange = FakeExchange("/big.txt", {b"accept-encoding": b"gzip"})
    files(exchange)
    await exchange.wait_done()
    assert gzip.decompress(exchange.body) == data
    assert exchange.answer[b"etag"].startswith(b'W/"') and b"content-length" not in exchange.answer
    again = get(files, "/big.txt", {b"accept-encoding": b"gzip", b"if-none-match": exchange.answer[b"etag"]})
    assert again.status == 304
    assert get(files, "/big.txt", {b"accept-encoding": b"gzip", b"range": b"bytes=0-5"}).body == data[:6]
    head = get(files, "/big.txt", {b"accept-encoding": b"gzip"}, method="HEAD")
    assert head.body == b"" and head.block.block == exchange.block.block
