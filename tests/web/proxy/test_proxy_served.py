"""`headrace serve --proxy` as a process, in front of `headrace serve app` and of nginx; real clients."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trustme
import websockets
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import TextMessage

from headrace.testing.ports import free_port
from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve, wait_until

APP = """
import hashlib, json
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": scope["path"] + ":" + message["text"]} if message.get("text") is not None
                       else {"type": "websocket.send", "bytes": message["bytes"]})
        return
    async def start(status=200, *headers):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    path = scope["path"]
    if path == "/seen":
        seen = {"headers": {k.decode(): v.decode() for k, v in scope["headers"]}, "client": scope["client"], "scheme": scope["scheme"], "path": path}
        await start(200, (b"content-type", b"application/json"))
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
    elif path == "/digest":
        digest, more = hashlib.sha256(), True
        while more:
            message = await receive()
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        await start()
        await send({"type": "http.response.body", "body": digest.hexdigest().encode()})
    elif path == "/big":
        await start(200, (b"content-length", b"67108864"), (b"content-type", b"application/octet-stream"))
        for _ in range(1024):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        await start(404 if path == "/missing" else 200, (b"content-type", b"text/plain"))
        await send({"type": "http.response.body", "body": b"hello " + scope["method"].encode()})
"""
BIG = 64 * 2**20


@dataclass
class Served:
    app: WebProcess
    plain: WebProcess
    tls: WebProcess
    authority: Path

    @property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


def certificate(folder: Path) -> Path:
    """cert.pem and key.pem of localhost, and the file of who has signed it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "authority.pem")
    return folder / "authority.pem"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "up.py").write_text(APP)
    authority = certificate(folder)
    with ExitStack() as stack:
        app = stack.enter_context(serve(folder, "up:app", "--workers", "1", "--proxy-headers"))
        url = f"http://127.0.0.1:{app.port}"
        plain = stack.enter_context(serve(folder, "--proxy", url, "--admin", "127.0.0.1:0"))
        tls = stack.enter_context(serve(folder, "--proxy", url, "--certfile", "cert.pem", "--keyfile", "key.pem"))
        yield Served(app, plain, tls, authority)


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def edge_rss_kb(server: WebProcess, kind: str = "VmHWM") -> int:
    (pid,) = server.edges()
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0])


def test_plain_requests(served: Served) -> None:
    assert served.plain.get("/") == (200, b"hello GET")
    assert served.plain.get("/missing") == (404, b"hello GET")
    assert served.plain.get("/", method="HEAD") == (200, b"")
    assert served.plain.get("/", method="DELETE") == (200, b"hello DELETE")


def test_app_behind_sees_the_client_and_not_its_lies(served: Served) -> None:
    body = served.plain.get("/seen", headers={"X-Forwarded-For": "6.6.6.6", "Host": "shop.example"})[1]
    seen = json.loads(body)
    assert seen["client"][0] == "127.0.0.1" and "6.6.6.6" not in json.dumps(seen)
    assert seen["headers"]["host"] == seen["headers"]["x-forwarded-host"] == "shop.example"


def test_curl_with_http2_over_tls(served: Served) -> None:
    url = f"https://localhost:{served.tls.port}"
    trust = ("--cacert", str(served.authority), "--http2")
    assert "HTTP/2 200" in curl(*trust, "-i", url + "/")
    seen = json.loads(curl(*trust, url + "/seen"))
    assert seen["scheme"] == "https" and seen["headers"]["x-forwarded-proto"] == "https"
    assert seen["headers"]["host"] == f"localhost:{served.tls.port}"


def test_many_at_once_with_httpx(served: Served) -> None:
    async def run() -> list[str]:
        async with httpx.AsyncClient(base_url=served.plain.url, timeout=PATIENCE_S) as client:
            answers = await asyncio.gather(*(client.post("/digest", content=b"%d" % n) for n in range(200)))
            return [answer.text for answer in answers]

    assert asyncio.run(run()) == [hashlib.sha256(b"%d" % n).hexdigest() for n in range(200)]


@pytest.mark.parametrize("path", ["http1", "http2"])
def test_64_mib_both_ways_in_constant_memory(served: Served, path: str, tmp_path: Path) -> None:
    server = served.plain if path == "http1" else served.tls
    base = (f"http://127.0.0.1:{server.port}",) if path == "http1" else (f"https://localhost:{server.port}",)
    more = () if path == "http1" else ("--cacert", str(served.authority), "--http2")
    server.get("/") if path == "http1" else curl(*more, base[0] + "/")
    before = edge_rss_kb(server)
    (tmp_path / "up").write_bytes(b"y" * BIG)
    digest = hashlib.sha256(b"y" * BIG).hexdigest()
    assert curl(*more, "-T", str(tmp_path / "up"), base[0] + "/digest") == digest
    assert curl(*more, "-T", str(tmp_path / "up"), "-H", "Transfer-Encoding: chunked", base[0] + "/digest") == digest
    curl(*more, "-o", str(tmp_path / "down"), base[0] + "/big")
    assert (tmp_path / "down").stat().st_size == BIG
    assert edge_rss_kb(server) - before < 24 * 1024


def test_websocket(served: Served) -> None:
    async def run(url: str, context: ssl.SSLContext | None) -> None:
        async with websockets.connect(url, ssl=context) as client:
            await client.send("one")
            assert await client.recv() == "/ws:one"
            await client.send(b"z" * 1_000_000)
            assert await client.recv() == b"z" * 1_000_000

    asyncio.run(run(f"ws://127.0.0.1:{served.plain.port}/ws", None))
    asyncio.run(run(f"wss://localhost:{served.tls.port}/ws", served.trusting))


def test_websocket_of_an_http2_client(served: Served) -> None:
    context = served.trusting
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", served.tls.port), timeout=PATIENCE_S)
    with context.wrap_socket(plain, server_hostname="localhost") as sock:
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        client.initiate_connection()
        head = {
            b":method": b"CONNECT",
            b":protocol": b"websocket",
            b":scheme": b"https",
            b":path": b"/ws",
            b":authority": b"localhost",
            b"sec-websocket-version": b"13",
        }
        client.send_headers(1, list(head.items()))
        wire = WebSocket(ConnectionType.CLIENT)
        client.send_data(1, wire.send(TextMessage("two")))
        status, texts = b"", list[str]()
        while not texts:
            sock.sendall(client.data_to_send())
            for event in client.receive_data(sock.recv(65_536)):
                if isinstance(event, h2.events.ResponseReceived):
                    headers = dict(event.headers)
                    status = headers[b":status"]
                    assert b"sec-websocket-accept" not in headers
                elif isinstance(event, h2.events.DataReceived):
                    wire.receive_data(event.data)
                    texts += [found.data for found in wire.events() if isinstance(found, TextMessage)]
    assert (status, texts) == (b"200", ["/ws:two"])


def test_metrics_tell_of_upstreams(served: Served) -> None:
    served.plain.get("/")
    ready = next(line for line in served.plain.lines if line.get("action") == "web.ready")
    url = f'route="/",upstream="http://127.0.0.1:{served.app.port}"'

    def told() -> str:
        return httpx.get(f"{ready['admin']}/metrics").text

    wait_until(lambda: f"headrace_web_upstream_up{{{url}}} 1" in told())
    assert 'headrace_web_queue_length{app="proxy:/"} 0' in told()


def test_reload_of_the_app_and_of_the_proxy_fails_no_request(served: Served) -> None:
    failures: list[object] = []
    stop = threading.Event()

    def ask(method: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", served.plain.port, timeout=PATIENCE_S)
        while not stop.is_set():
            try:
                connection.request(method, "/", b"x" if method == "POST" else None)
                answer = connection.getresponse()
                if answer.status != 200 or answer.read() != f"hello {method}".encode():
                    failures.append(answer.status)
            except OSError as error:
                failures.append(error)
                connection.close()
        connection.close()

    threads = [threading.Thread(target=ask, args=(method,)) for method in ("GET", "POST")]
    for thread in threads:
        thread.start()
    for server, done in ((served.app, "web.reloaded"), (served.plain, "web.reload.done")):
        server.signal(signal.SIGHUP)
        server.wait_for(done)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("trusted", [True, False])
def test_https_upstream_is_verified(tmp_path: Path, trusted: bool) -> None:
    authority = certificate(tmp_path)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("secret")
    env = {"SSL_CERT_FILE": str(authority)} if trusted else {}
    with (
        serve(tmp_path, "./public", "--certfile", "cert.pem", "--keyfile", "key.pem") as up,
        serve(tmp_path, "--proxy", f"https://localhost:{up.port}", env=env) as proxy,
    ):
        status, body = proxy.get("/a.txt")
        assert (status, body == b"secret") == ((200, True) if trusted else (502, False))
        if not trusted:
            assert "certificate" in proxy.wait_for("web.upstream.failed")["message"]


def test_one_of_two_upstreams_is_killed_under_load(tmp_path: Path) -> None:
    (tmp_path / "up.py").write_text(APP)
    with (
        serve(tmp_path, "up:app", "--workers", "1") as one,
        serve(tmp_path, "up:app", "--workers", "1") as other,
        serve(tmp_path, "--proxy", f"http://127.0.0.1:{one.port},http://127.0.0.1:{other.port}") as proxy,
    ):
        for number in range(200):
            if number == 50:
                one.end()
            assert proxy.get("/") == (200, b"hello GET")
        assert proxy.wait_for("web.upstream.down")["upstream"].endswith(str(one.port))


@contextmanager
def nginx(folder: Path) -> Iterator[int]:
    port = free_port()
    (folder / "html").mkdir()
    (folder / "html" / "a.txt").write_text("0123456789")
    (folder / "nginx.conf").write_text(
        f"""daemon off; {"user root; " if os.getuid() == 0 else ""}pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; events {{}}
        http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
          uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          server {{ listen 127.0.0.1:{port}; root {folder}/html; location /host {{ return 200 "$host $http_x_forwarded_for"; }} }} }}"""
    )
    process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_as_upstream(tmp_path: Path) -> None:
    with nginx(tmp_path) as port, serve(tmp_path, "--proxy", f"http://127.0.0.1:{port}") as proxy:
        wait_until(lambda: proxy.get("/a.txt")[0] == 200)
        assert proxy.get("/a.txt") == (200, b"0123456789")
        assert proxy.get("/a.txt", headers={"Range": "bytes=2-4"}) == (206, b"234")
        assert proxy.get("/a.txt", method="HEAD") == (200, b"")
        assert proxy.get("/none")[0] == 404
        assert proxy.get("/host", headers={"Host": "shop.example"}) == (200, b"shop.example 127.0.0.1")


def test_routes_of_a_file(tmp_path: Path, served: Served) -> None:
    (tmp_path / "headrace.toml").write_text(
        f"""[[web.routes]]
        path = "/api"
        strip = true
        proxy = ["http://127.0.0.1:{served.app.port}"]
        concurrency = 4
        health_path = "/"
        """
    )
    with serve(tmp_path) as proxy:
        assert json.loads(proxy.text("/api/seen"))["path"] == "/seen"
        assert json.loads(proxy.text("/api/seen"))["headers"]["x-forwarded-prefix"] == "/api"
        assert proxy.get("/other")[0] == 404
