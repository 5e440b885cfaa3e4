"""The threads of a WSGI worker, and an edge played by the test."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidParameter
from headrace.web.apps.wsgi import WsgiRunner
from headrace.web.dispatch.limits import FAST_S
from headrace.web.ipc import frames
from headrace.web.ipc.frames import COUNT, HEAD, HEAD_BYTES, HEADER, HEADER_BYTES, Hello, Kind, Request
from headrace.web.ipc.wsgi_link import LinkLost, WsgiLink, stood_still_ns
from headrace.web.ipc.wsgi_link_threads import WsgiLinkThreads, _ControlThread
from tests.patience import PATIENCE_S

HELLO = Hello(os.getpid(), 1, "wsgi", 99)


def packed_request(
    stream: int, method: str = "GET", target: str = "/", body: bytes = b"", *, ended: bool = True, **changes: Any
) -> bytes:
    head = Request(
        method,
        target,
        {b"host": b"x"},
        "1.1",
        False,
        "192.0.2.1",
        1,
        ("127.0.0.1", 80),
        b"",
        len(body),
        "",
        ended,
        False,
        0.0,
    )
    packed = msgspec.msgpack.encode(msgspec.structs.replace(head, **changes))
    return HEADER.pack(4 + len(packed) + len(body), stream, Kind.REQUEST) + COUNT.pack(len(packed)) + packed + body


class EdgeLink:
    """The edge's end of one link."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE_S)
        self.socket = connected
        self._file = connected.makefile("rb")
        kind, stream, payload = self.frame()
        assert (kind, stream) == (Kind.HELLO, 0)
        self.hello = msgspec.msgpack.decode(payload, type=Hello)

    def frame(self) -> tuple[Kind, int, bytes]:
        header = self._file.read(HEADER_BYTES)
        if not header:
            raise EOFError
        length, stream, kind = HEADER.unpack(header)
        return Kind(kind), stream, self._file.read(length)

    def send(self, kind: Kind, stream: int, payload: bytes = b"") -> None:
        self.socket.sendall(HEADER.pack(len(payload), stream, kind) + payload)

    def request(self, stream: int, *args: Any, **changes: Any) -> None:
        self.socket.sendall(packed_request(stream, *args, **changes))

    def consumed(self, stream: int, count: int) -> None:
        self.send(Kind.CONSUMED, stream, COUNT.pack(count))

    def head(self, kind: Kind, stream: int) -> tuple[int, int, bytes, bytes]:
        """Status, length, block and body of the answer that comes now."""
        came, number, payload = self.frame()
        assert (came, number) == (kind, stream)
        status, _, length, block = HEAD.unpack_from(payload)
        return status, length, payload[HEAD_BYTES : HEAD_BYTES + block], payload[HEAD_BYTES + block :]

    def answer(self, stream: int) -> tuple[int, bytes]:
        status, _, _, body = self.head(Kind.ANSWER, stream)
        return status, body

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Edge:
    """Listens for the worker's threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links: list[EdgeLink] = []
        self.control_links: list[EdgeLink] = []
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen(64)
        self.listening.settimeout(PATIENCE_S)

    def accept(self) -> EdgeLink:
        """The next thread's; control threads, which come when they like, are put aside."""
        while True:
            link = EdgeLink(self.listening.accept()[0])
            self.links.append(link)
            if link.hello.capacity:
                return link
            self.control_links.append(link)

    def control_link(self) -> EdgeLink:
        while not self.control_links:
            link = EdgeLink(self.listening.accept()[0])
            self.links.append(link)
            assert not link.hello.capacity
            self.control_links.append(link)
        return self.control_links[-1]

    def close(self) -> None:
        self.listening.close()
        self.path.unlink(missing_ok=True)
        for link in self.links:
            link.close()
        self.links.clear()


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    edge = Edge(tmp_path / "edge")
    yield edge
    edge.close()


@pytest.fixture
def working(edge: Edge) -> Iterator[Callable[..., WsgiLinkThreads]]:
    """Starts workers, and sees that they end."""
    started: list[WsgiLinkThreads] = []

    def work(app: Any, *, threads: int = 1, edges: list[Path] | None = None) -> WsgiLinkThreads:
        started.append(WsgiLinkThreads(app, edges=edges or [edge.path], threads=threads, hello=HELLO))
        return started[-1]

    yield work
    edge.close()
    for each in started:
        each.leave()
        assert each.join(PATIENCE_S)


def echo(environ: Any, start_response: Any) -> Any:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [environ["PATH_INFO"].encode() + b" " + body]


def streaming(*pieces: bytes) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return iter(pieces)

    return app


def test_thread_says_hello_and_answers_one_request_after_another(edge: Edge, working: Any) -> None:
    worker = working(echo)
    link = edge.accept()
    assert (link.hello.capacity, link.hello.interface, link.hello.pid) == (1, "wsgi", os.getpid())
    for stream in (1, 2, 3):
        link.request(stream, "POST", f"/{stream}", b"abc")
        assert link.answer(stream) == (200, b"/%d abc" % stream)
    worker.leave()
    assert link.frame()[0] is Kind.LEAVE
    assert (worker.requests, worker.in_flight) == (3, 0)


def test_requests_may_come_in_any_pieces(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    real, sent = link.socket, bytearray()

    class Collecting:
        def sendall(self, data: bytes) -> None:
            sent.extend(data)

    link.socket = Collecting()  # type: ignore[assignment]  # what `send` needs of one
    link.request(1, "POST", "/a", b"x" * 50)
    link.request(2, "POST", "/b", b"")
    link.socket = real
    for number in range(len(sent)):
        real.sendall(sent[number : number + 1])
    assert link.answer(1) == (200, b"/a " + b"x" * 50)
    assert link.answer(2) == (200, b"/b ")


def test_threads_are_dealt_out_over_the_edges(edge: Edge, working: Any, tmp_path: Path) -> None:
    other = Edge(tmp_path / "other")
    working(echo, threads=3, edges=[edge.path, other.path])
    for link in (edge.accept(), edge.accept(), other.accept()):
        link.request(1)
        assert link.answer(1)[0] == 200
    other.close()


def test_fewer_threads_than_edges_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter):
        WsgiLinkThreads(echo, edges=[tmp_path / "a", tmp_path / "b"], threads=1, hello=HELLO)


def test_body_that_came_in_chunks_has_its_length(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    link.request(1, "POST", "/", b"abcd", length=-1)
    _, _, block, body = link.head(Kind.ANSWER, 1)
    assert b"X-Length: 4\r\n" in block
    assert body == b"/ abcd"


def test_long_body_is_taken_in_pieces_and_the_edge_is_told(edge: Edge, working: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        size = len(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [str(size).encode()]

    working(app)
    link = edge.accept()
    link.request(1, "POST", "/", b"a" * 10_000, ended=False, length=1_000_000)
    ahead, sent, told = 10_000, 10_000, 0
    while sent < 1_000_000:
        while ahead + 60_000 > frames.WINDOW_BYTES:
            kind, stream, payload = link.frame()
            assert (kind, stream) == (Kind.CONSUMED, 1)
            ahead -= COUNT.unpack(payload)[0]
            told += 1
        link.send(Kind.BODY, 1, b"b" * min(60_000, 1_000_000 - sent))
        ahead += 60_000
        sent += min(60_000, 1_000_000 - sent)
    link.send(Kind.ENDED, 1)
    while (frame := link.frame())[0] is Kind.CONSUMED:
        told += 1
    assert frame[0] is Kind.ANSWER
    assert frame[2].endswith(b"1000000")
    assert 5 < told < 17


def test_awaited_body_is_invited(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    link.request(1, "POST", "/", ended=False, expects=True, length=3)
    assert link.frame() == (Kind.CONSUMED, 1, COUNT.pack(0))
    link.send(Kind.BODY, 1, b"abc")
    link.send(Kind.ENDED, 1)
    assert link.answer(1) == (200, b"/ abc")


def test_body_that_nobody_reads_does_not_reach_the_next_request(edge: Edge, working: Any) -> None:
    working(streaming())
    link = edge.accept()
    link.request(1, "POST", "/", b"abc", ended=False, length=9)
    assert link.answer(1) == (200, b"")
    link.send(Kind.BODY, 1, b"def")
    link.send(Kind.GONE, 1)
    link.request(2)
    assert link.answer(2) == (200, b"")


def test_stream_begins_with_its_first_piece(edge: Edge, working: Any) -> None:
    working(streaming(b"ab", b"c"))
    link = edge.accept()
    link.request(1)
    assert link.head(Kind.HEAD, 1) == (200, -1, b"", b"")
    assert [link.frame() for _ in range(2)] == [(Kind.DATA, 1, b"ab"), (Kind.DATA, 1, b"c")]
    assert link.frame()[:2] == (Kind.ENDED, 1)


def test_stream_waits_while_the_window_is_full(edge: Edge, working: Any) -> None:
    made = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(100):
            made.append(number)
            yield b"x" * 50_000

    working(app)
    link = edge.accept()
    link.request(1)
    link.head(Kind.HEAD, 1)
    received = 0
    while received + 50_000 <= frames.WINDOW_BYTES:
        received += len(link.frame()[2])
    link.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        link.socket.recv(1, socket.MSG_PEEK)
    link.socket.settimeout(PATIENCE_S)
    assert len(made) <= 6
    link.consumed(1, received)
    while (frame := link.frame())[0] is Kind.DATA:
        received += len(frame[2])
        link.consumed(1, len(frame[2]))
    assert (frame[0], received) == (Kind.ENDED, 5_000_000)
    link.request(2)
    assert link.head(Kind.HEAD, 2)[0] == 200


def test_client_that_leaves_stops_the_stream(edge: Edge, working: Any) -> None:
    closed = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 60_000
        finally:
            closed.set()

    working(app)
    link = edge.accept()
    link.request(1)
    link.head(Kind.HEAD, 1)
    link.send(Kind.GONE, 1)
    while (frame := link.frame())[0] is Kind.DATA:
        pass
    assert frame == (Kind.GONE, 1, b"")
    assert closed.wait(PATIENCE_S)
    link.request(2)
    assert link.head(Kind.HEAD, 2)[0] == 200


def test_client_that_leaves_during_the_body_ends_the_stream(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    link.request(1, "POST", "/", b"a", ended=False, length=9)
    link.send(Kind.GONE, 1)
    assert link.frame() == (Kind.GONE, 1, b"")


def test_app_that_swallows_that_the_client_has_left_still_ends_the_stream(edge: Edge, working: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.input"].read()
        except OSError:
            start_response("400 Cut", [])
        return [b"cut"]

    working(app)
    link = edge.accept()
    link.request(1, "POST", "/", ended=False, expects=True, length=9)
    assert link.frame()[0] is Kind.CONSUMED  # it has begun
    link.send(Kind.GONE, 1)
    assert link.answer(1) == (400, b"cut")


def test_broken_stream_is_gone(edge: Edge, working: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise ValueError

    working(app)
    link = edge.accept()
    link.request(1)
    link.head(Kind.HEAD, 1)
    assert [link.frame()[0] for _ in range(2)] == [Kind.DATA, Kind.GONE]


def file_app(path: Path) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    return app


def test_file_is_held_until_the_edge_has_it(edge: Edge, working: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_000)
    working(file_app(path))
    link = edge.accept()
    link.request(1)
    assert link.head(Kind.HEAD, 1)[1] == 1_000_000
    kind, _, payload = link.frame()
    file = msgspec.msgpack.decode(payload, type=frames.File)
    assert (kind, file.offset, file.count) == (Kind.FILE, 0, 1_000_000)
    assert os.fstat(file.fd).st_ino == path.stat().st_ino
    link.consumed(1, frames.FILE_OPENED)
    assert link.frame()[:2] == (Kind.ENDED, 1)


def test_file_is_read_if_the_edge_cannot_open_it(edge: Edge, working: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = os.urandom(1_000_000)
    path.write_bytes(content)
    working(file_app(path))
    link = edge.accept()
    link.request(1)
    link.head(Kind.HEAD, 1)
    assert link.frame()[0] is Kind.FILE
    link.consumed(1, frames.FILE_REFUSED)
    received = b""
    while (frame := link.frame())[0] is Kind.DATA:
        received += frame[2]
        link.consumed(1, len(frame[2]))
    assert frame[0] is Kind.ENDED
    assert received == content


def test_ping_is_answered(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    link.send(Kind.PING, 0, b"12345678")
    assert link.frame() == (Kind.PONG, 0, b"12345678")


# Requests ahead


class Gate:
    """An application that stops at `/stop` until it is let go, and remembers what it has run."""

    def __init__(self) -> None:
        self.stopped, self.go = threading.Event(), threading.Event()
        self.run: list[str] = []

    def __call__(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        self.run.append(path)
        if path == "/stop":
            self.stopped.set()
            assert self.go.wait(PATIENCE_S)
        start_response("200 OK", [])
        return [path.encode() + environ["wsgi.input"].read()]


def test_requests_ahead_are_run_in_order(edge: Edge, working: Any) -> None:
    worker = working(echo)
    link = edge.accept()
    link.socket.sendall(b"".join(packed_request(stream, target=f"/{stream}") for stream in range(1, 9)))
    assert [link.answer(stream) for stream in range(1, 9)] == [(200, b"/%d " % stream) for stream in range(1, 9)]
    assert worker.requests in (7, 8)  # counted after the answer


def test_control_thread_gives_back_what_was_not_begun_and_what_is_held(edge: Edge, working: Any) -> None:
    app = Gate()
    worker = working(app)
    link, control_link = edge.accept(), edge.control_link()
    assert (control_link.hello.capacity, link.hello.number) == (0, 0)
    ahead = [packed_request(1, target="/first"), packed_request(2, target="/stop"), packed_request(3, target="/third")]
    link.socket.sendall(b"".join(ahead))
    assert app.stopped.wait(PATIENCE_S)
    link.request(4, "POST", "/fourth", b"late, and still in the socket")
    control_link.send(Kind.RECALL, 0, COUNT.pack(0))
    assert link.answer(1) == (200, b"/first")
    assert [link.frame() for _ in range(2)] == [(Kind.RETURN, 3, b""), (Kind.RETURN, 4, b"")]
    assert worker.in_flight == 1
    app.go.set()
    assert link.answer(2) == (200, b"/stop")
    link.request(3, target="/third")  # may come again
    assert link.answer(3) == (200, b"/third")
    assert app.run == ["/first", "/stop", "/third"]


def test_control_thread_does_not_mind_nonsense(edge: Edge, working: Any) -> None:
    working(echo)
    link, control_link = edge.accept(), edge.control_link()
    for payload in (b"", b"abc", COUNT.pack(99), COUNT.pack(0)):
        control_link.send(Kind.RECALL, 0, payload)
        control_link.send(Kind.PING, 3, payload)
    link.request(1)
    assert link.answer(1)[0] == 200


def test_control_thread_outlives_an_edge_that_asks_and_ends(tmp_path: Path) -> None:
    edge, connected = socket.socketpair(socket.AF_UNIX)
    edge.sendall(HEADER.pack(0, 0, Kind.PING))
    edge.close()
    with connected:
        assert _ControlThread(tmp_path / "edge", [], b"")._serve(connected)


def test_no_answer_is_held_when_a_request_that_must_not_be_repeated_begins(edge: Edge, working: Any) -> None:
    app = Gate()
    working(app)
    link = edge.accept()
    ahead = [packed_request(1), packed_request(2, "POST", "/stop"), packed_request(3)]
    link.socket.sendall(b"".join(ahead))
    assert app.stopped.wait(PATIENCE_S)
    assert link.answer(1)[0] == 200  # without a RECALL
    app.go.set()
    assert [link.answer(stream)[0] for stream in (2, 3)] == [200, 200]


def test_who_waits_for_its_client_lets_the_others_go(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    slow = packed_request(1, "POST", "/slow", ended=False, length=2)
    link.socket.sendall(slow + packed_request(2) + packed_request(3))
    assert [link.frame()[:2] for _ in range(2)] == [(Kind.RETURN, 2), (Kind.RETURN, 3)]
    link.request(4)  # while it waits, too
    assert link.frame()[:2] == (Kind.RETURN, 4)
    link.send(Kind.BODY, 1, b"ab")
    link.send(Kind.ENDED, 1)
    assert link.answer(1) == (200, b"/slow ab")


def test_body_of_a_request_ahead_is_kept_for_it(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    first, second = packed_request(1), packed_request(2, "POST", "/b", b"a", ended=False, length=3)
    rest = HEADER.pack(2, 2, Kind.BODY) + b"bc" + HEADER.pack(0, 2, Kind.ENDED)
    link.socket.sendall(first + second + rest)
    assert link.answer(1)[0] == 200
    assert link.answer(2) == (200, b"/b abc")


def test_request_whose_client_left_is_not_run(edge: Edge, working: Any) -> None:
    app = Gate()
    working(app)
    link = edge.accept()
    ahead = [packed_request(1, target="/stop"), packed_request(2, target="/left"), packed_request(3, target="/stays")]
    link.socket.sendall(b"".join(ahead))
    assert app.stopped.wait(PATIENCE_S)
    link.send(Kind.GONE, 2)
    control_link = edge.control_link()  # has the socket read, and so all of it given back
    control_link.send(Kind.RECALL, 0, COUNT.pack(0))
    assert [link.frame()[:2] for _ in range(2)] == [(Kind.RETURN, 2), (Kind.RETURN, 3)]
    app.go.set()
    assert link.answer(1)[0] == 200
    app.stopped.clear()
    link.socket.sendall(packed_request(4) + packed_request(5, target="/left") + HEADER.pack(0, 5, Kind.GONE))
    assert {link.frame()[:2] for _ in range(2)} == {(Kind.ANSWER, 4), (Kind.GONE, 5)}
    assert "/left" not in app.run


def test_worker_that_leaves_gives_back_what_it_has_not_begun(edge: Edge, working: Any) -> None:
    app = Gate()
    worker = working(app)
    link = edge.accept()
    link.socket.sendall(packed_request(1, target="/stop") + packed_request(2) + packed_request(3))
    assert app.stopped.wait(PATIENCE_S)
    worker.leave()
    assert [link.frame()[:2] for _ in range(3)] == [(Kind.LEAVE, 0), (Kind.RETURN, 2), (Kind.RETURN, 3)]
    app.go.set()
    assert link.answer(1)[0] == 200
    link.send(Kind.LEAVE, 0)
    assert worker.join(PATIENCE_S)
    assert app.run == ["/stop"]


def test_requests_ahead_of_an_edge_that_is_gone_are_not_run(edge: Edge, working: Any) -> None:
    app = Gate()
    working(app)
    link = edge.accept()
    link.socket.sendall(packed_request(1, target="/stop") + packed_request(2, "POST", "/never"))
    assert app.stopped.wait(PATIENCE_S)
    edge.close()
    app.go.set()
    successor = Edge(edge.path)
    link = successor.accept()
    link.request(1, target="/new")
    assert link.answer(1) == (200, b"/new")
    successor.close()
    assert app.run == ["/stop", "/new"]


def test_more_ahead_than_any_edge_gives_costs_the_link(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    with contextlib.suppress(OSError):
        link.socket.sendall(packed_request(1) * 100)
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            link.frame()


def wait_long() -> None:
    """What a request waits for counts, but for what its thread has stood without a processor: all that it ever has is
    taken off, and a busy machine lets it stand for longer than any pause that a test may choose."""
    began_s = time.perf_counter()
    while time.perf_counter() - began_s - stood_still_ns() / 1e9 <= 20 * FAST_S:
        time.sleep(0.001)


def test_long_request_is_told(edge: Edge, working: Any) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/long":
            wait_long()
        start_response("200 OK", [])
        return [b""]

    working(app)
    link = edge.accept()
    for stream, path, long in ((1, "/", 0), (2, "/long", frames.LONG)):
        link.request(stream, target=path)
        _, _, payload = link.frame()
        flags = HEAD.unpack_from(payload)[1]
        assert flags & frames.LONG == long or not long  # a short one may have been unlucky


def test_stream_that_was_long_is_told(edge: Edge, working: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        wait_long()

    working(app)
    link = edge.accept()
    link.request(1)
    assert [link.frame()[0] for _ in range(2)] == [Kind.HEAD, Kind.DATA]
    assert link.frame() == (Kind.ENDED, 1, b"\x01")


# Leaving


def test_request_that_was_on_its_way_is_answered_before_leaving(edge: Edge, working: Any) -> None:
    worker = working(echo)
    link = edge.accept()
    worker.leave()
    assert link.frame()[0] is Kind.LEAVE
    link.request(1)
    link.send(Kind.LEAVE, 0)
    assert link.answer(1)[0] == 200
    assert worker.join(PATIENCE_S)
    with pytest.raises(EOFError):
        link.frame()


def test_request_that_runs_is_finished_before_leaving(edge: Edge, working: Any) -> None:
    running, going_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        running.set()
        assert going_on.wait(PATIENCE_S)
        start_response("200 OK", [])
        return [b"done"]

    worker = working(app)
    link = edge.accept()
    link.request(1)
    assert running.wait(PATIENCE_S)
    worker.leave()
    assert not worker.join(0)
    assert worker.in_flight == 1
    assert link.frame()[0] is Kind.LEAVE
    going_on.set()
    assert link.answer(1) == (200, b"done")
    link.send(Kind.LEAVE, 0)
    assert worker.join(PATIENCE_S)


def test_edge_that_leaves_is_looked_for_again(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    link.request(1)
    link.answer(1)
    link.send(Kind.LEAVE, 0)
    with pytest.raises(EOFError):
        link.frame()
    again = edge.accept()
    again.request(1)
    assert again.answer(1)[0] == 200


def test_edge_that_vanishes_is_looked_for_and_its_request_forgotten(edge: Edge, working: Any) -> None:
    running, going_on = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/old":
            running.set()
            assert going_on.wait(PATIENCE_S)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    working(app)
    link = edge.accept()
    link.request(1, target="/old")
    assert running.wait(PATIENCE_S)
    edge.close()
    going_on.set()
    successor = Edge(edge.path)
    link = successor.accept()
    link.request(1, target="/new")
    assert link.answer(1) == (200, b"/new")
    successor.close()


def test_worker_waits_for_an_edge_that_is_not_there_yet(edge: Edge, working: Any, tmp_path: Path) -> None:
    worker = working(echo, edges=[tmp_path / "later"])
    later = Edge(tmp_path / "later")
    link = later.accept()
    link.request(1)
    assert link.answer(1)[0] == 200
    assert worker.requests in (0, 1)
    later.close()


def test_lasting_outage_is_reported_once(
    working: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headrace.web.ipc.wsgi_link_threads.PAUSE_MIN_S", 0.001)
    monkeypatch.setattr("headrace.web.ipc.wsgi_link_threads.PAUSE_MAX_S", 0.004)
    later = tmp_path / "later"
    with caplog.at_level("INFO", "headrace.web"):
        working(echo, edges=[later])
        tries = threading.Event()
        while not caplog.records:
            tries.wait(0.001)
        edge = Edge(later)
        edge.accept()
    assert [vars(record)["action"] for record in caplog.records] == ["web.link.lost"]
    edge.close()


def test_worker_leaves_while_there_is_no_edge(working: Any, tmp_path: Path) -> None:
    worker = working(echo, edges=[tmp_path / "never"])
    worker.leave()
    assert worker.join(PATIENCE_S)


def test_slow_work_after_an_answer_gets_the_thread_off_its_link(edge: Edge, working: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("headrace.web.apps.wsgi.SLOW_CLOSE_S", -1.0)  # every work afterwards is slow
    working(echo)
    link = edge.accept()
    link.request(1)
    assert link.answer(1)[0] == 200
    link.request(2)
    assert link.frame()[0] is Kind.LEAVE
    assert link.answer(2)[0] == 200
    link.send(Kind.LEAVE, 0)
    again = edge.accept()
    again.request(1)
    assert again.frame()[0] is Kind.LEAVE
    assert again.answer(1)[0] == 200


# Nonsense


@pytest.mark.parametrize(
    "nonsense",
    [
        HEADER.pack(frames.PAYLOAD_BYTES_MAX + 1, 1, Kind.REQUEST),
        HEADER.pack(3, 1, Kind.REQUEST) + b"abc",
        HEADER.pack(6, 1, Kind.REQUEST) + COUNT.pack(2) + b"\xc1\xc1",
        HEADER.pack(5, 1, Kind.REQUEST) + COUNT.pack(1) + b"\x01",
        HEADER.pack(9, 1, Kind.REQUEST) + COUNT.pack(0xFFFFFFFF) + b"\x93abc\x00",
    ],
)
def test_link_with_nonsense_is_closed_and_made_anew(edge: Edge, working: Any, nonsense: bytes) -> None:
    working(echo)
    link = edge.accept()
    link.socket.sendall(nonsense)
    with pytest.raises((EOFError, ConnectionResetError)):
        link.frame()
    again = edge.accept()
    again.request(1)
    assert again.answer(1)[0] == 200


def test_link_is_made_anew_after_nonsense_in_a_request(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    link.request(1, "POST", "/", ended=False, expects=True, length=9)
    assert link.frame()[0] is Kind.CONSUMED
    link.request(0)
    assert link.frame()[0] is Kind.GONE
    with pytest.raises((EOFError, ConnectionResetError)):
        link.frame()
    again = edge.accept()
    again.request(1, "POST", "/", ended=False, expects=True, length=9)
    assert again.frame()[0] is Kind.CONSUMED
    again.send(Kind.CONSUMED, 1, b"abc")
    assert again.frame()[0] is Kind.GONE
    third = edge.accept()
    third.request(1)
    assert third.answer(1)[0] == 200


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                lambda kind, stream, payload: HEADER.pack(len(payload), stream, kind) + payload,
                st.integers(0, 16),
                st.integers(0, 3),
                st.binary(max_size=20),
            ),
            st.sampled_from([packed_request(1), packed_request(2, ended=False), packed_request(3, method="POST")]),
        ),
        max_size=8,
    )
)
@settings(max_examples=200, deadline=None)
def test_link_ends_for_its_declared_reasons_only(pieces: list[bytes]) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return iter([b"a", body])

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(pieces))
        theirs.shutdown(socket.SHUT_WR)
        link = WsgiLink(ours, WsgiRunner(app, multithread=True, multiprocess=True))
        with contextlib.suppress(LinkLost):
            link.serve()
        assert not link.in_flight


def test_unknown_and_late_frames_are_ignored(edge: Edge, working: Any) -> None:
    working(echo)
    link = edge.accept()
    for kind in (Kind.BODY, Kind.ENDED, Kind.GONE, Kind.CONSUMED, Kind.DATA):
        link.send(kind, 7, b"abcd")
    link.request(8)
    assert link.answer(8)[0] == 200
