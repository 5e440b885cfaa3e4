"""RFC 9113 (and RFC 7541) case by case: what a client does wrong, and what becomes of its stream or connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from hyperframe.frame import PingFrame, SettingsFrame

from headrace.http.exchange import Exchange
from headrace.http.h2_frames import Code
from tests.http import h2_frames as frames
from tests.http.h2_frames import frame
from tests.http.h2_support import PLAIN, Pair, RawClient, request_head
from tests.http.support import on_loop

Build: TypeAlias = Callable[[RawClient], bytes]
Outcome: TypeAlias = Code | int

POST = request_head(b"POST")
COMPRESSION = Code.PROTOCOL_ERROR
"""Says the library where the RFC says COMPRESSION_ERROR."""


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def answer(exchange: Exchange) -> None:
    exchange.respond(200, PLAIN, b"hello")


def open_upload(client: RawClient, stream: int = 1, *more: Pair) -> bytes:
    return client.head(stream, request_head(b"POST", b"/", *more), end=False)


def padded(kind: int, flags: int, stream: int, payload: bytes, padding: int, said: int | None = None) -> bytes:
    size = padding if said is None else said
    return frame(kind, flags | frames.PADDED, stream, bytes([size]) + payload + bytes(padding))


def of_setting(name: int, value: int) -> bytes:
    return frames.settings({name: value})


def half_block(client: RawClient) -> bytes:
    block = client.encoder.encode(request_head())
    return frame(frames.HEADERS, frames.END_STREAM, 1, block[:2])


def overflow_by_settings(client: RawClient) -> bytes:
    return open_upload(client) + frames.window_update(1, 2**31 - 1 - 65_535) + of_setting(4, 65_536)


def without(name: bytes) -> list[Pair]:
    return [pair for pair in request_head() if pair[0] != name]


def with_field(client: RawClient, name: bytes, value: bytes) -> bytes:
    return client.head(1, request_head(b"GET", b"/", (name, value)))


def upload(client: RawClient, length: bytes, *pieces: bytes, more: Pair | None = None, end: bool = True) -> bytes:
    extra = [more] if more else []
    sent = client.head(1, request_head(b"POST", b"/", (b"content-length", length), *extra), end=False)
    for piece in pieces[:-1]:
        sent += frame(frames.DATA, 0, 1, piece)
    return sent + frame(frames.DATA, frames.END_STREAM if end else 0, 1, pieces[-1])


def in_continuations(client: RawClient, pairs: list[Pair]) -> bytes:
    block = client.encoder.encode(pairs, huffman=False)
    return frames.header_frames(block, stream=1, size_max=16_384, end_stream=True)


def long_head(client: RawClient) -> bytes:
    return in_continuations(client, request_head(b"GET", b"/", (b"a", b"b" * 17_000), (b"c", b"d" * 17_000)))


def long_path(client: RawClient) -> bytes:
    return in_continuations(client, request_head(path=b"/" + b"x" * 16_384))


def with_everything(client: RawClient) -> bytes:
    block = u32(3) + b"\x07" + client.encoder.encode(request_head())
    return padded(frames.HEADERS, 5 | frames.WITH_PRIORITY, 1, block, 50)


def in_pieces(client: RawClient, size: int = 1, *, empty: bool = False) -> bytes:
    block = client.encoder.encode(request_head())
    sent = frames.header_frames(block, stream=1, size_max=size, end_stream=True)
    if empty:
        first = 9 + size
        sent = sent[:first] + frame(frames.CONTINUATION, 0, 1) + sent[first:]
    return sent


# What ends the connection: GOAWAY with this code, then the end.
FATAL: list[tuple[str, Build, Code]] = [
    ("4.1 unknown frame in a header block", lambda c: half_block(c) + frame(0xBE, 0, 1, b"x"), Code.PROTOCOL_ERROR),
    ("4.2 frame above the maximum", lambda c: frame(frames.DATA, 0, 1, bytes(16_385)), Code.FRAME_SIZE_ERROR),
    ("4.2 large HEADERS", lambda c: frame(frames.HEADERS, 4, 1, bytes(16_385)), Code.FRAME_SIZE_ERROR),
    (
        "4.3 undecodable block",
        lambda c: frame(frames.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
        COMPRESSION,
    ),
    ("4.3 cut block", lambda c: frame(frames.HEADERS, 5, 1, b"\x40\x0a"), COMPRESSION),
    ("4.3 block broken off by PRIORITY", lambda c: half_block(c) + frame(2, 0, 1, bytes(5)), Code.PROTOCOL_ERROR),
    ("4.3 block broken off by HEADERS", lambda c: half_block(c) + c.head(3), Code.PROTOCOL_ERROR),
    ("4.3 CONTINUATION of another", lambda c: half_block(c) + frame(9, 4, 3, b""), Code.PROTOCOL_ERROR),
    ("5.1 idle: DATA", lambda c: frame(frames.DATA, 1, 1, b"x"), Code.PROTOCOL_ERROR),
    ("5.1 idle: RST_STREAM", lambda c: frames.reset(1, Code.CANCEL), Code.PROTOCOL_ERROR),
    ("5.1 idle: WINDOW_UPDATE", lambda c: frames.window_update(1, 1), Code.PROTOCOL_ERROR),
    ("5.1 idle: CONTINUATION", lambda c: frame(frames.CONTINUATION, 4, 1, b""), Code.PROTOCOL_ERROR),
    ("5.1 closed: HEADERS", lambda c: c.head(1) + b"|" + c.head(1), Code.STREAM_CLOSED),
    ("5.1 closed: CONTINUATION", lambda c: c.head(1) + b"|" + frame(9, 4, 1, b""), Code.PROTOCOL_ERROR),
    ("5.1.1 even stream", lambda c: c.head(2), Code.PROTOCOL_ERROR),
    ("5.1.1 older stream that never was", lambda c: c.head(5) + c.head(3), Code.PROTOCOL_ERROR),
    ("6.1 DATA on stream 0", lambda c: frame(frames.DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    ("6.1 more padding than payload", lambda c: open_upload(c) + padded(0, 0, 1, b"", 3, said=9), Code.PROTOCOL_ERROR),
    ("6.1 padded without a length", lambda c: open_upload(c) + frame(0, frames.PADDED, 1), Code.FRAME_SIZE_ERROR),
    ("6.2 HEADERS on stream 0", lambda c: c.head(0), Code.PROTOCOL_ERROR),
    ("6.2 more padding than block", lambda c: padded(1, 5, 1, b"\x82", 1, said=7), Code.PROTOCOL_ERROR),
    ("6.2 no room for the priority", lambda c: frame(1, 5 | frames.WITH_PRIORITY, 1, b"\x82"), Code.FRAME_SIZE_ERROR),
    ("6.3 PRIORITY on stream 0", lambda c: frame(frames.PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    ("6.3 PRIORITY of 4 bytes", lambda c: frame(frames.PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    ("6.4 RST_STREAM on stream 0", lambda c: frames.reset(0, Code.CANCEL), Code.PROTOCOL_ERROR),
    ("6.4 RST_STREAM of 3 bytes", lambda c: open_upload(c) + frame(3, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
    ("6.5 SETTINGS on a stream", lambda c: frame(frames.SETTINGS, 0, 1, b""), Code.PROTOCOL_ERROR),
    ("6.5 SETTINGS of 5 bytes", lambda c: frame(frames.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    ("6.5 ACK with a payload", lambda c: frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), Code.PROTOCOL_ERROR),
    ("6.5.2 ENABLE_PUSH 2", lambda c: of_setting(2, 2), Code.PROTOCOL_ERROR),
    ("6.5.2 INITIAL_WINDOW_SIZE 2^31", lambda c: of_setting(4, 2**31), Code.FLOW_CONTROL_ERROR),
    ("6.5.2 MAX_FRAME_SIZE 16383", lambda c: of_setting(5, 16_383), Code.PROTOCOL_ERROR),
    ("6.5.2 MAX_FRAME_SIZE 2^24", lambda c: of_setting(5, 2**24), Code.PROTOCOL_ERROR),
    ("8441 ENABLE_CONNECT_PROTOCOL 2", lambda c: of_setting(8, 2), Code.PROTOCOL_ERROR),
    ("6.6 PUSH_PROMISE from a client", lambda c: open_upload(c) + frame(5, 4, 1, u32(2)), Code.PROTOCOL_ERROR),
    ("6.7 PING on a stream", lambda c: frame(frames.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    ("6.7 PING of 7 bytes", lambda c: frame(frames.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    ("6.8 GOAWAY on a stream", lambda c: frame(frames.GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    ("6.8 GOAWAY of 7 bytes", lambda c: frame(frames.GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    ("6.9 WINDOW_UPDATE by 0", lambda c: frames.window_update(0, 0), Code.PROTOCOL_ERROR),
    ("6.9 WINDOW_UPDATE of 3 bytes", lambda c: frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    ("6.9.1 connection window above 2^31-1", lambda c: frames.window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    ("6.9.2 stream window above 2^31-1", overflow_by_settings, Code.FLOW_CONTROL_ERROR),
    ("6.10 CONTINUATION after the end", lambda c: c.head(1) + frame(9, 4, 1, b""), Code.PROTOCOL_ERROR),
    ("6.10 CONTINUATION on stream 0", lambda c: half_block(c) + frame(9, 4, 0, b""), Code.PROTOCOL_ERROR),
    (
        "6.10 CONTINUATION after DATA",
        lambda c: open_upload(c) + frame(0, 0, 1, b"x") + frame(9, 4, 1),
        Code.PROTOCOL_ERROR,
    ),
    ("7541 2.3.3 index beyond the tables", lambda c: frame(1, 5, 1, b"\xfe"), COMPRESSION),
    ("7541 4.2 table larger than allowed", lambda c: frame(1, 5, 1, b"\x3f\xe2\x1f\x82"), COMPRESSION),
    ("7541 4.2 resize after a field", lambda c: frame(1, 5, 1, b"\x82\x20"), COMPRESSION),
    ("7541 5.2 Huffman with EOS", lambda c: frame(1, 5, 1, b"\x00\x84\xff\xff\xff\xff\x00"), COMPRESSION),
    ("7541 5.2 Huffman padded by 8 bits", lambda c: frame(1, 5, 1, b"\x00\x82\x1f\xff\x00"), COMPRESSION),
    ("7541 6.1 index 0", lambda c: frame(1, 5, 1, b"\x80"), COMPRESSION),
    # Of these the RFC would let the other streams go on; it also allows this (5.4.2), and the library knows no other way.
    ("6.9 stream's WINDOW_UPDATE by 0", lambda c: open_upload(c) + frames.window_update(1, 0), Code.PROTOCOL_ERROR),
    (
        "8.1 trailers without the end",
        lambda c: open_upload(c) + c.head(1, [(b"x", b"y")], end=False),
        Code.PROTOCOL_ERROR,
    ),
    ("8.1.1 body longer than said", lambda c: upload(c, b"3", b"four"), Code.PROTOCOL_ERROR),
    ("8.1.1 body shorter than said", lambda c: upload(c, b"5", b"four"), Code.PROTOCOL_ERROR),
    ("8.1.1 two frames longer than said", lambda c: upload(c, b"5", b"fo", b"four"), Code.PROTOCOL_ERROR),
    ("8.1.1 length that is no number", lambda c: c.head(1, [*POST, (b"content-length", b"+1")]), Code.PROTOCOL_ERROR),
]


# What ends the stream, or is answered by an error; the connection goes on.
STREAM: list[tuple[str, Build, Outcome]] = [
    ("5.1 half-closed: DATA", lambda c: c.head(1) + frame(0, 1, 1, b"x"), Code.STREAM_CLOSED),
    ("5.1 half-closed: HEADERS", lambda c: c.head(1) + c.head(1), Code.STREAM_CLOSED),
    ("5.1 closed: DATA", lambda c: c.head(1) + b"|" + frame(0, 1, 1, b"x"), Code.STREAM_CLOSED),
    (
        "6.9.1 stream window overflow",
        lambda c: open_upload(c) + frames.window_update(1, 2**31 - 1),
        Code.FLOW_CONTROL_ERROR,
    ),
    ("8.1 pseudo-header in trailers", lambda c: open_upload(c) + c.head(1, [(b":path", b"/")]), Code.PROTOCOL_ERROR),
    ("8.1.1 no body where one is said", lambda c: c.head(1, [*POST, (b"content-length", b"1")]), Code.PROTOCOL_ERROR),
    ("8.2.1 upper case", lambda c: with_field(c, b"X-Upper", b"1"), Code.PROTOCOL_ERROR),
    ("8.2.1 space in a name", lambda c: with_field(c, b"a b", b"1"), Code.PROTOCOL_ERROR),
    ("8.2.1 empty name", lambda c: with_field(c, b"", b"1"), Code.PROTOCOL_ERROR),
    ("8.2.1 CR in a value", lambda c: with_field(c, b"a", b"1\r"), Code.PROTOCOL_ERROR),
    ("8.2.1 LF in a value", lambda c: with_field(c, b"a", b"1\nb: 2"), Code.PROTOCOL_ERROR),
    ("8.2.1 NUL in a value", lambda c: with_field(c, b"a", b"1\x00"), Code.PROTOCOL_ERROR),
    ("8.2.1 space before a value", lambda c: with_field(c, b"a", b" 1"), Code.PROTOCOL_ERROR),
    ("8.2.1 tab after a value", lambda c: with_field(c, b"a", b"1\t"), Code.PROTOCOL_ERROR),
    ("8.2.2 connection", lambda c: with_field(c, b"connection", b"keep-alive"), Code.PROTOCOL_ERROR),
    ("8.2.2 keep-alive", lambda c: with_field(c, b"keep-alive", b"1"), Code.PROTOCOL_ERROR),
    ("8.2.2 transfer-encoding", lambda c: with_field(c, b"transfer-encoding", b"chunked"), Code.PROTOCOL_ERROR),
    ("8.2.2 upgrade", lambda c: with_field(c, b"upgrade", b"h2c"), Code.PROTOCOL_ERROR),
    ("8.2.2 proxy-connection", lambda c: with_field(c, b"proxy-connection", b"close"), Code.PROTOCOL_ERROR),
    ("8.2.2 te other than trailers", lambda c: with_field(c, b"te", b"gzip"), Code.PROTOCOL_ERROR),
    ("8.3 unknown pseudo-header", lambda c: c.head(1, [*request_head(), (b":test", b"1")]), Code.PROTOCOL_ERROR),
    (
        "8.3 a response's pseudo-header",
        lambda c: c.head(1, [*request_head(), (b":status", b"200")]),
        Code.PROTOCOL_ERROR,
    ),
    ("8.3 late pseudo-header", lambda c: c.head(1, [(b"a", b"b"), *request_head()]), Code.PROTOCOL_ERROR),
    ("8.3 repeated pseudo-header", lambda c: c.head(1, [*request_head(), (b":path", b"/")]), Code.PROTOCOL_ERROR),
    ("8.3.1 no method", lambda c: c.head(1, request_head()[1:]), Code.PROTOCOL_ERROR),
    ("8.3.1 method that is no token", lambda c: c.head(1, request_head(b"G T")), Code.PROTOCOL_ERROR),
    ("8.3.1 no scheme", lambda c: c.head(1, without(b":scheme")), Code.PROTOCOL_ERROR),
    ("8.3.1 no path", lambda c: c.head(1, without(b":path")), Code.PROTOCOL_ERROR),
    ("8.3.1 empty path", lambda c: c.head(1, request_head(path=b"")), Code.PROTOCOL_ERROR),
    ("8.3.1 Host other than the authority", lambda c: with_field(c, b"host", b"other"), Code.PROTOCOL_ERROR),
    ("8.5 CONNECT with a path", lambda c: c.head(1, request_head(b"CONNECT")), Code.PROTOCOL_ERROR),
    ("8441 :protocol without CONNECT", lambda c: c.head(1, [(b":protocol", b"websocket"), *POST]), Code.PROTOCOL_ERROR),
    (
        "two Hosts",
        lambda c: c.head(1, [*without(b":authority"), (b"host", b"a"), (b"host", b"a")]),
        Code.PROTOCOL_ERROR,
    ),
    ("two lengths", lambda c: upload(c, b"4", b"four", more=(b"content-length", b"4")), Code.PROTOCOL_ERROR),
    ("8.5 CONNECT", lambda c: c.head(1, [(b":method", b"CONNECT"), (b":authority", b"a:1")]), 501),
    ("8441 another protocol", lambda c: c.head(1, [(b":protocol", b"x"), *request_head(b"CONNECT")], end=False), 501),
    ("path without a slash", lambda c: c.head(1, request_head(path=b"x")), 400),
    ("path with a fragment", lambda c: c.head(1, request_head(path=b"/#x")), 400),
    ("path with a space", lambda c: c.head(1, request_head(path=b"/ x")), 400),
    ("path with bytes above 126", lambda c: c.head(1, request_head(path=b"/\xc3\xa9")), 400),
    ("asterisk for GET", lambda c: c.head(1, request_head(path=b"*")), 400),
    ("absolute path", lambda c: c.head(1, request_head(path=b"http://x/")), 400),
    ("authority with user", lambda c: c.head(1, request_head(authority=b"me@localhost")), 400),
    ("neither authority nor Host", lambda c: c.head(1, without(b":authority")), 400),
    ("another scheme", lambda c: c.head(1, [(b":scheme", b"ftp"), *without(b":scheme")]), 400),
    ("another expectation", lambda c: with_field(c, b"expect", b"tea"), 417),
    ("101 headers", lambda c: c.head(1, request_head(b"GET", b"/", *[(b"a", b"b")] * 101)), 431),
    ("33 KiB of headers", long_head, 431),
    ("a long path", long_path, 414),
    ("a body too long by its length", lambda c: upload(c, b"9999999999", b"x", end=False), 413),
]


def send(client: RawClient, build: Build) -> None:
    """`|` in what is built separates packets: the answer to the first is out before the second comes."""
    for packet in build(client).split(b"|"):
        client.feed(packet)


@pytest.mark.parametrize(("build", "code"), [case[1:] for case in FATAL], ids=[case[0] for case in FATAL])
@on_loop
async def test_fatal_fault_ends_the_connection(build: Build, code: Code) -> None:
    client = RawClient(answer)
    send(client, build)
    assert client.goaway() is code
    assert not client.alive()
    client.advance(5)
    assert client.transport.closed


@pytest.mark.parametrize(("build", "outcome"), [case[1:] for case in STREAM], ids=[case[0] for case in STREAM])
@on_loop
async def test_fault_of_a_stream_spares_the_others(build: Build, outcome: Outcome) -> None:
    client = RawClient(lambda exchange: None if exchange.path == "/" and exchange.length else answer(exchange))
    waits_for_the_answer = outcome is Code.STREAM_CLOSED
    if waits_for_the_answer and b"|" not in build(RawClient()):
        client.service.target = lambda _: None
    send(client, build)
    if isinstance(outcome, Code):
        assert client.reset(1) is outcome
    else:
        assert client.statuses[1] == outcome and client.ended(1)
    assert client.goaway() is None
    client.service.target = answer
    client.feed(client.head(3))
    assert client.statuses[3] == 200 and client.body(3) == b"hello"
    assert client.alive()


# What is right, though it is rare.
FINE: list[tuple[str, Build]] = [
    ("4.1 unknown type of frame", lambda c: frame(0xFA, 0xFF, 7, b"what") + c.head(1)),
    ("4.1 unknown flags", lambda c: frame(frames.PING, 0xF6, 0, bytes(8)) + c.head(1, flags=0x50)),
    ("4.1 reserved bit", lambda c: frame(frames.PING, 0, 1 << 31, bytes(8)) + c.head((1 << 31) | 1)),
    ("5.1 idle: PRIORITY", lambda c: frame(frames.PRIORITY, 0, 9, u32(1) + b"\x10") + c.head(1)),
    ("5.1 closed: PRIORITY", lambda c: c.head(1) + b"|" + frame(frames.PRIORITY, 0, 1, bytes(5))),
    ("5.1 closed: WINDOW_UPDATE", lambda c: c.head(1) + b"|" + frames.window_update(1, 7)),
    ("5.1 closed: RST_STREAM", lambda c: c.head(1) + b"|" + frames.reset(1, Code.CANCEL)),
    ("6.1 padding", lambda c: open_upload(c) + padded(0, 1, 1, b"body", 200)),
    ("6.2 padding and priority", with_everything),
    ("6.5.3 unknown setting", lambda c: of_setting(0xF000, 9) + c.head(1)),
    ("6.5 many settings at once", lambda c: frames.settings({1: 0, 2: 0, 3: 0, 5: 99_999, 6: 99, 8: 1}) + c.head(1)),
    ("6.10 block in one-byte pieces", in_pieces),
    ("6.10 empty CONTINUATION", lambda c: in_pieces(c, size=3, empty=True)),
    ("8.1 trailers", lambda c: open_upload(c) + frame(0, 0, 1, b"x") + c.head(1, [(b"x-sum", b"1")])),
    ("8.1 empty DATA ends", lambda c: open_upload(c) + frame(0, frames.END_STREAM, 1)),
    ("8.2.2 te: trailers", lambda c: with_field(c, b"te", b"trailers")),
    ("8.2.3 cookie crumbs", lambda c: c.head(1, request_head(b"GET", b"/", (b"cookie", b"a=1"), (b"cookie", b"b=2")))),
    ("8.3.1 Host alone", lambda c: c.head(1, [*without(b":authority"), (b"host", b"localhost")])),
    ("8.3.1 Host like the authority", lambda c: with_field(c, b"host", b"LOCALHOST")),
    ("8.3.1 OPTIONS *", lambda c: c.head(1, request_head(b"OPTIONS", b"*"))),
    ("8.1.1 length that fits", lambda c: upload(c, b"8", b"four", b"more")),
    ("7541 4.2 smaller table", lambda c: frame(1, 5, 1, b"\x20" + c.encoder.encode(request_head()))),
    ("7541 5.2 without Huffman", lambda c: frame(1, 5, 1, c.encoder.encode(request_head(), huffman=False))),
    ("7541 6.2.3 never indexed", lambda c: frame(1, 5, 1, c.encoder.encode([*request_head(), (b"a", b"b", True)]))),
]


@pytest.mark.parametrize("build", [case[1] for case in FINE], ids=[case[0] for case in FINE])
@on_loop
async def test_rare_but_right_is_served(build: Build) -> None:
    client = RawClient(answer)
    send(client, build)
    assert client.statuses == {1: 200}
    assert client.body(1) == b"hello" and client.ended(1)
    assert client.goaway() is None and client.reset(1) is None
    assert client.alive()


@pytest.mark.parametrize("build", [case[1] for case in FINE], ids=[case[0] for case in FINE])
@on_loop
async def test_byte_by_byte_it_is_the_same(build: Build) -> None:
    client = RawClient(answer, greet=False)
    for packet in (frames.PREFACE + frames.settings({}), *build(client).split(b"|")):
        for byte in packet:
            client.feed(bytes([byte]))
    assert client.statuses == {1: 200} and client.body(1) == b"hello"


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", b"\x16\x03\x01"], ids=["http1", "almost", "tls"]
)
@on_loop
async def test_3_4_another_preface_ends_the_connection(first: bytes) -> None:
    client = RawClient(greet=False)
    client.feed(first)
    assert client.goaway() is Code.PROTOCOL_ERROR
    assert client.transport.eof_written


@pytest.mark.parametrize("first", [frame(frames.PING, 0, 0, bytes(8)), frames.SETTINGS_ACK], ids=["ping", "ack"])
@on_loop
async def test_3_4_first_frame_other_than_settings_ends_the_connection(first: bytes) -> None:
    client = RawClient(greet=False)
    client.feed(frames.PREFACE + first)
    assert client.goaway() is Code.PROTOCOL_ERROR


@on_loop
async def test_3_4_the_server_begins_with_its_settings() -> None:
    client = RawClient(greet=False)
    client.collect()
    assert isinstance(client.received[0], SettingsFrame)
    assert client.setting(frames.SETTING_MAX_CONCURRENT_STREAMS) == 100
    assert client.setting(frames.SETTING_ENABLE_CONNECT_PROTOCOL) == 1


@on_loop
async def test_6_5_3_settings_are_acknowledged_in_order() -> None:
    client = RawClient()
    client.feed(of_setting(3, 1) + of_setting(3, 2))
    assert sum("ACK" in found.flags for found in client.of(SettingsFrame)) == 3


@on_loop
async def test_6_7_ping_is_echoed_and_an_echo_is_not() -> None:
    client = RawClient()
    client.feed(frame(frames.PING, 0, 0, b"12345678") + frame(frames.PING, frames.ACK, 0, b"87654321"))
    pings = client.of(PingFrame)
    assert [ping.opaque_data for ping in pings] == [b"12345678"] and "ACK" in pings[0].flags


@on_loop
async def test_6_9_2_smaller_initial_window_may_make_a_window_negative() -> None:
    client = RawClient(lambda exchange: exchange.respond(200, PLAIN, b"x" * 30_000))
    client.feed(of_setting(4, 20_000) + client.head(1))
    await client.until(lambda: len(client.body(1)) == 20_000)
    client.feed(of_setting(4, 5_000) + frames.window_update(1, 10_000))
    await client.turn()
    assert len(client.body(1)) == 20_000, "20,000 of 5,000 + 10,000 are spent"
    client.feed(frames.window_update(1, 15_000))
    await client.until(lambda: client.ended(1))
    assert len(client.body(1)) == 30_000


@on_loop
async def test_7541_4_2_table_named_by_the_client_is_acknowledged_in_the_next_block() -> None:
    client = RawClient(answer)
    client.feed(of_setting(frames.SETTING_HEADER_TABLE_SIZE, 0))
    client.decoder.max_allowed_table_size = 0  # strict: it insists on the change
    client.feed(client.head(1))
    assert client.statuses[1] == 200
