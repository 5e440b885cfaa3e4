"""The Autobahn test cases of WebSocket, as kosoku plays them, against a FastAPI application."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.web_process import serve

pytestmark = pytest.mark.serial
KOSOKU = Path(sys.executable).parent / "kosoku"
CASES = ["-x", "9.*", "-x", "12.*", "-x", "13.*"]
"""Without those that move GB for minutes; a ping of the server, each 20 s, fails a case that takes longer. Compression is
tested by tests/web/apps/test_asgi_live.py."""

ECHO = """
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
app = FastAPI()

@app.websocket("/")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return
"""


@pytest.mark.skipif(not KOSOKU.exists(), reason="kosoku is not installed")
@pytest.mark.parametrize("mode", ["edge", "direct", "proxy"])
def test_all_cases_pass(tmp_path: Path, mode: str) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    direct = ["--direct"] if mode == "direct" else []
    with serve(tmp_path, "echo:app", "--workers", "1", *direct) as app:
        if mode != "proxy":
            play(tmp_path, app.port)
            return
        with serve(tmp_path, "--proxy", f"http://127.0.0.1:{app.port}") as front:
            play(tmp_path, front.port)


def play(folder: Path, port: int) -> None:
    command = [str(KOSOKU), "-p", "8", *CASES, "-o", str(folder / "reports"), f"127.0.0.1:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    print(done.stdout[-300:])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
