"""The worker's end of a link; the test plays the edge, frame by frame."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.ipc.asgi_link import AsgiLinkClient
from headrace.web.ipc.frames import (
    COUNT,
    FILE_OPENED,
    FILE_REFUSED,
    HEAD,
    HEAD_BYTES,
    HEADER,
    PIECE_BYTES_MAX,
    WINDOW_BYTES,
    File,
    Hello,
    Kind,
    Request,
)
from headrace.web.ipc.link_exchange import ANSWER_BYTES_MAX
from tests.http.support import on_loop
from tests.patience import PATIENCE_S

HELLO = Hello(pid=7, generation=3, interface="asgi", capacity=100)
OK = Fields.of([(b"X-One", b"1")])


class Edge:
    """Accepts the worker's links."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.open: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        self.links.put_nowait(Link(reader, writer))

    async def end(self) -> None:
        for _ in range(5):  # a link that was being made is accepted still
            await asyncio.sleep(0)
        for writer in self.open:
            writer.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)

    async def link(self) -> Link:
        link = await asyncio.wait_for(self.links.get(), PATIENCE_S)
        kind, stream, payload = await link.frame()
        assert (kind, stream) == (Kind.HELLO, 0) and msgspec.msgpack.decode(payload, type=Hello) == HELLO
        return link


class Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def frame(self) -> tuple[Kind, int, bytes]:
        async with asyncio.timeout(PATIENCE_S):
            length, stream, kind = HEADER.unpack(await self.reader.readexactly(HEADER.size))
            return Kind(kind), stream, await self.reader.readexactly(length)

    async def closed(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def send(self, kind: int, stream: int = 0, payload: bytes = b"") -> None:
        self.writer.write(HEADER.pack(len(payload), stream, kind) + payload)

    def request(self, stream: int = 1, body: bytes = b"", **changes: Any) -> None:
        values: dict[str, Any] = {
            "method": "GET",
            "target": "/a%20b?c=d",
            "headers": {b"host": b"example.org"},
            "version": "1.1",
            "secure": False,
            "peer": "192.0.2.1",
            "peer_port": 1,
            "server": ("127.0.0.1", 80),
            "upgrade": b"",
            "length": len(body),
            "root_path": "",
            "ended": True,
            "expects": False,
            "waited_s": 0.25,
        }
        head = msgspec.msgpack.encode(Request(**(values | changes)))
        self.send(Kind.REQUEST, stream, COUNT.pack(len(head)) + head + body)

    async def data(self, stream: int = 1) -> bytes:
        """DATA until ENDED, consumed as it comes; no frame is too long, nothing runs ahead."""
        found = bytearray()
        while True:
            kind, number, payload = await self.frame()
            assert number == stream and len(payload) <= PIECE_BYTES_MAX
            if kind is Kind.ENDED:
                return bytes(found)
            assert kind is Kind.DATA
            found += payload
            self.send(Kind.CONSUMED, stream, COUNT.pack(len(payload)))


def head(payload: bytes) -> tuple[int, int, bytes, bytes]:
    """Status, length, block, rest."""
    status, _flags, length, block = HEAD.unpack_from(payload)
    return status, length, payload[HEAD_BYTES : HEAD_BYTES + block], payload[HEAD_BYTES + block :]


class Rig:
    def __init__(self, edge: Edge, client: AsgiLinkClient, taken: asyncio.Queue[Exchange]) -> None:
        self.edge, self.client, self._taken = edge, client, taken

    async def exchange(self) -> Exchange:
        return await asyncio.wait_for(self._taken.get(), PATIENCE_S)


@asynccontextmanager
async def linked(target: Callable[[Exchange], None] | None = None) -> AsyncIterator[tuple[Rig, Link]]:
    edge = Edge()
    taken: asyncio.Queue[Exchange] = asyncio.Queue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edge"
        server = await asyncio.start_unix_server(edge.accept, path)
        client = AsgiLinkClient(path, target or taken.put_nowait, hello=HELLO)
        await client.connect()
        try:
            yield Rig(edge, client, taken), await edge.link()
        finally:
            client.abort()
            await asyncio.wait_for(client.closed(), PATIENCE_S)
            server.close()
            await edge.end()


async def news(exchange: Exchange, seen: Callable[[], bool]) -> None:
    """Until `seen`, looked at whenever the exchange notifies."""
    event = asyncio.Event()
    exchange.notify = event.set
    async with asyncio.timeout(PATIENCE_S):
        while not seen():
            event.clear()
            await event.wait()


@on_loop
async def test_a_small_request_and_its_answer_are_one_frame_each() -> None:
    async with linked() as (rig, link):
        link.request(9, b"body", method="POST", root_path="/m")
        exchange = await rig.exchange()
        assert (exchange.method, exchange.path, exchange.query, exchange.root_path) == ("POST", "/a%20b", "c=d", "/m")
        assert exchange.ended and exchange.take() == b"body" and exchange.waited_s == 0.25
        assert rig.client.in_flight == rig.client.requests == 1
        exchange.respond(201, OK, b"answer")
        kind, stream, payload = await link.frame()
        assert (kind, stream) == (Kind.ANSWER, 9) and head(payload) == (201, 6, b"X-One: 1\r\n", b"answer")
        assert rig.client.in_flight == 0


@on_loop
async def test_an_answer_to_head_and_a_304_say_their_length_as_they_should() -> None:
    async with linked() as (rig, link):
        link.request(1, method="HEAD")
        (await rig.exchange()).respond(200, Fields(), b"12345")
        assert head((await link.frame())[2]) == (200, 5, b"", b"")
        link.request(2)
        (await rig.exchange()).respond(304, Fields())
        assert head((await link.frame())[2]) == (304, -1, b"", b"")


@on_loop
async def test_frames_may_be_cut_anywhere() -> None:
    async with linked() as (rig, link):
        sent: list[bytes] = []
        real = link.writer
        link.writer = type("Collect", (), {"write": lambda self, data: sent.append(data)})()
        for stream in range(1, 4):
            link.request(stream, b"x" * 100)
        link.writer = real
        for byte in b"".join(sent):
            real.write(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await rig.exchange()).take() == b"x" * 100


@on_loop
async def test_a_body_is_taken_within_its_window() -> None:
    async with linked() as (rig, link):
        link.request(1, b"one", method="POST", ended=False, length=-1, expects=True)
        exchange = await rig.exchange()
        assert exchange.expects and not exchange.ended and exchange.take() == b"one"
        assert await link.frame() == (Kind.CONSUMED, 1, COUNT.pack(3)) and not exchange.expects
        link.send(Kind.BODY, 1, b"two")
        link.send(Kind.ENDED, 1)
        await news(exchange, lambda: exchange.ended)
        assert exchange.take() == b"two"


@on_loop
async def test_the_first_take_invites_a_body_that_is_held_back() -> None:
    async with linked() as (rig, link):
        link.request(1, method="POST", ended=False, length=5, expects=True)
        exchange = await rig.exchange()
        assert exchange.take() == exchange.take() == b""
        assert await link.frame() == (Kind.CONSUMED, 1, COUNT.pack(0))
        exchange.respond(200, OK)
        assert (await link.frame())[0] is Kind.ANSWER


@on_loop
async def test_an_edge_that_overruns_the_window_loses_the_link() -> None:
    async with linked() as (rig, link):
        link.request(1, method="POST", ended=False, length=-1)
        exchange = await rig.exchange()
        for _ in range(WINDOW_BYTES // PIECE_BYTES_MAX + 1):
            link.send(Kind.BODY, 1, bytes(PIECE_BYTES_MAX))
        await news(exchange, lambda: exchange.gone)
        await rig.edge.link()  # it comes again


@on_loop
async def test_a_long_answer_is_streamed_within_the_window() -> None:
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        body = os.urandom(3 * WINDOW_BYTES)
        exchange.respond(200, OK, body)
        kind, _, payload = await link.frame()
        assert kind is Kind.HEAD and head(payload)[:2] == (200, len(body))
        assert rig.client.in_flight == 1
        link.send(Kind.PING, 0, b"now")
        got = 0
        while (frame := await link.frame())[0] is not Kind.PONG:
            got += len(frame[2])
        assert got == WINDOW_BYTES and frame[2] == b"now"
        link.send(Kind.CONSUMED, 1, COUNT.pack(got))
        assert await link.data() == body[got:]
        assert rig.client.in_flight == 0


@on_loop
async def test_pieces_wait_until_they_are_consumed() -> None:
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        exchange.start(200, OK)
        assert exchange.writable
        for _ in range(4):
            exchange.send(bytes(WINDOW_BYTES // 4))
        assert not exchange.writable
        exchange.send(b"more")
        assert (await link.frame())[0] is Kind.HEAD
        for _ in range(4):
            assert (await link.frame())[0] is Kind.DATA
        link.send(Kind.CONSUMED, 1, COUNT.pack(WINDOW_BYTES))
        await news(exchange, lambda: exchange.writable)
        assert await link.frame() == (Kind.DATA, 1, b"more")
        exchange.finish()
        assert await link.frame() == (Kind.ENDED, 1, b"")


@pytest.mark.parametrize("opened", [True, False])
@on_loop
async def test_a_file_is_the_edge_s_to_send_or_sent_in_pieces(opened: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(2 * WINDOW_BYTES + 5)
    path.write_bytes(data)
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        fd = os.open(path, os.O_RDONLY)
        exchange.start(200, Fields(length=len(data) - 5))
        exchange.send_file(fd, 5, len(data) - 5)
        assert not exchange.writable
        exchange.finish()
        assert (await link.frame())[0] is Kind.HEAD
        kind, _, payload = await link.frame()
        assert kind is Kind.FILE and msgspec.msgpack.decode(payload, type=File) == File(fd, 5, len(data) - 5)
        link.send(Kind.CONSUMED, 1, COUNT.pack(FILE_OPENED if opened else FILE_REFUSED))
        assert await link.data() == (b"" if opened else data[5:])
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


@on_loop
async def test_a_file_that_shrinks_cuts_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        exchange.start(200, Fields(length=100))
        exchange.send_file(os.open(path, os.O_RDONLY), 0, 100)
        exchange.finish()
        await link.frame()
        await link.frame()
        link.send(Kind.CONSUMED, 1, COUNT.pack(FILE_REFUSED))
        assert await link.frame() == (Kind.DATA, 1, b"short")
        assert await link.frame() == (Kind.GONE, 1, b"")


@on_loop
async def test_a_stream_whose_client_left_ends_when_the_application_lets_go() -> None:
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        link.send(Kind.GONE, 1)
        await news(exchange, lambda: exchange.gone)
        exchange.respond(200, OK, b"to nobody")
        assert rig.client.in_flight == 1
        link.send(Kind.PING)
        assert (await link.frame())[0] is Kind.PONG
        exchange.release()
        assert await link.frame() == (Kind.GONE, 1, b"") and rig.client.in_flight == 0


@on_loop
async def test_a_client_that_leaves_in_the_midst_of_a_long_answer_ends_it() -> None:
    async with linked() as (rig, link):
        link.request(1)
        (await rig.exchange()).respond(200, OK, bytes(2 * WINDOW_BYTES))
        link.send(Kind.GONE, 1)
        kinds = []
        while (frame := await link.frame())[0] is not Kind.GONE:
            kinds.append(frame[0])
        assert kinds[0] is Kind.HEAD and rig.client.in_flight == 0


@on_loop
async def test_an_abort_is_gone() -> None:
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        exchange.start(200, OK)
        exchange.abort()
        exchange.release()
        assert [(await link.frame())[0] for _ in range(2)] == [Kind.HEAD, Kind.GONE]
        link.send(Kind.CONSUMED, 1, COUNT.pack(0))  # crosses: of no stream any more
        link.request(2)
        await rig.exchange()


@on_loop
async def test_a_tunnel_is_a_stream_both_ways() -> None:
    async with linked() as (rig, link):
        link.request(1, upgrade=b"websocket")
        exchange = await rig.exchange()
        assert not exchange.ended
        exchange.tunnel(OK)
        assert head((await link.frame())[2])[0] == 101
        link.send(Kind.BODY, 1, b"ping")
        await news(exchange, lambda: exchange.take() == b"ping")
        assert await link.frame() == (Kind.CONSUMED, 1, COUNT.pack(4))
        exchange.send(b"pong")
        link.send(Kind.ENDED, 1)
        await news(exchange, lambda: exchange.ended)
        exchange.finish()
        assert [(await link.frame())[0] for _ in range(2)] == [Kind.DATA, Kind.ENDED]


@on_loop
async def test_interim_answers_pass() -> None:
    async with linked() as (rig, link):
        link.request(1)
        (await rig.exchange()).inform(103, Fields.of([(b"Link", b"</a>")]))
        kind, _, payload = await link.frame()
        assert kind is Kind.INFORM and head(payload)[:3] == (103, -1, b"Link: </a>\r\n")


@on_loop
async def test_leaving_takes_what_was_under_way_and_waits_for_the_edge_s_last_word() -> None:
    async with linked() as (rig, link):
        rig.client.leave()
        rig.client.leave()
        assert await link.frame() == (Kind.LEAVE, 0, b"")
        link.request(1)
        link.request(2)
        link.send(Kind.LEAVE)
        for _ in range(2):
            (await rig.exchange()).respond(200, OK)
            assert (await link.frame())[0] is Kind.ANSWER
        assert await link.closed() == b""
        await rig.client.closed()


@on_loop
async def test_an_edge_that_leaves_is_answered_and_not_sought_again() -> None:
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        link.send(Kind.LEAVE)
        assert await link.frame() == (Kind.LEAVE, 0, b"")
        exchange.respond(200, OK)
        assert (await link.frame())[0] is Kind.ANSWER
        assert await link.closed() == b""
        await rig.client.closed()


@on_loop
async def test_a_broken_link_loses_its_requests_and_is_made_anew() -> None:
    async with linked() as (rig, link):
        link.request(1)
        exchange = await rig.exchange()
        link.writer.transport.abort()
        await news(exchange, lambda: exchange.gone)
        exchange.respond(200, OK)  # to nobody
        again = await rig.edge.link()
        again.request(1)
        (await rig.exchange()).respond(200, OK)
        assert (await again.frame())[0] is Kind.ANSWER and rig.client.requests == 2


@on_loop
async def test_a_worker_may_start_before_its_edge_and_leave_before_it_came() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edge"
        client = AsgiLinkClient(path, lambda _: None, hello=HELLO)
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.sleep(0)
        edge = Edge()
        async with await asyncio.start_unix_server(edge.accept, path):
            await asyncio.wait_for(connecting, PATIENCE_S)
            await edge.link()
            client.abort()
            await client.closed()
            await edge.end()
        gone = AsgiLinkClient(Path(folder) / "never", lambda _: None, hello=HELLO)
        connecting = asyncio.ensure_future(gone.connect())
        await asyncio.sleep(0)
        gone.leave()
        await asyncio.wait_for(connecting, PATIENCE_S)
        await gone.closed()


@on_loop
async def test_a_bug_of_the_target_costs_its_request_only(caplog: pytest.LogCaptureFixture) -> None:
    def target(exchange: Exchange) -> None:
        raise ValueError("a bug")

    async with linked(target) as (_, link):
        for stream in (1, 2):
            link.request(stream)
            assert head((await link.frame())[2])[0] == 500
    assert [record.__dict__["action"] for record in caplog.records] == ["web.link.bug"] * 2


@pytest.mark.parametrize(
    "frame",
    [
        HEADER.pack(2**31, 1, Kind.BODY),
        HEADER.pack(0, 1, Kind.REQUEST),
        HEADER.pack(8, 1, Kind.REQUEST) + COUNT.pack(4) + b"junk",
        HEADER.pack(0, 5, 99),
        HEADER.pack(1, 5, Kind.CONSUMED) + b"x",
        HEADER.pack(4, 5, Kind.CONSUMED) + COUNT.pack(1),
        HEADER.pack(4, 5, Kind.CONSUMED) + COUNT.pack(FILE_OPENED),
    ],
)
@on_loop
async def test_what_is_no_frame_closes_the_link(frame: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as (rig, link):
        link.request(5)
        exchange = await rig.exchange()
        link.writer.write(frame)
        await news(exchange, lambda: exchange.gone)
        assert await link.closed() == b""
        assert caplog.records[0].__dict__["action"] == "web.link.malformed"


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                lambda stream, kind, payload: HEADER.pack(len(payload), stream, kind) + payload,
                st.integers(0, 3),
                st.integers(0, 15),
                st.binary(max_size=20),
            ),
        ),
        max_size=8,
    )
)
def test_whatever_an_edge_sends_the_link_stands_or_is_closed(pieces: list[bytes]) -> None:
    @on_loop
    async def test() -> None:
        async with linked(lambda exchange: exchange.respond(200, OK)) as (_, link):
            link.writer.write(b"".join(pieces))
            link.writer.write_eof()
            await link.closed()

    test()


def test_bounds_fit() -> None:
    assert ANSWER_BYTES_MAX <= WINDOW_BYTES and PIECE_BYTES_MAX <= WINDOW_BYTES
