"""Applications that misbehave, also on purpose: it costs them their own request, or their worker, and nobody else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, wait_until

pytestmark = pytest.mark.serial

WSGI = """
import ctypes, os, sys, threading, time
forever = threading.Event()

def app(environ, start_response):
    answer = globals().get(environ["PATH_INFO"][1:], hello)
    return answer(start_response)

def hello(start, text=b"hello"):
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]

def slow(start):
    time.sleep(0.2)
    return hello(start, b"%d" % os.getpid())

def injected_value(start):
    start("200 OK", [("X", "a\\r\\nSet-Cookie: evil=1")])
    return [b"x"]

def injected_name(start):
    start("200 OK", [("X: a\\r\\nSet-Cookie", "evil=1")])
    return [b"x"]

def injected_status(start):
    start("200 OK\\r\\nSet-Cookie: evil=1", [])
    return [b"x"]

def hop_by_hop(start):
    start("200 OK", [("Transfer-Encoding", "chunked")])
    return [b"5\\r\\nhello\\r\\n0\\r\\n\\r\\n"]

def two_lengths(start):
    start("200 OK", [("Content-Length", "5"), ("Content-Length", "50")])
    return [b"hello"]

def too_short(start):
    start("200 OK", [("Content-Length", "50")])
    return [b"hello"]

def too_long(start):
    start("200 OK", [("Content-Length", "5")])
    return [b"hello", b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nevil"]

def raises(start):
    raise RuntimeError("before")

def raises_within(start):
    def body():
        yield b"x" * 100_000
        raise RuntimeError("within")
    start("200 OK", [])
    return body()

def leaves(start):
    raise SystemExit(3)

def never_starts(start):
    return [b"x"]

def text(start):
    start("200 OK", [])
    return ["text"]

def huge_headers(start):
    start("200 OK", [("X-%d" % i, "v" * 4000) for i in range(2000)])
    return [b"x"]

def exits(start):
    os._exit(7)

def crashes(start):
    ctypes.string_at(0)

def forks(start):
    child = os.fork()
    if not child:
        time.sleep(0.05)
        os._exit(0)  # it has all our sockets, and closes them
    os.waitpid(child, 0)
    return hello(start, b"forked")

def forks_and_stays(start):
    if not os.fork():
        forever.wait(60)
        os._exit(0)
    return hello(start, b"forked")

def threads(start):
    threading.Thread(target=forever.wait).start()
    return hello(start)

def closes_output(start):
    for stream in (sys.stdout, sys.stderr):
        stream.close()
    os.close(1)
    return hello(start, b"closed")
"""

ASGI = """
import asyncio, ctypes, os, sys, threading
forever = threading.Event()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await globals().get(scope["path"][1:], hello)(send)

async def start(send, *headers, status=200):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})

async def body(send, data=b"", more=False):
    await send({"type": "http.response.body", "body": data, "more_body": more})

async def hello(send, text=b"hello"):
    await start(send, (b"content-length", b"%d" % len(text)))
    await body(send, text)

async def slow(send):
    await asyncio.sleep(0.2)
    await hello(send, b"%d" % os.getpid())

async def injected_value(send):
    await start(send, (b"x", b"a\\r\\nset-cookie: evil=1"))
    await body(send, b"x")

async def injected_name(send):
    await start(send, (b"x: a\\r\\nset-cookie", b"evil=1"))
    await body(send, b"x")

async def injected_status(send):
    await start(send, status="200\\r\\nset-cookie: evil=1")
    await body(send, b"x")

async def hop_by_hop(send):
    await start(send, (b"transfer-encoding", b"chunked"))
    await body(send, b"5\\r\\nhello\\r\\n0\\r\\n\\r\\n")

async def two_lengths(send):
    await start(send, (b"content-length", b"5"), (b"content-length", b"50"))
    await body(send, b"hello")

async def too_short(send):
    await start(send, (b"content-length", b"50"))
    await body(send, b"hello")

async def too_long(send):
    await start(send, (b"content-length", b"5"))
    await body(send, b"hello", more=True)
    await body(send, b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nevil")

async def raises(send):
    raise RuntimeError("before")

async def raises_within(send):
    await start(send)
    await body(send, b"x" * 100_000, more=True)
    raise RuntimeError("within")

async def leaves(send):
    raise SystemExit(3)

async def never_starts(send):
    await body(send, b"x")

async def text(send):
    await start(send)
    await body(send, "text")

async def huge_headers(send):
    await start(send, *[(b"x-%d" % i, b"v" * 4000) for i in range(2000)])
    await body(send, b"x")

async def exits(send):
    os._exit(7)

async def crashes(send):
    ctypes.string_at(0)

async def forks(send):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    await hello(send, b"forked")

async def forks_and_stays(send):
    if not os.fork():
        forever.wait(60)
        os._exit(0)
    await hello(send, b"forked")

async def threads(send):
    threading.Thread(target=forever.wait).start()
    await hello(send)

async def closes_output(send):
    for stream in (sys.stdout, sys.stderr):
        stream.close()
    os.close(1)
    await hello(send, b"closed")
"""

KINDS = {"wsgi": WSGI, "asgi": ASGI}


def start(folder: Path, kind: str, *arguments: str) -> WebProcess:
    (folder / "bad.py").write_text(KINDS[kind])
    server = WebProcess(folder, "bad:app", "--port", "0", *arguments)
    server.wait_ready()
    return server


@pytest.fixture(scope="module", params=["wsgi-edge", "asgi-edge", "wsgi-direct", "asgi-direct"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """One for all that a worker survives."""
    kind, mode = request.param.split("-")
    more = ["--direct"] if mode == "direct" else []
    running = start(tmp_path_factory.mktemp("bad"), kind, "--workers", "1", "--drain", "1s", *more)
    yield running
    running.end()


@contextmanager
def two_workers(folder: Path, kind: str) -> Iterator[WebProcess]:
    running = start(folder, kind, "--workers", "2", "--drain", "1s")
    try:
        yield running
    finally:
        running.end()


def exchange(server: WebProcess, *paths: str) -> bytes:
    """All that comes for some requests of one connection, sent at once; the last asks for its end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
        requests = [f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths]
        client.sendall("".join(requests).encode() + b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := client.recv(65_536):
            received += piece
        return received


REFUSED = [
    *("injected_value", "injected_name", "injected_status", "two_lengths", "too_short", "raises", "never_starts"),
]
CUT = ["raises_within"]


@pytest.mark.parametrize("path", [*REFUSED, "leaves", "text", "hop_by_hop", "huge_headers", "too_long", *CUT])
def test_a_bad_answer_is_500_or_cut_and_says_nothing_of_the_application_s(server: WebProcess, path: str) -> None:
    before = server.workers()
    received = exchange(server, path)
    assert b"evil" not in received and b"RuntimeError" not in received
    status = int(received.split(b" ", 2)[1]) if received else 0
    answers = received.count(b"HTTP/1.1 ")
    if path in REFUSED:
        assert (status, answers) == (500, 2), received
    elif path in CUT:
        assert (status, answers) == (200, 1) and not received.endswith(b"0\r\n\r\n"), received[-200:]
    else:
        assert status in (0, 200, 500) and answers <= 2, received[-200:]
    assert server.text("/hello") == "hello"
    assert server.workers() == before


@pytest.mark.parametrize("path", ["forks", "threads"])
def test_children_and_threads_of_an_application_are_its_own_business(server: WebProcess, path: str) -> None:
    for _ in range(5):
        assert server.get(f"/{path}")[0] == 200
        assert server.text("/hello") == "hello"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["exits", "crashes"])
def test_a_request_that_ends_its_worker_takes_three_at_most_and_no_bystander(
    tmp_path: Path, kind: str, path: str
) -> None:
    with two_workers(tmp_path, kind) as server, ThreadPoolExecutor(12) as pool:
        bystanders = [pool.submit(server.get, "/slow") for _ in range(8)]
        poison = pool.submit(server.get, f"/{path}")
        more = [pool.submit(server.get, "/slow") for _ in range(20)]
        assert poison.result()[0] == 502
        assert {one.result()[0] for one in [*bystanders, *more]} == {200}
        assert server.wait_for("web.request.poison")["count"] == 3
        wait_until(lambda: sum("web.worker.ended" in line for line in server.raw) == 3)
        assert server.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_post_that_ends_its_worker_takes_one(tmp_path: Path, kind: str) -> None:
    with two_workers(tmp_path, kind) as server:
        assert server.get("/exits", method="POST", body=b"x")[0] == 502
        assert server.text("/hello") == "hello"
        wait_until(lambda: len(server.workers()) == 2)
        wait_until(lambda: sum("web.worker.ended" in line for line in server.raw) == 1)
        assert server.stop() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_closed_streams_silence_nobody_but_the_application(tmp_path: Path, kind: str, mode: str) -> None:
    server = start(tmp_path, kind, "--workers", "1", "--drain", "1s", *(["--direct"] if mode == "direct" else []))
    try:
        for path, status in (("closes_output", 200), ("raises", 500), ("hello", 200), ("raises", 500)):
            assert server.get(f"/{path}")[0] == status
        wait_until(lambda: sum("RuntimeError: before" in line for line in server.raw) == 2)
        assert server.stop() == 0
    finally:
        server.end()


def test_threads_that_never_end_do_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    """Those of an ASGI application are waited for, as Python does at exit, but no longer than 11 s."""
    server = start(tmp_path, "wsgi", "--workers", "1", "--drain", "1s")
    try:
        assert server.get("/threads")[0] == 200
        assert server.stop() == 0
    finally:
        server.end()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_a_child_that_stays_does_not_keep_connections_or_the_port(tmp_path: Path, kind: str, mode: str) -> None:
    server = start(tmp_path, kind, "--workers", "1", "--drain", "1s", *(["--direct"] if mode == "direct" else []))
    try:
        assert server.text("/forks_and_stays") == "forked"
        assert server.text("/hello") == "hello"
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
    finally:
        server.end()
