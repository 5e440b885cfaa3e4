"""Clients that are slow on purpose hold neither threads nor workers, and others are served at once."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.web.test_kills import pass_by
from tests.faults.web.traffic import APPS, traffic
from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve, wait_until

pytestmark = pytest.mark.serial

SLOW = 300
AT_ONCE_S = 20.0
"""2 ms alone; on a busy machine more, but a slow client takes for ever."""

BIG = """
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/big"):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "20000000")])
        return iter([b"x" * 1_000_000] * 20)
    body = environ["wsgi.input"].read()
    answer = b"one %s %s" % (path.encode(), body)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""


@contextmanager
def connected(port: int, count: int, first: bytes, *, receive_bytes: int = 0) -> Iterator[list[socket.socket]]:
    """So many clients that have sent something."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            if receive_bytes:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            client.connect(("127.0.0.1", port))
            client.sendall(first)
            clients.append(client)
        yield clients


@pytest.mark.parametrize("mode", ["edge", "direct"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_trickling_heads_and_bodies_hinder_nobody(tmp_path: Path, kind: str, mode: str) -> None:
    (tmp_path / "shop.py").write_text(APPS[kind].replace("VERSION", "one"))
    arguments = ["--workers", "1", "--threads", "8", *(["--direct"] if mode == "direct" else [])]
    head = b"POST /slow-one HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    with (
        serve(tmp_path, "shop:app", *arguments) as server,
        connected(server.port, SLOW // 3, b"") as silent,
        connected(server.port, SLOW // 3, head) as heads,
        connected(server.port, SLOW // 3, head + b"\r\n") as bodies,
    ):
        with traffic(server.port, rate=100) as running:
            for _ in range(5):
                for client in (*heads, *bodies):
                    client.sendall(b"x")
                pass_by(running, 10)
        assert running.failed() == []
        assert max(one.took_s for one in running.outcomes) < AT_ONCE_S
        assert len(silent) == SLOW // 3
        for client in bodies:  # the last of them comes in a hurry
            client.sendall(b"y" * 995)
        for client in bodies[:2]:
            client.settimeout(PATIENCE_S)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_clients_that_do_not_read_hold_no_more_than_their_own(tmp_path: Path, mode: str) -> None:
    """A WSGI thread that writes to such a client is held, in any server: so the edge takes what it has first, and the
    rest of the threads serve the others."""
    (tmp_path / "shop.py").write_text(BIG)
    arguments = ["--workers", "1", "--threads", "24", *(["--direct"] if mode == "direct" else [])]
    with (
        serve(tmp_path, "shop:app", *arguments) as server,
        connected(server.port, 20, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", receive_bytes=4096),
    ):
        before = _memory_bytes(server)
        with traffic(server.port, rate=100) as running:
            pass_by(running, 100)
        assert running.failed() == []
        assert max(one.took_s for one in running.outcomes) < AT_ONCE_S
        assert _memory_bytes(server) - before < 64 * 2**20


def _memory_bytes(server: WebProcess) -> int:
    total = 0
    for pid in server.processes():
        total += int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * resource.getpagesize()
    return total


def test_connections_beyond_the_maximum_wait_and_are_served_when_others_leave(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BIG)
    with serve(tmp_path, "shop:app", "--workers", "1", "--connections-max", "20") as server:
        with socket.socket() as waiting:
            with connected(server.port, 20, b""):
                waiting.connect(("127.0.0.1", server.port))
                waiting.sendall(b"GET /waits HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                waiting.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    waiting.recv(1)
            waiting.settimeout(PATIENCE_S)
            assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.text("/after") == "one /after "


def test_a_shortage_of_descriptors_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BIG)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serve(tmp_path, "shop:app", "--workers", "1", "--threads", "2") as server:
        (edge,) = server.edges()
        used = len(list(Path(f"/proc/{edge}/fd").iterdir()))
        resource.prlimit(edge, resource.RLIMIT_NOFILE, (used + 10, hard[1]))
        with connected(server.port, 60, b"GET /held HTTP/1.1\r\nHost: a\r\n"):
            wait_until(lambda: len(list(Path(f"/proc/{edge}/fd").iterdir())) >= used + 9)
            cpu_s = _cpu_s(edge)
            began_s = time.monotonic()
            wait_until(lambda: time.monotonic() > began_s + 0.5)
            assert _cpu_s(edge) - cpu_s < 0.3, "it must not ask again and again"
        assert wait_until(lambda: server.text("/after")) == "one /after "
        assert server.edges() == {edge}
        assert server.stop() == 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
