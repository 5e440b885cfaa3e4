"""What the tests of compression share: a client that unpacks."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from headrace.http.compress import compressed
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from tests.http.fake_exchange import FakeExchange

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
