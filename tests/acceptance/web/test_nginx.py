"""Behind nginx and in front of nginx: both sides of a shared connection take every stream for the same requests.

Each answer says which request it is for. After each hostile stream an honest client asks for something of its own, over
the same pool of connections: if one had gone out of step, it would get another's answer, or nginx's log would have a
request that nobody was answered for.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.testing.ports import free_port
from tests.http.hostile.cases import CUT, HOSTILE, LAST, SMUGGLED, SOUND
from tests.http.support import split_answers
from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve, wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = [pytest.mark.serial, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]

APP = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
"""

FRONT = """
  upstream headrace {{ server 127.0.0.1:{upstream}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://headrace; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host a;
      proxy_request_buffering off; proxy_next_upstream off;
    }}
  }}
"""
BACK = """
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "$request_method $uri"; }} }}
"""
CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  log_format passed '$request_method $uri'; access_log {folder}/access.log passed;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  lingering_close off; ignore_invalid_headers off; underscores_in_headers on; client_header_timeout 2s;
  {servers}
}}
"""
STREAMS = {**HOSTILE, **SOUND, **{name: (stream, 0) for name, stream in [*LAST.items(), *CUT.items()]}}


@contextmanager
def nginx(folder: Path, servers: str, **values: object) -> Iterator[int]:
    """nginx on a port of its own."""
    assert NGINX is not None
    port = free_port()
    configuration = folder / "nginx.conf"
    written = CONFIGURATION.replace("{servers}", servers).format(folder=folder, port=port, **values)
    configuration.write_text(written)
    process = subprocess.Popen([NGINX, "-p", folder, "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_open(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def play(port: int, stream: bytes, *, silent_s: float = PATIENCE_S) -> bytes:
    """All that is answered; until it is closed, or silent for so long."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=silent_s) as client:
        try:
            client.sendall(stream)
            while piece := client.recv(65_536):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
    return received


def answers_of(received: bytes) -> list[tuple[int, bytes]]:
    return [(answer.status, answer.body) for answer in split_answers(received) if answer.status != 100]


def check_all(port: int) -> None:
    """Attack, then ask as an honest client does; the answers must be one's own."""
    for number, (name, (stream, *_)) in enumerate(STREAMS.items()):
        play(port, stream + SMUGGLED, silent_s=0.15)  # many are never answered
        for again in range(2):
            marker = f"/marker/{number}/{again}"
            request = f"GET {marker} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
            assert answers_of(play(port, request)) == [(200, f"GET {marker}".encode())], name


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_behind_nginx_honest_clients_get_their_own_answers(tmp_path: Path, mode: str) -> None:
    (tmp_path / "shop.py").write_text(APP)
    with (
        serve(tmp_path, "shop:app", "--workers", "1", *(["--direct"] if mode == "direct" else [])) as server,
        nginx(tmp_path, FRONT, upstream=server.port) as port,
    ):
        check_all(port)
        assert server.stop() == 0


def test_in_front_of_nginx_honest_clients_get_their_own_answers(tmp_path: Path) -> None:
    with nginx(tmp_path, BACK) as behind, serve(tmp_path, "--proxy", f"http://127.0.0.1:{behind}") as server:
        check_all(server.port)
        _check_one_by_one(server, tmp_path / "access.log")
        assert server.stop() == 0


def _check_one_by_one(server: WebProcess, log: Path) -> None:
    """What is refused is passed on to nobody, and nothing behind it; what is sound is answered once for each request."""
    for name, (stream, status) in HOSTILE.items():
        received = play(server.port, stream + SMUGGLED, silent_s=0.15 if name in WIDER else PATIENCE_S)
        answers = answers_of(received)
        if answers and answers[0][0] == status:
            assert len(answers) == 1 and b"connection: close" in received.lower(), name
        else:  # sound by the limits of a web server, which are wider than those of the corpus
            assert name in WIDER, (name, answers)
    for name, (stream, expected) in SOUND.items():
        answers = answers_of(play(server.port, stream + b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
        assert len(answers) == len(expected) + 1, (name, answers)
    log.write_text("")  # nginx appends
    for name, (stream, _) in HOSTILE.items():
        if name not in WIDER:
            play(server.port, stream + SMUGGLED)
    play(server.port, b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    wait_until(lambda: "GET /end" in log.read_text())
    # Of a request whose body turns out malformed the head may have been passed on; of what is behind it nothing.
    assert "/smuggled" not in log.read_text()


WIDER = {
    "chunks_longer_than_limit",
    "trailers_too_long",
    "trailer_line_too_long",
    "too_many_headers",
    "too_many_repeats",
    "headers_too_long",
    "target_too_long",
    "line_without_end",
    "body_too_long",
}
