"""`headrace serve` as a process: start, serve, signals, exit codes, settings."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, run_to_end, serve, wait_until

PLAIN = """
import os, sys
def app(environ, start_response):
    body = f"one {os.getpid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
def create_app(word):
    def made(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [word.encode()]
    return made
"""

ASYNC = """
import asyncio, os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            open(message["type"], "a").write("x")
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"async %d" % os.getpid()})
"""

SECOND_IS_LATE = """
import os, time
try:
    os.mkdir("first")
except FileExistsError:
    time.sleep(1)
    os.mkdir("second")
"""

FLASK = """
from flask import Flask, request
app = Flask(__name__)
@app.post("/sum")
def total(): return {"sum": sum(request.get_json())}
"""

DJANGO = """
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
import json
@csrf_exempt
def total(request): return JsonResponse({"sum": sum(json.loads(request.body))})
urlpatterns = [path("sum", total)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
"""

FASTAPI = """
from fastapi import FastAPI
app = FastAPI()
@app.post("/sum")
async def total(numbers: list[int]): return {"sum": sum(numbers)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "asynchronous.py").write_text(ASYNC)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text("<p>a page</p>")
    return tmp_path


# ------------------------------------------------------------------------------------------------------ it serves


def test_a_direct_server_is_ready_when_each_of_its_sockets_is_served(tmp_path: Path) -> None:
    """Clients that came to one whose worker had not begun were cut by a TERM."""
    (tmp_path / "shop.py").write_text(SECOND_IS_LATE + PLAIN)
    with serve(tmp_path, "shop:app", "--workers", "2", "--direct", "--preload", "off"):
        assert (tmp_path / "second").exists()


@pytest.mark.parametrize("mode", ["edge", "direct"])
@pytest.mark.parametrize(
    ("source", "app"),
    [(FLASK, "shop:app"), (DJANGO, "shop:wsgi"), (DJANGO, "shop:asgi"), (FASTAPI, "shop:app")],
    ids=["flask", "django", "django-asgi", "fastapi"],
)
def test_frameworks_are_served_as_they_are(tmp_path: Path, source: str, app: str, mode: str) -> None:
    (tmp_path / "shop.py").write_text(source)
    with serve(tmp_path, app, "--workers", "1", *(["--direct"] if mode == "direct" else [])) as server:
        headers = {"Content-Type": "application/json"}
        for _ in range(3):
            status, body = server.get("/sum", method="POST", body=b"[1, 2, 39]", headers=headers)
            assert (status, json.loads(body)) == (200, {"sum": 42})
        assert server.stop() == 0


@pytest.mark.parametrize("mode", [(), ("--direct",), ("--edges", "2"), ("--preload", "off")])
@pytest.mark.parametrize("app", ["plain:app", "asynchronous:app"])
def test_requests_are_served_and_term_ends_in_order(folder: Path, app: str, mode: tuple[str, ...]) -> None:
    with serve(folder, app, "--workers", "2", *mode) as server:
        assert server.text().split()[0] in ("one", "async")
        pids = wait_until(lambda: {server.text() for _ in range(40)})
        assert len(pids) <= 2
        if app.startswith("async"):
            wait_until(lambda: (folder / "lifespan.startup").read_text() == "xx")  # it is ready with one
        assert server.stop() == 0
        if app.startswith("async"):
            assert (folder / "lifespan.shutdown").read_text() == "xx", server.raw


def test_the_ready_line_says_where_and_what(folder: Path) -> None:
    with Awaited(folder, "plain:app", "--workers", "2", "--port", "0") as server:
        ready = server.wait_ready()
        assert ready["url"] == f"http://127.0.0.1:{ready['port']}"
        assert (ready["interface"], ready["workers"]) == ("wsgi", 2)


class Awaited(WebProcess):
    """A server that the test itself waits for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def test_a_factory_with_arguments_is_called(folder: Path) -> None:
    with serve(folder, "plain:create_app('word')", "--workers", "1") as server:
        assert server.text() == "word"


def test_a_folder_is_served_without_workers(folder: Path) -> None:
    with serve(folder, "./public") as server:
        assert server.text() == "<p>a page</p>"
        assert server.get("/../plain.py")[0] in (400, 404)
        assert server.workers() == set()
        assert server.stop() == 0


def test_routes_of_the_file_lead_to_apps_and_folders(folder: Path) -> None:
    (folder / "headrace.toml").write_text(
        '[web]\napp = "plain:app"\nworkers = 1\n'
        '[[web.routes]]\npath = "/static"\nstatic = "public"\n'
        '[[web.routes]]\npath = "/async"\napp = "asynchronous:app"\n'
    )
    with serve(folder) as server:
        assert server.text("/").startswith("one")
        assert server.text("/static/").startswith("<p>")
        assert server.text("/async").startswith("async")
        assert server.stop() == 0


def test_a_unix_socket_is_served_and_removed(folder: Path) -> None:
    with serve(folder, "plain:app", "--workers", "1", "--uds", "web.sock") as server:
        assert server.url == f"unix:{folder / 'web.sock'}" or server.url == "unix:web.sock"
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(folder / "web.sock"))
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"one")
        connection.close()
        assert server.stop() == 0
        assert not (folder / "web.sock").exists()


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_tls_is_spoken_and_hup_reads_a_new_certificate(folder: Path, mode: str) -> None:
    first, second = trustme.CA(), trustme.CA()

    def write(ca: trustme.CA) -> ssl.SSLContext:
        issued = ca.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        context = ssl.create_default_context()
        ca.configure_trust(context)
        return context

    def fetch(context: ssl.SSLContext) -> bool:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE_S, context=context)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except ssl.SSLCertVerificationError:
            return False
        finally:
            connection.close()

    old = write(first)
    arguments = ["--certfile", "cert.pem", "--keyfile", "key.pem", *(["--direct"] if mode == "direct" else [])]
    with serve(folder, "plain:app", "--workers", "1", *arguments) as server:
        assert fetch(old)
        new = write(second)
        assert not fetch(new)
        server.signal(signal.SIGHUP)
        server.wait_for("web.reload.done")
        assert wait_until(lambda: fetch(new))
        assert server.stop() == 0


# ------------------------------------------------------------------------------------------------------- settings


def test_flags_beat_environment_beats_file(folder: Path) -> None:
    (folder / "headrace.toml").write_text('[web]\napp = "asynchronous:app"\nworkers = 3\n')
    env = {"HEADRACE_WEB__APP": "plain:app", "HEADRACE_WEB__WORKERS": "2"}
    with serve(folder, "--workers", "1", env=env) as server:
        assert server.text().startswith("one")
        assert len(server.workers()) == 1


@pytest.mark.parametrize(
    ("arguments", "file", "complaint"),
    [
        ([], "", "nothing to serve"),
        (["plain.py"], "", "plain:app"),
        (["./nowhere"], "", "no such folder"),
        (["plain:app", "--uds", "x", "--port", "80"], "", "instead of --port"),
        (["plain:app", "--keyfile", "plain.py"], "", "needs --certfile"),
        (["plain:app", "--certfile", "plain.py"], "", "cannot be used"),
        (["plain:app", "--proxy", "http://127.0.0.1:1"], "", "both an app"),
        (["plain:app", "--workers", "-1"], "", "expected `int` >= 0"),
        (["plain:app", "-b", "127.0.0.1:1", "--port", "2"], "", "--bind says host and port"),
        (["plain:app"], '[[web.routes]]\npth = "/"', "web.routes[0]: there is no key 'pth'; did you mean 'path'?"),
        (["plain:app"], '[[web.routes]]\npath = "/a"\n[[web.routes]]\npriority = "x"', "web.routes[1].priority"),
        (["plain:app"], "[[web.limits]]\nby = 'address'", "web.limits[0]: rate is missing"),
        (["plain:app"], "[web.routes]\npath = '/'", "must be a list of tables"),
        (["plain:app"], "[[web.durable]]\npath = '/'", "needs --broker"),
        (
            ["plain:app", "--broker", "./queue"],
            "[[web.durable]]\npath = 'hooks'",
            "web.durable[0].path: 'hooks' is not a path",
        ),
        (["plain:app", "--rate-limit", "5"], "", "--rate-limit: invalid rate '5'; use for example 100/s"),
        (["plain:app"], "[[web.limits]]\nrate = 'much'", "web.limits[0]: invalid rate 'much'"),
        (["plain:app", "--proxy-headers", "--trusted-proxies", "x"], "", "'x'"),
        (["--proxy", "localhost:3000"], "", "'localhost:3000'"),
    ],
)
def test_wrong_settings_end_with_2_and_say_what_to_do(
    folder: Path, arguments: list[str], file: str, complaint: str
) -> None:
    (folder / "headrace.toml").write_text(file)
    done = run_to_end(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_tables_may_be_json_in_the_environment(folder: Path) -> None:
    env = {"HEADRACE_WEB__ROUTES": '[{"path": "/files", "static": "public"}]'}
    with serve(folder, "plain:app", "--workers", "1", env=env) as server:
        assert server.text("/files/").startswith("<p>")


def test_a_taken_port_ends_with_1_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for edges in ("1", "2"):
            done = run_to_end("plain:app", "--edges", edges, "--port", str(taken.getsockname()[1]), cwd=folder)
            assert done.returncode == 1
            assert "in use" in done.stderr
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "arguments", "complaint"),
    [
        ("import nothing_of_this_name\n", [], "nothing_of_this_name"),
        ("import sys\nsys.exit(7)\n", [], "SystemExit"),
        ("import os\nos._exit(7)\n", [], "exit code 7"),
        ("application = 3\n", [], "broken"),
        ("1 / 0\n", ["--preload", "off"], "ZeroDivisionError"),
    ],
)
def test_an_app_that_cannot_be_imported_ends_with_1(
    folder: Path, source: str, arguments: list[str], complaint: str
) -> None:
    (folder / "broken.py").write_text(source)
    done = run_to_end("broken:app", "--port", "0", *arguments, cwd=folder)
    assert done.returncode == 1, done.stderr
    assert complaint in done.stderr.splitlines()[-1]
    if "import nothing" in source:
        assert "ModuleNotFoundError" in done.stderr


def test_a_lifespan_that_fails_ends_with_1(folder: Path) -> None:
    (folder / "broken.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    done = run_to_end("broken:app", "--port", "0", cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "no database" in done.stderr.splitlines()[-1]


# ------------------------------------------------------------------------------------------------------- the end


SLOW = """
import os, time
def app(environ, start_response):
    open("started", "a").write("x")
    while not os.path.exists("go"):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"slow"]
"""


def ask(server: WebProcess) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("GET", "/")
    return connection


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_term_answers_what_runs_and_what_waits(folder: Path, mode: str) -> None:
    (folder / "slow.py").write_text(SLOW)
    arguments = ["slow:app", "--workers", "1", "--threads", "1", *(["--direct"] if mode == "direct" else [])]
    with serve(folder, *arguments) as server:
        running = ask(server)
        wait_until((folder / "started").exists)
        waiting = ask(server)
        server.signal(signal.SIGTERM)
        server.wait_for("web.stopping")
        wait_until(lambda: _is_refused(server.port))
        (folder / "go").touch()
        assert running.getresponse().read() == b"slow"
        assert waiting.getresponse().read() == b"slow"
        assert server.wait_end() == 0


def _is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("mode", ["edge", "direct"])
def test_what_does_not_finish_within_the_drain_is_cut(folder: Path, mode: str) -> None:
    (folder / "slow.py").write_text(SLOW)
    arguments = ["slow:app", "--workers", "1", "--drain", "300ms", *(["--direct"] if mode == "direct" else [])]
    with serve(folder, *arguments) as server:
        running = ask(server)
        wait_until((folder / "started").exists)
        assert server.stop() == 0
        with pytest.raises((http.client.HTTPException, OSError)):
            running.getresponse()
        running.close()


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)])
def test_a_second_term_and_quit_end_at_once_and_leave_nobody(folder: Path, signals: tuple[signal.Signals, ...]) -> None:
    (folder / "slow.py").write_text(SLOW)
    with serve(folder, "slow:app", "--workers", "2", "--drain", "5m") as server:
        asked = ask(server)
        wait_until((folder / "started").exists)
        for number in signals:
            server.signal(number)
            if len(signals) > 1:
                wait_until(lambda: any("web.stopping" in line for line in server.raw))
        assert server.wait_end() == 1
        asked.close()


def test_no_file_is_left(folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    with serve(folder, "plain:app", "--workers", "1", env={"TMPDIR": str(temporary)}) as server:
        assert list(temporary.iterdir())
        assert server.stop() == 0
        assert list(temporary.iterdir()) == []


def test_a_long_path_for_temporary_files_does_not_hinder(folder: Path) -> None:
    temporary = folder / ("t" * 90)
    temporary.mkdir()
    with serve(folder, "plain:app", "--workers", "1", env={"TMPDIR": str(temporary)}) as server:
        assert server.text().startswith("one")
        assert server.stop() == 0
