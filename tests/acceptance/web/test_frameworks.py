"""Real applications, unchanged, for real clients: each framework, both modes, HTTP/1.1 and HTTP/2 over TLS."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import requests
import trustme
import websockets.asyncio.client

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve

CURL = shutil.which("curl")

FLASK = """
from flask import Flask, Response, request, session, stream_with_context
app = Flask(__name__)
app.secret_key = "x"

@app.get("/hello")
def hello():
    return {"hello": request.args.get("name", "world"), "scheme": request.scheme}

@app.route("/echo", methods=["POST", "PUT"])
def echo():
    return Response(request.get_data(), mimetype=request.mimetype)

@app.post("/form")
def form():
    file = request.files["file"]
    return {"field": request.form["field"], "name": file.filename, "length": len(file.read())}

@app.get("/stream")
def stream():
    return Response(stream_with_context(f"line {number}\\n" for number in range(1000)), mimetype="text/plain")

@app.get("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return {"count": session["count"]}
"""

DJANGO = """
from django.conf import settings
settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None, SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
import django
django.setup()
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

def hello(request):
    return JsonResponse({"hello": request.GET.get("name", "world"), "scheme": request.scheme})

def echo(request):
    return HttpResponse(request.body, content_type=request.content_type)

def form(request):
    file = request.FILES["file"]
    return JsonResponse({"field": request.POST["field"], "name": file.name, "length": len(file.read())})

def stream(request):
    if hasattr(request, "scope"):
        async def lines():
            for number in range(1000):
                yield f"line {number}\\n"
    else:
        def lines():
            for number in range(1000):
                yield f"line {number}\\n"
    return StreamingHttpResponse(lines(), content_type="text/plain")

def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"]})

urlpatterns = [path(view.__name__, view) for view in (hello, echo, form, stream, count)]
wsgi, asgi = get_wsgi_application(), get_asgi_application()
"""

FASTAPI = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Form, Request, Response, UploadFile, WebSocket
from fastapi.responses import StreamingResponse

@asynccontextmanager
async def lifespan(app):
    app.state.word = "started"
    yield {"greeting": "from the lifespan"}
    open("stopped", "a").write("x")

app = FastAPI(lifespan=lifespan)

@app.get("/hello")
async def hello(request: Request, name: str = "world"):
    assert app.state.word == "started" and request.state.greeting == "from the lifespan"
    return {"hello": name, "scheme": request.url.scheme}

@app.api_route("/echo", methods=["POST", "PUT"])
async def echo(request: Request):
    return Response(await request.body(), media_type=request.headers.get("content-type"))

@app.post("/form")
def form(file: UploadFile, field: str = Form()):
    return {"field": field, "name": file.filename, "length": len(file.file.read())}

@app.get("/stream")
async def stream():
    async def lines():
        for number in range(1000):
            yield f"line {number}\\n"
    return StreamingResponse(lines(), media_type="text/plain")

@app.get("/count")
def count(request: Request, response: Response):
    number = int(request.cookies.get("count", 0)) + 1
    response.set_cookie("count", str(number))
    return {"count": number}

@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())
"""

VALIDATED = """
from wsgiref.validate import validator
from urllib.parse import parse_qs
import json

def plain(environ, start_response):
    path = environ["PATH_INFO"]
    length = environ.get("CONTENT_LENGTH") or 0
    body = environ["wsgi.input"].read(int(length))
    kind = environ.get("CONTENT_TYPE") or "application/octet-stream"
    if path == "/hello":
        name = parse_qs(environ["QUERY_STRING"]).get("name", ["world"])[0]
        body, kind = json.dumps({"hello": name, "scheme": environ["wsgi.url_scheme"]}).encode(), "application/json"
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"line %d\\n" % number for number in range(1000))
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]

app = validator(plain)
"""


@dataclass(frozen=True)
class Kind:
    source: str
    app: str
    forms: bool = True
    more: tuple[str, ...] = ()


KINDS = {
    "flask": Kind(FLASK, "shop:app"),
    "django": Kind(DJANGO, "shop:wsgi"),
    "django-asgi": Kind(DJANGO, "shop:asgi"),
    "fastapi": Kind(FASTAPI, "shop:app"),
    "validated": Kind(VALIDATED, "shop:app", forms=False, more=("--interface", "wsgi")),
}


@dataclass
class Site:
    """A server with an application, over TLS."""

    server: WebProcess
    kind: Kind
    name: str
    folder: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


@pytest.fixture(scope="module", params=[(name, mode) for name in KINDS for mode in ("edge", "direct")], ids="-".join)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name, mode = request.param
    folder, authority = tmp_path_factory.mktemp(name), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "shop.py").write_text(KINDS[name].source)
    arguments = ["--certfile", "cert.pem", "--keyfile", "key.pem", "--workers", "1", *KINDS[name].more]
    with serve(folder, KINDS[name].app, *arguments, *(["--direct"] if mode == "direct" else [])) as server:
        yield Site(server, KINDS[name], name, folder)
        assert server.stop() == 0
        assert not any('"error"' in line for line in server.raw), server.raw
        if name == "fastapi":
            assert (folder / "stopped").read_text() == "x"


@pytest.fixture(params=["http/1.1", "h2"])
def client(request: pytest.FixtureRequest, site: Site) -> Iterator[httpx.Client]:
    two = request.param == "h2"
    with httpx.Client(base_url=site.url, verify=site.context(), http1=not two, http2=two, timeout=PATIENCE_S) as made:
        yield made


def test_httpx_gets_posts_and_streams(site: Site, client: httpx.Client) -> None:
    hello = client.get("/hello", params={"name": "Zoë"})
    assert hello.json() == {"hello": "Zoë", "scheme": "https"}
    head = client.head("/hello")
    assert (head.status_code, head.content) == (405 if site.name == "fastapi" else 200, b"")
    for size in (0, 1, 100_000, 3_000_000):
        answer = client.post("/echo", content=b"x" * size, headers={"Content-Type": "application/octet-stream"})
        assert (answer.status_code, len(answer.content)) == (200, size)
    with client.stream("GET", "/stream") as answer:
        assert list(answer.iter_lines()) == [f"line {number}" for number in range(1000)]


def test_httpx_sends_a_stream(site: Site, client: httpx.Client) -> None:
    pieces = (b"%d," % number * 1000 for number in range(100))
    answer = client.put("/echo", content=pieces, headers={"Content-Type": "application/octet-stream"})
    assert answer.content == b"".join(b"%d," % number * 1000 for number in range(100))


def test_forms_files_and_cookies(site: Site, client: httpx.Client) -> None:
    if not site.kind.forms:
        pytest.skip("no framework")
    answer = client.post("/form", data={"field": "ä"}, files={"file": ("a.bin", b"z" * 500_000)})
    assert answer.json() == {"field": "ä", "name": "a.bin", "length": 500_000}
    assert [client.get("/count").json()["count"] for _ in range(3)] == [1, 2, 3]


def test_requests_and_its_kept_connections(site: Site) -> None:
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(f"{site.url}/hello", timeout=PATIENCE_S, verify=site.ca).json()["hello"] == "world"
        answer = session.post(
            f"{site.url}/echo", data=(b"abc" for _ in range(1000)), timeout=PATIENCE_S, verify=site.ca
        )  # chunked
        assert answer.content == b"abc" * 1000


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(site: Site, version: str, tmp_path: Path) -> None:
    def curl(*arguments: str) -> bytes:
        assert CURL is not None
        command = [CURL, "-sS", "--fail", "--max-time", "20", version, "--cacert", site.ca, *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    written = "%{http_version}"
    assert curl("-o", "/dev/null", "-w", written, f"{site.url}/hello") == (b"2" if version == "--http2" else b"1.1")
    assert json.loads(curl(f"{site.url}/hello?name=curl"))["hello"] == "curl"
    (tmp_path / "body").write_bytes(b"y" * 2_000_000)  # long enough for curl to expect 100-continue
    kind = "Content-Type: application/octet-stream"
    assert curl("-H", kind, "--data-binary", f"@{tmp_path / 'body'}", f"{site.url}/echo") == b"y" * 2_000_000
    assert curl("--compressed", f"{site.url}/stream").count(b"\n") == 1000


def test_websockets(site: Site) -> None:
    if site.name != "fastapi":
        pytest.skip("HTTP only")

    async def talk() -> list[str | bytes]:
        url = f"{site.url.replace('https', 'wss')}/ws"
        async with websockets.asyncio.client.connect(url, ssl=site.context()) as socket:
            for text in ("hello", "x" * 100_000):
                await socket.send(text)
            return [await socket.recv(), await socket.recv()]

    assert asyncio.run(talk()) == ["HELLO", "X" * 100_000]
