"""Static files and compression through the engine: real sockets, real clients."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headrace.http.compress import compressed
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.static import StaticFiles
from tests.http.static_support import SECRET, make_root, open_files, write
from tests.http.streamed import StreamServer, stream_serving
from tests.patience import PATIENCE_S

BIG = random.Random(3).randbytes(6_000_001)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_root(tmp_path)
    write(root / "big.dat", BIG)
    write(root / "long.txt", b"a line that repeats itself\n" * 40_000)
    return root


@pytest.fixture
def server(root: Path) -> Iterator[StreamServer]:
    with stream_serving(StaticFiles(root, index=True, compress=True)) as server:
        yield server


@pytest.fixture
def client(server: StreamServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        yield client


def test_many_requests_on_one_connection(client: httpx.Client) -> None:
    for _ in range(3):
        assert client.get("/").text == "<h1>home</h1>"
        assert client.head("/big.dat").headers["content-length"] == "6000001"
        assert client.get("/big.dat").content == BIG
        partly = client.get("/big.dat", headers={"range": "bytes=1000000-4999999"})
        assert partly.status_code == 206 and partly.content == BIG[1_000_000:5_000_000]
        parts = client.get("/big.dat", headers={"range": "bytes=0-99,3000000-5000000,-1"})
        assert parts.status_code == 206 and BIG[3_000_000:5_000_001] in parts.content
        assert int(parts.headers["content-length"]) == len(parts.content)
        assert client.get("/big.dat", headers={"if-none-match": partly.headers["etag"]}).status_code == 304
        assert client.get("/none").status_code == 404
        assert client.get("/big.dat", headers={"range": "bytes=9999999-"}).status_code == 416


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_client_unpacks_what_is_packed(client: httpx.Client, root: Path, coding: str) -> None:
    for name in ("long.txt", "page.html"):
        write(root / "page.html", b"<p>again and again</p>" * 500)
        answer = client.get(f"/{name}", headers={"accept-encoding": coding})
        assert answer.headers["content-encoding"] == coding
        assert answer.content == (root / name).read_bytes()
        assert answer.num_bytes_downloaded < len(answer.content) / 10


def test_folder_redirect_is_followed_to_the_same_host(client: httpx.Client) -> None:
    answer = client.get("/docs?x=1", follow_redirects=True)
    assert answer.text == "<h1>docs</h1>"
    assert answer.url.host == "127.0.0.1" and answer.url.raw_path == b"/docs/?x=1"


def test_curl_resumes_a_download(server: StreamServer, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    target = tmp_path / "download"
    target.write_bytes(BIG[:1_234_567])
    url = f"http://127.0.0.1:{server.port}/big.dat"
    subprocess.run([curl, "-sS", "--noproxy", "*", "-C", "-", "-o", target, url], check=True, timeout=PATIENCE_S)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(BIG).digest()


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/docs/..%5c..%5csecret.txt", "/.env", "//secret.txt"],
)
def test_raw_paths_of_attackers(server: StreamServer, path: str) -> None:
    answer = server.ask(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404") and SECRET not in answer


def test_clients_that_leave_in_the_middle_leave_no_open_file(server: StreamServer) -> None:
    with server.connect() as warm:
        warm.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert warm.recv(4096)
        before = open_files()
        for _ in range(20):
            with server.connect() as client:
                client.sendall(b"GET /big.dat HTTP/1.1\r\nHost: h\r\n\r\n")
                assert client.recv(100)
        deadline_s = time.monotonic() + PATIENCE_S
        while open_files() > before and time.monotonic() < deadline_s:
            os.sched_yield()
        assert open_files() <= before


def test_file_cut_while_it_is_sent_cuts_the_connection(server: StreamServer, root: Path) -> None:
    write(root / "huge.dat", b"h" * 60_000_000)
    with server.connect() as client:
        client.sendall(b"GET /huge.dat HTTP/1.1\r\nHost: h\r\n\r\n")
        received = len(client.recv(1000))
        os.truncate(root / "huge.dat", 20_000_000)
        try:
            while data := client.recv(1 << 20):
                received += len(data)
        except ConnectionResetError:
            pass
    assert received < 60_000_000


def test_stream_of_events_arrives_event_by_event() -> None:
    """Packed, and yet every event is there before the next one is made."""
    exchanges: list[Exchange] = []

    def begin(exchange: Exchange) -> None:
        exchange = compressed(exchange)
        exchange.start(200, Fields.of(((b"Content-Type", b"text/event-stream"),)))
        exchange.send(b"data: 0\n\n")
        exchanges.append(exchange)

    with stream_serving(begin) as server, httpx.Client(trust_env=False) as client:
        headers = {"accept-encoding": "gzip"}
        with client.stream("GET", f"http://127.0.0.1:{server.port}/", headers=headers) as answer:
            assert answer.headers["content-encoding"] == "gzip" and "content-length" not in answer.headers
            events = answer.iter_text()
            for number in range(5):
                assert next(events) == f"data: {number}\n\n"
                more = f"data: {number + 1}\n\n".encode()
                server.call(lambda more=more: exchanges[0].send(more))  # type: ignore[misc]
            assert next(events) == "data: 5\n\n"
            server.call(exchanges[0].finish)
            assert list(events) in ([], [""])


def test_long_answer_of_an_application_is_packed_in_pieces() -> None:
    body = b"what an application has to say, again and again. " * 60_000

    def answer(exchange: Exchange) -> None:
        compressed(exchange).respond(200, Fields.of(((b"Content-Type", b"text/plain"),)), body)

    with stream_serving(answer) as server:
        raw = server.ask(b"GET / HTTP/1.0\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n")
        assert gzip.decompress(raw.partition(b"\r\n\r\n")[2]) == body
