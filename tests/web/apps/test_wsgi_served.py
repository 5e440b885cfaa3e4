"""Real applications, asked by real clients, behind an edge and in direct mode."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from wsgiref.validate import validator

import httpx
import pytest

from headrace.web.ipc.frames import Hello
from headrace.web.ipc.wsgi_link_threads import WsgiLinkThreads
from tests.patience import PATIENCE_S
from tests.web.wsgi_serving import PLACEMENTS


class Serving(Protocol):
    def __call__(self, app: Any, folder: Path) -> AbstractContextManager[str]: ...


@pytest.fixture(params=list(PLACEMENTS))
def serving(request: pytest.FixtureRequest) -> Serving:
    served: Serving = PLACEMENTS[request.param]
    return served


def flask_app() -> Any:
    import flask

    app = flask.Flask(__name__)

    @app.get("/json")
    def as_json() -> Any:
        return flask.jsonify(path=flask.request.path, query=flask.request.args.to_dict(), url=flask.request.url)

    @app.post("/upload")
    def upload() -> Any:
        file = flask.request.files["file"]
        digest = hashlib.sha256(file.read()).hexdigest()
        return {"name": file.filename, "digest": digest, "field": flask.request.form["field"]}

    @app.post("/echo")
    def echo() -> Any:
        return flask.Response(flask.request.get_data(), mimetype="application/octet-stream")

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response((b"piece %d\n" % number for number in range(100)), mimetype="text/plain")

    @app.get("/broken")
    def broken() -> Any:
        raise ValueError("a bug of the app")

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(Path(__file__).resolve(), download_name="x.py")

    @app.get("/missing")
    def missing() -> Any:
        flask.abort(404)

    return app


def test_flask(serving: Serving, tmp_path: Path) -> None:
    with serving(flask_app(), tmp_path) as url, httpx.Client(base_url=url) as client:
        answer = client.get("/json?a=1&b=%C3%A4")
        assert answer.json() == {"path": "/json", "query": {"a": "1", "b": "\u00e4"}, "url": f"{url}/json?a=1&b=\u00e4"}
        content = os.urandom(3_000_000)
        answer = client.post("/upload", files={"file": ("a.bin", content)}, data={"field": "x"})
        assert answer.json() == {"name": "a.bin", "digest": hashlib.sha256(content).hexdigest(), "field": "x"}
        assert client.post("/echo", content=content).content == content
        assert client.post("/echo", content=iter([b"ab", b"c" * 100_000])).content == b"ab" + b"c" * 100_000
        answer = client.get("/stream")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.text.splitlines() == [f"piece {number}" for number in range(100)]
        assert client.get("/broken").status_code == 500
        assert client.get("/missing").status_code == 404
        source = Path(__file__).read_bytes()
        assert client.get("/file").content == source
        part = client.get("/file", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, source[10:20])
        head = client.head("/json")
        assert (head.content, int(head.headers["content-length"])) == (b"", len(client.get("/json").content))


def django_app() -> Any:
    settings = import_module("django.conf").settings  # Django ships no types
    if not settings.configured or getattr(settings, "ROOT_URLCONF", "") != __name__:
        if settings.configured:
            settings._wrapped = import_module("django.conf").empty
        settings.configure(
            SECRET_KEY="x",
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            DATA_UPLOAD_MAX_MEMORY_SIZE=None,
            MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        )
    import_module("django").setup()
    return import_module("django.core.wsgi").get_wsgi_application()


def django_json(request: Any) -> Any:
    return import_module("django.http").JsonResponse({"path": request.path, "scheme": request.scheme})


def django_echo(request: Any) -> Any:
    return import_module("django.http").HttpResponse(request.body, content_type="application/octet-stream")


def django_stream(request: Any) -> Any:
    return import_module("django.http").StreamingHttpResponse(b"%d\n" % number for number in range(100))


def django_file(request: Any) -> Any:
    return import_module("django.http").FileResponse(Path(os.environ["WSGI_TEST_FILE"]).open("rb"))


def __getattr__(name: str) -> Any:
    if name == "urlpatterns":  # made when Django asks: the other tests do without Django
        path = import_module("django.urls").path
        views = {"json": django_json, "echo": django_echo, "stream": django_stream, "file": django_file}
        return [path(route, view) for route, view in views.items()]
    raise AttributeError(name)


def test_django(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(500_000)
    (tmp_path / "file.bin").write_bytes(content)
    monkeypatch.setenv("WSGI_TEST_FILE", str(tmp_path / "file.bin"))
    with serving(django_app(), tmp_path) as url, httpx.Client(base_url=url) as client:
        assert client.get("/json").json() == {"path": "/json", "scheme": "http"}
        assert client.post("/echo", content=content).content == content
        chunked = client.post("/echo", content=iter([b"ab", b"c" * 100_000]))
        assert chunked.content == b"ab" + b"c" * 100_000
        assert client.get("/stream").text == "".join(f"{number}\n" for number in range(100))
        file = client.get("/file")
        assert (file.content, file.headers["content-length"]) == (content, "500000")
        head = client.head("/file")
        assert (head.content, head.headers["content-length"]) == (b"", "500000")


def plain(environ: Any, start_response: Any) -> Any:
    body = environ["wsgi.input"].read(10_000_000) if environ["REQUEST_METHOD"] == "POST" else b"hello"
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body[:5], body[5:]] if environ["PATH_INFO"] == "/two" else iter([body[:5], b"", body[5:]])


def test_validator_has_nothing_to_say(serving: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(validator(plain), tmp_path) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/two", "/%C3%A4?x=1"):
            assert client.get(path).content == b"hello"
            assert client.head(path).status_code == 200
            for content in (b"x" * 10, b"y" * 400_000, iter([b"z" * 70_000, b"z" * 70_000])):
                answer = client.post(path, content=content)
                assert len(answer.content) in (10, 400_000, 140_000)
    assert not caplog.records


def test_curl_is_invited_to_send_its_body(serving: Serving, tmp_path: Path) -> None:
    content = os.urandom(2_000_000)
    (tmp_path / "content").write_bytes(content)
    with serving(flask_app(), tmp_path) as url:
        command = [
            "curl",
            "-sS",
            "-v",
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            f"@{tmp_path}/content",
            f"{url}/echo",
        ]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == content
    assert b"100 Continue" in done.stderr


def test_short_answer_is_never_taken_for_whole(serving: Serving, tmp_path: Path) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10")] if environ["PATH_INFO"] == "/length" else [])
        yield b"abc"
        raise ValueError

    with serving(app, tmp_path) as url:
        for path in ("/length", "/chunked"):
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(url + path)


def test_client_that_leaves_stops_a_stream(serving: Serving, tmp_path: Path) -> None:
    closed = threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 50_000
        finally:
            closed.set()

    with serving(app, tmp_path) as url:
        with httpx.stream("GET", url) as answer:
            next(answer.iter_raw())
        assert closed.wait(PATIENCE_S)


def test_chunks_that_came_with_the_head_have_a_length(serving: Serving, tmp_path: Path) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        size = len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", [])
        return [str(size).encode()]

    with serving(app, tmp_path) as url:
        host, port = url.removeprefix("http://").split(":")
        for size in (5, 100_000, 300_000):
            head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            with socket.create_connection((host, int(port))) as client:
                client.sendall(head + b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n")
                answer = client.makefile("rb").read()
            assert answer.endswith(b"\r\n\r\n%d" % size)


def test_clients_that_do_not_read_hold_no_more_than_their_threads(serving: Serving, tmp_path: Path) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"x" * 200_000]

    with serving(app, tmp_path) as url:
        port = int(url.rpartition(":")[2])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        for client in slow:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len(httpx.get(url).content) == 200_000
        for client in slow:
            client.close()


def test_workers_that_come_and_go_lose_no_request(tmp_path: Path) -> None:
    """POST: one that went to a link that is being closed could not be repeated, and would be a 502."""

    def app(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    statuses: list[int] = []
    ended = threading.Event()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url) as client:
            while not ended.is_set():
                statuses.append(client.post("/", content=b"abc").status_code)

    with PLACEMENTS["edge"](app, tmp_path) as url:
        clients = [threading.Thread(target=ask, args=(url,)) for _ in range(6)]
        for client in clients:
            client.start()
        for generation in range(2, 22):
            hello = Hello(os.getpid(), generation, "wsgi", 1)
            worker = WsgiLinkThreads(app, edges=[tmp_path / "link"], threads=2, hello=hello)
            served = len(statuses)
            while worker.requests < 5 and len(statuses) < served + 500:
                ended.wait(0.001)
            worker.leave()
            assert worker.join(PATIENCE_S)
        ended.set()
        for client in clients:
            client.join(PATIENCE_S)
    assert set(statuses) == {200}
    assert len(statuses) > 100


MEMORY = """
import hashlib, json, resource, sys
from pathlib import Path
import httpx
from tests.web.wsgi_serving import PLACEMENTS

MIB = 2**20
PIECE = bytes(range(256)) * 256

def app(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        body, size = environ["wsgi.input"], 0
        while piece := body.read(65536):
            size += len(piece)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(size).encode()]
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if environ["PATH_INFO"] == "/file":
        return environ["wsgi.file_wrapper"](open(sys.argv[3], "rb"))
    return (PIECE for _ in range(64 * 16))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def received(client, path):
    with client.stream("GET", path) as answer:
        return sum(len(piece) for piece in answer.iter_raw(65536))

with PLACEMENTS[sys.argv[1]](app, Path(sys.argv[2])) as url, httpx.Client(base_url=url, timeout=60) as client:
    client.post("/", content=b"x" * 300_000)
    before = peak()
    sizes = [
        int(client.post("/", content=(PIECE for _ in range(64 * 16))).text) // MIB,
        int(client.post("/", content=(PIECE for _ in range(64 * 16)), headers={"Content-Length": str(64 * MIB)}).text) // MIB,
        received(client, "/") // MIB,
        received(client, "/file") // MIB,
    ]
    print(json.dumps([sizes, peak() - before]))
"""


def test_long_bodies_take_constant_memory(serving: Serving, tmp_path: Path) -> None:
    placement = next(name for name, served in PLACEMENTS.items() if served is serving)
    with (tmp_path / "long").open("wb") as file:
        file.truncate(64 * 2**20)
    command = [sys.executable, "-c", MEMORY, placement, str(tmp_path), str(tmp_path / "long")]
    done = subprocess.run(command, capture_output=True, timeout=500, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr.decode()
    sizes, grown_mib = json.loads(done.stdout)
    assert sizes == [64, 64, 64, 64]
    assert grown_mib < 24
