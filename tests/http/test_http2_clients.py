"""HTTP/2 over TLS by ALPN, with the clients that people use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.http2 import Http2Connection
from headrace.http.limits import Limits
from headrace.http.listener import Listener
from headrace.http.tls import server_tls
from tests.http.h2_support import PLAIN
from tests.patience import PATIENCE_S

trustme = pytest.importorskip("trustme")
httpx = pytest.importorskip("httpx")

MEGABYTE = os.urandom(1_000_000)


def target(exchange: Exchange) -> None:
    if exchange.path == "/echo":
        Echo(exchange)
    elif exchange.path == "/big":
        exchange.respond(200, PLAIN, MEGABYTE)
    elif exchange.path == "/version":
        exchange.respond(200, PLAIN, f"{exchange.version} {exchange.secure} {exchange.server[1]}".encode())
    else:
        exchange.respond(200, Fields.of([(b"content-type", b"text/plain")]), exchange.target.encode())


class Echo:
    """Streams the body back as it comes, with back-pressure both ways."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.start(200, PLAIN)
        exchange.notify = self.go
        self.go()

    def go(self) -> None:
        exchange = self.exchange
        while exchange.writable and not exchange.gone:
            data = exchange.take()
            if data:
                exchange.send(data)
            else:
                if exchange.ended:
                    exchange.notify = None
                    exchange.finish()
                return


@dataclass
class Running:
    port: int
    authority: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, **more: Any) -> Any:
        trusted = ssl.create_default_context(cafile=str(self.authority))
        return httpx.AsyncClient(http2=True, verify=trusted, base_url=self.url, timeout=PATIENCE_S, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("h2")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "pem"))
    with listening(folder / "pem") as port:
        yield Running(port, folder / "ca.pem")


@contextlib.contextmanager
def listening(certificate: Path) -> Iterator[int]:
    loop = uvloop.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def main() -> None:
        limits = Limits(body_bytes=1 << 30)
        listener = Listener(target=target, http2=Http2Connection, tls=server_tls(certificate), limits=limits)
        ports.append(listener.open_tcp("127.0.0.1", 0))
        started.set()
        await stop.wait()
        await listener.close(grace_s=1.0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def run(program: str, *arguments: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *arguments], capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="replace")


def curl(server: Running, path: str, *more: str) -> str:
    return run("curl", "-sS", "--cacert", str(server.authority), *more, server.url + path)


def test_curl_speaks_http2(server: Running) -> None:
    assert curl(server, "/version", "--http2") == f"2 True {server.port}"
    assert "HTTP/2 200" in curl(server, "/x", "--http2", "-I")


def test_curl_that_knows_only_http1_is_served(server: Running) -> None:
    assert curl(server, "/version", "--http1.1") == f"1.1 True {server.port}"


def test_curl_uploads_and_downloads(server: Running, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(MEGABYTE)
    curl(server, "/echo", "--http2", "--data-binary", f"@{tmp_path / 'up'}", "-o", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == MEGABYTE


def test_curl_gets_an_early_answer_to_an_upload(server: Running, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(MEGABYTE)
    assert curl(server, "/ignored", "--http2", "--data-binary", f"@{tmp_path / 'up'}") == "/ignored"


def test_nghttp_asks_many_times(server: Running) -> None:
    told = run("nghttp", "-nv", "-m", "20", f"{server.url}/x")
    assert told.count(":status: 200") == 20
    assert "GOAWAY" not in told.replace("send GOAWAY", "")


def test_h2load_fails_nothing(server: Running) -> None:
    told = run("h2load", "-n", "1000", "-c", "4", "-m", "100", f"{server.url}/x")
    assert "1000 succeeded, 0 failed, 0 errored" in told
    told = run("h2load", "-n", "40", "-c", "2", "-m", "20", f"{server.url}/big")
    assert "40 succeeded, 0 failed, 0 errored" in told


def test_httpx_runs_hundred_streams_at_once(server: Running) -> None:
    async def main() -> None:
        async with server.client() as client:
            answers = await asyncio.gather(*[client.get(f"/{number}") for number in range(100)])
            assert [answer.text for answer in answers] == [f"/{number}" for number in range(100)]
            assert {answer.http_version for answer in answers} == {"HTTP/2"}

    asyncio.run(main())


def test_httpx_streams_both_ways(server: Running) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(MEGABYTE), 50_000):
            yield MEGABYTE[at : at + 50_000]

    async def main() -> None:
        async with server.client() as client, client.stream("POST", "/echo", content=pieces()) as answer:
            assert await answer.aread() == MEGABYTE

    asyncio.run(main())


def test_httpx_downloads_in_parallel(server: Running) -> None:
    async def main() -> None:
        async with server.client() as client:
            answers = await asyncio.gather(*[client.get("/big") for _ in range(10)])
            assert all(answer.content == MEGABYTE for answer in answers)

    asyncio.run(main())


def test_httpx_that_stops_reading_leaves_the_others_alone(server: Running) -> None:
    async def main() -> None:
        async with server.client() as client, client.stream("GET", "/big") as stalled:
            answer = await client.get("/x")
            assert answer.text == "/x" and stalled.status_code == 200

    asyncio.run(main())
