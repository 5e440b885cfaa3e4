"""WebSocket clients that break the rules, flood, or take nothing: every buffer is bounded."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.events import CloseConnection, Ping, TextMessage

from headrace.web.apps.app_call import Message, Receive, Scope, Send
from headrace.web.apps.asgi import AsgiTarget
from headrace.web.apps.websocket import negotiate
from tests.web.websocket_client import LIMITS, Client, echo, handshake, recorder, run, turns


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
        (b"\x80\x80\0\0\0\0", 1002),  # goes on with nothing
        (b"\x09\x80\0\0\0\0", 1002),  # a fragmented ping
        (b"\x89\xfe\0\x7e\0\0\0\0" + bytes(126), 1002),  # a ping too long
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # not UTF-8
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # a code that nobody may send: 1005
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0" + bytes(200_000), 1009),
    ],
)
def test_violations_close_with_their_code(sent: bytes, code: int) -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(recorder(got), websocket=LIMITS)
        target(exchange)
        await turns()
        exchange.arrive(sent)
        await exchange.done.wait()
        await turns()
        (close,) = Client(exchange).events()
        assert isinstance(close, CloseConnection) and close.code == code
        assert exchange.whole and target.in_flight == 0

    run(test)
    assert got[-1]["type"] == "websocket.disconnect" and got[-1]["code"] == code


def compressed(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    length = b"\xfe" + len(packed).to_bytes(2, "big") if len(packed) > 125 else bytes([0x80 + len(packed)])
    return b"\xc2" + length + bytes(4) + packed


def test_a_decompression_bomb_is_refused_before_it_is_inflated() -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake(Sec_WebSocket_Extensions="permessage-deflate")
        AsgiTarget(recorder(got), websocket=LIMITS)(exchange)
        await turns()
        exchange.arrive(compressed(bytes(100_000)))
        await turns()
        assert len(got[-1]["bytes"]) == 100_000  # as long as a message may be
        exchange.arrive(compressed(bytes(20_000_000)))
        await exchange.done.wait()
        await turns()

    run(test)
    assert got[-1]["code"] == 1009 and len(got) == 3


def test_a_final_block_ends_no_context_and_a_second_one_is_refused() -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake(Sec_WebSocket_Extensions="permessage-deflate")
        AsgiTarget(recorder(got))(exchange)
        await turns()
        final = b"\xc1\x88\0\0\0\0\xf3\x48\xcd\xc9\xc9\x07\x00\x00"  # RFC 7692 7.2.3.5
        exchange.arrive(final + final)
        await turns()
        exchange.arrive(b"\xc1\x84\0\0\0\0\x03\x00\x03\x00")
        await exchange.done.wait()
        await turns()

    run(test)
    assert [m.get("text") for m in got[1:3]] == ["Hello", "Hello"] and got[-1]["code"] == 1007


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        (
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=8",
            "permessage-deflate; client_no_context_takeover",
        ),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; what=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("x-webkit-deflate-frame", None),
        ("", None),
        (";;,,;=", None),
    ],
)
def test_offers_are_read_strictly(offer: str, answer: str | None) -> None:
    granted = negotiate(offer.encode(), 1000)
    assert (granted[1].decode() if granted else None) == answer


def test_messages_that_nobody_receives_hold_the_client_back() -> None:
    async def test() -> None:
        exchange = handshake()
        AsgiTarget(recorder([], read=False), websocket=LIMITS)(exchange)
        await turns()
        client = Client(exchange)
        for _ in range(1000):
            client.send(TextMessage(data="x" * 100))
        assert exchange.taken < 20_000

    run(test)


def test_what_was_held_back_goes_on_when_the_application_receives() -> None:
    got: list[Message] = []

    async def test() -> None:
        gate = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await gate.wait()
            while (message := await receive())["type"] == "websocket.receive":
                got.append(message)

        exchange = handshake()
        AsgiTarget(app, websocket=LIMITS)(exchange)
        await turns()
        client = Client(exchange)
        client.send(*(TextMessage(data=str(number)) for number in range(1000)), CloseConnection(code=1000))
        await turns()
        assert len(exchange.body) == 0
        gate.set()
        await exchange.done.wait()
        await turns(2000)

    run(test)
    assert [m["text"] for m in got] == [str(number) for number in range(1000)]


def test_a_client_that_takes_nothing_is_not_read_from() -> None:
    async def test() -> None:
        exchange = handshake()
        AsgiTarget(echo)(exchange)
        await turns()
        client = Client(exchange)
        exchange.block()
        for _ in range(100):
            client.send(Ping(payload=b"x" * 100))
        await turns()
        assert exchange.taken == 0 and not exchange.body
        exchange.unblock()
        await turns()
        assert len(client.events()) == 100
        await client.close()

    run(test)


def test_sending_waits_for_a_slow_client() -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(3):
            await send({"type": "websocket.send", "text": "x"})
            sent.append(number)

    async def test() -> None:
        exchange = handshake()
        exchange.block()
        AsgiTarget(app)(exchange)
        await turns()
        assert sent == []
        exchange.unblock()
        await turns()
        assert sent == [0, 1, 2]
        await Client(exchange).close()

    run(test)


frames = st.builds(
    lambda first, mask, data, cut: (
        bytes([first])
        + (bytes([mask | len(data)]) if len(data) < 126 else bytes([mask | 126]) + len(data).to_bytes(2, "big"))
        + (b"\0\0\0\0" if mask else b"")
        + data[: len(data) - cut]
    ),
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0xC2, 0x41, 0x08, 0xFF, 0x83]),
    st.sampled_from([0x80, 0x80, 0x80, 0]),
    st.one_of(st.binary(max_size=300), st.just(b"\x03\xe8bye"), st.just(zlib.compress(b"text" * 50)[2:-4])),
    st.sampled_from([0, 0, 0, 1]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(frames, frames, st.binary(max_size=50)), max_size=12), st.integers(1, 400))
def test_whatever_a_client_sends_it_is_a_message_or_an_end(pieces: list[bytes], step: int) -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake(Sec_WebSocket_Extensions="permessage-deflate")
        target = AsgiTarget(recorder(got), websocket=LIMITS)
        target(exchange)
        await turns()
        data = b"".join(pieces)
        for at in range(0, len(data), step):
            exchange.arrive(data[at : at + step])
        await turns(100)
        exchange.end()
        await turns(100)
        assert exchange.done.is_set() and target.in_flight == 0

    run(test)
    assert got[-1]["type"] == "websocket.disconnect"
    assert all(message["type"] == "websocket.receive" for message in got[1:-1])
