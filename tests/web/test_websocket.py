"""WebSocket runs, on an exchange without a client; wsproto plays the client."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from headrace.web.asgi import AsgiTarget
from headrace.web.asgi_run import App, Message, Receive, Scope, Send
from headrace.web.websocket import ClientGone, WebSocketLimits
from headrace.web.websocket_deflate import negotiate
from tests.web.fakes import FakeExchange

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
LIMITS = WebSocketLimits(message_bytes=100_000, inbox_bytes=10_000)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(test(), 10)

    asyncio.run(limited())


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def handshake(version: str = "1.1", **headers: str) -> FakeExchange:
    given = {"Sec-WebSocket-Version": "13"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if version == "1.1":
        given.setdefault("Sec-WebSocket-Key", KEY)
    return FakeExchange(headers=given, upgrade=b"websocket", version=version, body=None, length=0)


class Client:
    """The other end of the tunnel."""

    def __init__(self, exchange: FakeExchange, *, compress: bool = False) -> None:
        self.exchange = exchange
        extension = PerMessageDeflate()
        if compress:
            extension.finalize("permessage-deflate")
        self.wire = Connection(ConnectionType.CLIENT, [extension] if compress else [])
        self.read = 0

    def send(self, *events: Event) -> None:
        self.exchange.arrive(b"".join(self.wire.send(event) for event in events))

    def events(self) -> list[Event]:
        data = bytes(self.exchange.body[self.read :])
        self.read += len(data)
        if data:
            self.wire.receive_data(data)
        return list(self.wire.events())

    async def close(self, code: int = 1000) -> None:
        self.send(CloseConnection(code=code))
        await self.exchange.done.wait()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def recorder(got: list[Message], *, read: bool = True) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await receive())
        await send({"type": "websocket.accept"})
        while read:
            got.append(await receive())
            if got[-1]["type"] == "websocket.disconnect":
                break
        if not read:
            await asyncio.Event().wait()

    return app


def test_a_handshake_is_answered_by_its_key() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-one", b"1")]})

    async def test() -> None:
        exchange = handshake(Sec_WebSocket_Protocol="chat, superchat", Origin="https://example.org")
        target = AsgiTarget(app)
        target(exchange)
        await turns()
        assert exchange.status == 101
        assert exchange.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert exchange.header("Sec-WebSocket-Protocol") == "chat" and exchange.header("X-One") == "1"
        assert exchange.header("Sec-WebSocket-Extensions") is None
        client = Client(exchange)
        assert client.events() == [CloseConnection(code=1000, reason="")]
        assert target.in_flight == 1  # the client's answer is awaited
        await client.close()
        await turns()
        assert target.in_flight == 0 and exchange.whole

    run(test)
    (scope,) = scopes
    assert scope["type"] == "websocket" and scope["scheme"] == "ws" and "method" not in scope
    assert scope["subprotocols"] == ["chat", "superchat"] and (b"origin", b"https://example.org") in scope["headers"]


def test_over_http2_there_is_no_key() -> None:
    async def test() -> None:
        exchange = handshake("2")
        AsgiTarget(echo)(exchange)
        await turns()
        assert exchange.header("Sec-WebSocket-Accept") is None
        client = Client(exchange)
        client.send(TextMessage(data="hello"))
        await turns()
        assert client.events() == [TextMessage(data="hello")]
        await client.close()

    run(test)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Key": ""}, 400),
        ({"Sec_WebSocket_Key": "short=="}, 400),
        ({"Sec_WebSocket_Key": KEY + ", " + KEY}, 400),
    ],
)
def test_a_broken_handshake_reaches_no_application(headers: dict[str, str], status: int) -> None:
    async def test() -> None:
        exchange = handshake(**headers)
        target = AsgiTarget(echo)
        target(exchange)
        assert exchange.status == status and target.in_flight == 0
        assert (exchange.header("Sec-WebSocket-Version") == "13") is (status == 426)

    run(test)


@pytest.mark.parametrize("compress", [False, True])
def test_messages_go_both_ways(compress: bool) -> None:
    async def test() -> None:
        offers = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"} if compress else {}
        exchange = handshake(**offers)
        target = AsgiTarget(echo)
        target(exchange)
        await turns()
        client = Client(exchange, compress=compress)
        assert exchange.header("Sec-WebSocket-Extensions") == ("permessage-deflate" if compress else None)
        for event in (TextMessage(data="grüße" * 100), BytesMessage(data=b"\0\xff" * 500), TextMessage(data="")):
            client.send(event)
            await turns()
            assert client.events() == [event]
        await client.close(3001)
        await turns()
        assert target.in_flight == 0 and client.events() == [CloseConnection(code=3001, reason="")]

    run(test)


@pytest.mark.parametrize("compress", [False, True])
def test_fragments_are_one_message_also_around_a_ping(compress: bool) -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake(**({"Sec_WebSocket_Extensions": "permessage-deflate"} if compress else {}))
        AsgiTarget(recorder(got))(exchange)
        await turns()
        client = Client(exchange, compress=compress)
        client.send(TextMessage(data="one ", message_finished=False), Ping(payload=b"p"))
        client.send(TextMessage(data="two ", message_finished=False), TextMessage(data="three"))
        client.send(BytesMessage(data=b"next"))
        await turns()
        assert client.events() == [Pong(payload=b"p")]
        await client.close()

    run(test)
    assert got[1] == {"type": "websocket.receive", "text": "one two three"}
    assert got[2] == {"type": "websocket.receive", "bytes": b"next"}


def test_every_split_of_the_stream_is_the_same() -> None:
    async def test() -> None:
        for step in (1, 2, 3, 7):
            got: list[Message] = []
            exchange = handshake()
            AsgiTarget(recorder(got))(exchange)
            await turns()
            wire = Connection(ConnectionType.CLIENT)
            data = wire.send(TextMessage(data="ä" * 200)) + wire.send(BytesMessage(data=b"x" * 70_000))
            data += wire.send(CloseConnection(code=1000, reason="bye"))
            for at in range(0, len(data), step if step > 3 else step * 500):
                exchange.arrive(data[at : at + (step if step > 3 else step * 500)])
            await turns()
            assert [m.get("text") or m.get("bytes") for m in got[1:-1]] == ["ä" * 200, b"x" * 70_000]
            assert got[-1] == {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}

    run(test)


def test_frames_that_came_with_the_handshake_are_read() -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake()
        exchange.arrive(Client(exchange).wire.send(TextMessage(data="early")))
        AsgiTarget(recorder(got))(exchange)
        await turns()
        await Client(exchange).close()

    run(test)
    assert got[1] == {"type": "websocket.receive", "text": "early"}


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


@pytest.mark.parametrize("how", ["close", "leave", "end"])
def test_the_application_learns_how_the_client_went(how: str) -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(recorder(got))
        target(exchange)
        await turns()
        if how == "close":
            Client(exchange).send(CloseConnection(code=4001, reason="done"))
        elif how == "leave":
            exchange.leave()
        else:
            exchange.end()
        await exchange.done.wait()
        await turns()
        assert target.in_flight == 0

    run(test)
    code, reason = (4001, "done") if how == "close" else (1006, "")
    assert got[-1] == {"type": "websocket.disconnect", "code": code, "reason": reason}


def test_sending_to_a_client_that_left_is_an_os_error_that_nobody_need_catch(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError as error:
            errors.append(error)
            raise

    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(app)
        target(exchange)
        await turns()
        await Client(exchange).close()
        await turns()
        assert target.in_flight == 0

    run(test)
    assert isinstance(errors[0], ClientGone) and not caplog.records


@pytest.mark.parametrize(
    ("sends", "status", "text"),
    [
        ([{"type": "websocket.close"}], 403, None),
        ([{"type": "websocket.close", "code": 4003, "reason": "no"}], 403, None),
        (
            [
                {"type": "websocket.http.response.start", "status": 401, "headers": []},
                {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
                {"type": "websocket.http.response.body", "body": b"are you"},
            ],
            401,
            "who are you",
        ),
    ],
)
def test_a_websocket_may_be_denied(sends: list[Message], status: int, text: str | None) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert "websocket.http.response" in scope["extensions"]
        await receive()
        for message in sends:
            await send(message)

    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(app)
        target(exchange)
        await exchange.done.wait()
        await turns()
        assert exchange.status == status and exchange.whole and target.in_flight == 0
        assert text is None or exchange.text == text

    run(test)


@pytest.mark.parametrize(
    ("sends", "words"),
    [
        ([{"type": "websocket.send", "text": "x"}], "before websocket.accept"),
        ([{"type": "websocket.accept"}, {"type": "websocket.accept"}], "while the WebSocket is open"),
        ([{"type": "websocket.accept"}, {"type": "websocket.close"}, {"type": "websocket.close"}], "was closed"),
        ([{"type": "websocket.close"}, {"type": "websocket.accept"}], "was closed"),
        (
            [{"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.accept"}],
            "after websocket.http",
        ),
        ([{"type": "websocket.http.response.body", "body": b""}], "before the answer was started"),
    ],
)
def test_messages_out_of_order_are_refused_where_they_are_sent(sends: list[Message], words: str) -> None:
    errors: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            for message in sends:
                await send(message)
        except RuntimeError as error:
            errors.append(str(error))

    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(app)
        target(exchange)
        await turns()
        if exchange.status == 101:
            await Client(exchange).close()
        await turns()
        assert target.in_flight == 0 and exchange.whole

    run(test)
    assert len(errors) == 1 and words in errors[0]


@pytest.mark.parametrize("accepted", [False, True])
def test_a_failure_is_500_before_and_1011_after_the_accept(accepted: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if accepted:
            await send({"type": "websocket.accept"})
        raise KeyError("boom")

    async def test() -> None:
        exchange = handshake()
        AsgiTarget(app)(exchange)
        await turns()
        if accepted:
            client = Client(exchange)
            assert client.events() == [CloseConnection(code=1011, reason="internal error")]
            await client.close()
            await turns()
        else:
            assert exchange.status == 500

    run(test)
    assert [(record.levelno, record.__dict__["action"]) for record in caplog.records] == [
        (logging.ERROR, "web.app.failed")
    ]


def test_an_application_that_neither_accepts_nor_refuses_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def test() -> None:
        exchange = handshake()
        AsgiTarget(app)(exchange)
        await exchange.done.wait()
        await turns()
        assert exchange.status == 500

    run(test)
    assert "without accepting or refusing" in caplog.text


def test_a_drain_tells_clients_to_come_again() -> None:
    got: list[Message] = []

    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(recorder(got))
        target(exchange)
        await turns()
        draining = asyncio.ensure_future(target.close(5))
        await turns()
        client = Client(exchange)
        assert client.events() == [CloseConnection(code=1012, reason="the server is restarting")]
        await client.close(1012)
        await draining
        assert target.in_flight == 0 and exchange.whole

    run(test)
    assert got[-1]["code"] == 1012


def test_a_websocket_that_opens_while_the_worker_leaves_is_told_so_at_once() -> None:
    got: list[Message] = []

    async def test() -> None:
        target = AsgiTarget(recorder(got))
        before, after = handshake(), handshake()
        target(before)
        target.leave()
        target(after)
        await turns()
        for exchange in (before, after):
            client = Client(exchange)
            assert [event.code for event in client.events() if isinstance(event, CloseConnection)] == [1012]
            await client.close(1012)
        await turns()
        assert target.in_flight == 0 and await target.close(0)

    run(test)
    assert [message["code"] for message in got if message["type"] == "websocket.disconnect"] == [1012, 1012]


def test_a_drain_ends_websockets_whose_client_says_nothing() -> None:
    async def test() -> None:
        exchange = handshake()
        target = AsgiTarget(recorder([], read=False))
        target(exchange)
        await turns()
        await target.close(0.01)
        assert target.in_flight == 0 and exchange.whole

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


class Clock(asyncio.SelectorEventLoop):
    """A loop whose timers the test fires."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, Any]] = []

    def call_later(  # type: ignore[override]  # enough of its generics
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self)
        self.timers.append((delay, handle))
        return handle

    def fire(self) -> float:
        """The latest timer that stands; returns its delay."""
        self.timers = [(delay, handle) for delay, handle in self.timers if not handle.cancelled()]
        delay, handle = self.timers.pop()
        handle._run()
        return float(delay)


def on_clock(test: Callable[[Clock], Awaitable[None]]) -> None:
    clock = Clock()
    try:
        clock.run_until_complete(test(clock))
        for task in asyncio.all_tasks(clock):
            task.cancel()
        clock.run_until_complete(turns())
    finally:
        clock.close()


def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed() -> None:
    got: list[Message] = []

    async def test(clock: Clock) -> None:
        exchange = handshake()
        AsgiTarget(recorder(got), websocket=WebSocketLimits(ping_interval_s=30))(exchange)
        await turns()
        client = Client(exchange)
        for _ in range(3):
            assert clock.fire() in (30, 10)
            assert client.events() == [Ping()]
            client.send(Pong())
            assert clock.fire() == 20
            assert not exchange.done.is_set()
        clock.fire()
        assert clock.fire() == 20
        assert client.events() == [Ping(), CloseConnection(code=1011, reason="no answer to a ping")]
        await turns()
        assert exchange.whole

    on_clock(test)
    assert got[-1] == {"type": "websocket.disconnect", "code": 1011, "reason": "no answer to a ping"}


def test_a_client_that_is_held_back_is_not_judged() -> None:
    async def test(clock: Clock) -> None:
        exchange = handshake()
        AsgiTarget(recorder([], read=False), websocket=WebSocketLimits(inbox_bytes=1000))(exchange)
        await turns()
        client = Client(exchange)
        clock.fire()
        for _ in range(20):
            client.send(TextMessage(data="x" * 100))
        clock.fire()
        clock.fire()
        assert client.events() == [Ping()] and not exchange.done.is_set()

    on_clock(test)


def test_the_answer_to_our_close_is_not_awaited_for_ever() -> None:
    async def test(clock: Clock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4000})
            assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": ""}

        exchange = handshake()
        target = AsgiTarget(app)
        target(exchange)
        await turns()
        client = Client(exchange)
        client.send(TextMessage(data="too late"), Ping())  # neither matters any more
        assert clock.fire() == 10
        await turns()
        assert exchange.whole and target.in_flight == 0

    on_clock(test)
