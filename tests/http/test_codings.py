"""What Accept-Encoding means, and what is worth packing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.http.codings import choose, is_packable

ALL = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", ""),
        (b"gzip", "gzip"),
        (b"GZIP", "gzip"),
        (b"x-gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip, deflate, br", "br"),
        (b"deflate", ""),
        (b"identity", ""),
        (b"*", "zstd"),
        (b"*;q=0", ""),
        (b"gzip;q=0", ""),
        (b"gzip;q=0, *", "zstd"),
        (b"zstd;q=0, br;q=0.000, *;q=0.1", "gzip"),
        (b"br;q=0.5, gzip;q=0.8", "gzip"),
        (b"br ; q=0.5 ,\tgzip;Q=0.5", "br"),
        (b"identity;q=0", ""),
        (b"identity;q=0, gzip;q=0.1", "gzip"),
        (b"identity;q=1, gzip;q=0.5", ""),
        (b"identity, gzip", "gzip"),
        (b"gzip;q=1.5", ""),
        (b"gzip;q=-1", ""),
        (b"gzip;q=nan", ""),
        (b"gzip;q=1e9", ""),
        (b"gzip;q=", ""),
        (b"gzip;level=9", ""),
        (b"gzip q=1", ""),
        (b"gzip;q=0.0001", ""),
        (b"gz\x00ip, br", "br"),
        (b",,, ,gzip,,", "gzip"),
        (b"gzip" + b" " * 400, "gzip"),
        (b"a," * 600 + b"gzip", ""),
    ],
)
def test_choice(accept: bytes, expected: str) -> None:
    assert choose(accept, ALL) == expected


def test_only_what_is_available_is_chosen() -> None:
    assert choose(b"br, zstd, gzip;q=0.1", ("gzip",)) == "gzip"
    assert choose(b"br", ()) == ""


@given(st.binary(max_size=1200) | st.text("gzipbr*;q=01., \t-", max_size=80).map(str.encode))
@settings(max_examples=400)
def test_whatever_is_asked_the_choice_is_one_of_ours(accept: bytes) -> None:
    assert choose(accept, ALL) in ("", *ALL)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"text/html; charset=utf-8", True),
        (b"TEXT/HTML", True),
        (b"text/event-stream", True),
        (b"application/json", True),
        (b"application/problem+json", True),
        (b"application/vnd.api+json;v=1", True),
        (b"text/javascript", True),
        (b"application/javascript", True),
        (b"application/xml", True),
        (b"image/svg+xml", True),
        (b"application/wasm", True),
        (b"application/manifest+json", True),
        (b"application/x-ndjson", True),
        (b"font/ttf", True),
        (b"image/png", False),
        (b"image/jpeg", False),
        (b"font/woff2", False),
        (b"video/mp4", False),
        (b"application/zip", False),
        (b"application/gzip", False),
        (b"application/octet-stream", False),
        (b"application/pdf", False),
        (b"multipart/byteranges; boundary=x", False),
        (b"", False),
        (b"json", False),
    ],
)
def test_what_is_packable(content_type: bytes, expected: bool) -> None:
    assert is_packable(content_type) is expected
