"""Long bodies both ways through every process: the same bytes, in constant memory."""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.patience import PATIENCE_S
from tests.web.web_process import WebProcess, serve

pytestmark = pytest.mark.serial

SIZE_MIB = int(os.environ.get("HEADRACE_TEST_BODY_MIB", "64"))
"""1024 is what was promised."""
GROWTH_BYTES = 64 * 2**20 if SIZE_MIB > 64 else 24 * 2**20
"""What a process may need more than before, at most: windows, buffers, and what Python keeps."""
PIECE = bytes(range(256)) * 4096

FLASK = """
import hashlib
from flask import Flask, Response, request
app = Flask(__name__)
PIECE = bytes(range(256)) * 4096

@app.post("/up")
def up():
    found = hashlib.sha256()
    while piece := request.stream.read(100_000):
        found.update(piece)
    return found.hexdigest()

@app.get("/down/<int:pieces>")
def down(pieces):
    return Response((PIECE for _ in range(pieces)), mimetype="application/octet-stream")

@app.get("/known/<int:pieces>")
def known(pieces):
    headers = {"Content-Length": str(pieces * len(PIECE))}
    return Response((PIECE for _ in range(pieces)), mimetype="application/octet-stream", headers=headers)
"""

STARLETTE = """
import hashlib
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
PIECE = bytes(range(256)) * 4096

async def up(request):
    found = hashlib.sha256()
    async for piece in request.stream():
        found.update(piece)
    return PlainTextResponse(found.hexdigest())

def pieces(request):
    for _ in range(request.path_params["pieces"]):
        yield PIECE

async def down(request):
    return StreamingResponse(pieces(request), media_type="application/octet-stream")

async def known(request):
    headers = {"Content-Length": str(request.path_params["pieces"] * len(PIECE))}
    return StreamingResponse(pieces(request), media_type="application/octet-stream", headers=headers)

app = Starlette(routes=[
    Route("/up", up, methods=["POST"]), Route("/down/{pieces:int}", down), Route("/known/{pieces:int}", known),
])
"""


class Memory:
    """The most that each process of a server needed beyond what it had."""

    def __init__(self, server: WebProcess) -> None:
        self._pids = {pid: _rss_bytes(pid) for pid in server.processes()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.growth: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for pid, before in self._pids.items():
                self.growth[pid] = max(self.growth.get(pid, 0), _rss_bytes(pid) - before)


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def asking(server: WebProcess) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


def expected() -> str:
    found = hashlib.sha256()
    for _ in range(SIZE_MIB):
        found.update(PIECE)
    return found.hexdigest()


def upload(server: WebProcess, *, chunked: bool) -> str:
    with asking(server) as connection:
        headers = {} if chunked else {"Content-Length": str(SIZE_MIB * len(PIECE))}
        body = (PIECE for _ in range(SIZE_MIB))
        connection.request("POST", "/up", body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


def download(server: WebProcess, path: str) -> str:
    with asking(server) as connection:
        connection.request("GET", f"/{path}/{SIZE_MIB}")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Length") is None) == (200, path == "down")
        found, total = hashlib.sha256(), 0
        while piece := answer.read(1_000_000):
            found.update(piece)
            total += len(piece)
        assert total == SIZE_MIB * len(PIECE)
        return found.hexdigest()


@pytest.mark.parametrize("mode", ["edge", "direct"])
@pytest.mark.parametrize("source", [FLASK, STARLETTE], ids=["flask", "starlette"])
def test_bodies_are_whole_and_memory_is_constant(tmp_path: Path, source: str, mode: str) -> None:
    (tmp_path / "shop.py").write_text(source)
    arguments = ["--workers", "1", *(["--direct"] if mode == "direct" else [])]
    with serve(tmp_path, "shop:app", *arguments) as server:
        assert server.get("/down/1")[0] == 200  # what is imported late is there now
        with Memory(server) as memory:
            found = [upload(server, chunked=False), upload(server, chunked=True)]
            found += [download(server, "down"), download(server, "known")]
        names = {pid: line.partition("headrace")[2].split()[0] for pid, line in server.processes().items()}
        print({f"{names[pid]} {pid}": f"{grown / 2**20:.0f} MiB" for pid, grown in memory.growth.items()})
        assert set(found) == {expected()}
        assert max(memory.growth.values()) < GROWTH_BYTES, memory.growth
        assert server.stop() == 0
