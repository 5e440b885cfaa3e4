"""The corpus through nginx: what nginx took for one request, we take for one, too; on connections that it shares."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.http.exchange import Exchange
from headrace.testing.ports import free_port
from tests.http.hostile.cases import CUT, HOSTILE, LAST, LIMITS, SMUGGLED, SOUND
from tests.http.streamed import Echo, stream_serving
from tests.patience import PATIENCE_S

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  log_format passed '$request_method $request_uri $upstream_addr';
  access_log {folder}/access.log passed;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  lingering_close off; ignore_invalid_headers off; underscores_in_headers on;
  client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s;
  upstream headrace {{ server 127.0.0.1:{upstream}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://headrace; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host a;
      proxy_request_buffering off; proxy_next_upstream off;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """nginx in front of a port; yields its own."""
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=upstream))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", folder, "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)  # another process has to bring it about


def play(port: int, stream: bytes) -> None:
    """Send a stream, and wait until nginx closes: for one who leaves before, it cuts what it has passed on."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(stream)
        while client.recv(65_536):
            pass


def passed(log: Path) -> Counter[str]:
    """The requests that nginx has passed on. It logs them when it is done with them."""
    lines = [line.split(" ") for line in log.read_text().splitlines()]
    return Counter(f"{method} /{target.removeprefix('/')}" for method, target, upstream in lines if upstream != "-")


@pytest.mark.serial
def test_nginx_in_front_and_we_count_the_same_requests(tmp_path: Path) -> None:
    echo, half_refused = Echo(), 0

    def ended(exchange: Exchange) -> None:
        nonlocal half_refused
        half_refused += exchange.status in {400, 413, 431}

    def target(exchange: Exchange) -> None:
        exchange.on_done = ended
        echo(exchange)

    streams = [stream for stream, _ in HOSTILE.values()] + [stream for stream, _ in SOUND.values()]
    streams += [*LAST.values(), *CUT.values()]
    with stream_serving(target, LIMITS) as server, nginx(tmp_path, server.port) as port:

        def heads() -> int:
            """How many requests we have taken from nginx's streams, those refused by their heads included."""
            statistics = server.listener.statistics()
            return statistics.requests + statistics.refused - half_refused

        with ThreadPoolExecutor(32) as clients:
            list(clients.map(lambda stream: play(port, stream + SMUGGLED), streams))
        play(port, b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        log = tmp_path / "access.log"
        until(lambda: "GET /end" in passed(log))
        until(lambda: sum(passed(log).values()) >= heads())
        logged, seen = passed(log), Counter(f"{method} {target}" for method, target, _ in echo.seen)
        assert sum(logged.values()) == heads()
    assert seen["GET /smuggled"] == logged["GET /smuggled"]
    assert not seen - logged, "requests that nginx does not know of"
    assert sum(seen.values()) > len(SOUND)
