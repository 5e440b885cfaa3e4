"""WebSocket runs, on an exchange without a client: handshakes, messages, ends, and time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from headrace.web.apps.app_call import Message, Receive, Scope, Send
from headrace.web.apps.asgi import AsgiTarget
from headrace.web.apps.websocket import ClientGone, WebSocketLimits
from tests.web.websocket_client import KEY, Client, echo, handshake, recorder, run, turns


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


def test_an_error_behind_a_disconnect_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette's receive_text raises WebSocketDisconnect, and many handlers let it pass."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if (await receive())["type"] == "websocket.disconnect":
            raise ValueError("disconnected")

    async def test() -> None:
        exchange = handshake()
        AsgiTarget(app)(exchange)
        await turns()
        await Client(exchange).close()
        await turns()

    with caplog.at_level(logging.INFO, "headrace.web"):
        run(test)
    assert [record.levelno for record in caplog.records] == [logging.INFO]


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
