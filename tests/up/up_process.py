"""A real `headrace up` for tests: in a folder of its own, found by its log, ended by its pid; leaves nobody behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import headrace
from tests.broker_process import ServerProcess, wait_until
from tests.patience import PATIENCE_S

APP = """
import os
def app(environ, start_response):
    print("asked for", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ.get("HEADRACE_BROKER", "").encode()]
"""
PIPELINE = """
import headrace.stream as hs
events = hs.queue("events", schema="k string, v bigint")
doubled = hs.sql("SELECT k, v * 2 AS v FROM events")
pipeline = hs.pipeline("doubled", doubled, sink=hs.queue("out"))
"""
BROKER = '[broker]\ndata = "data"\nport = 0\n'
WEB = '[web]\napp = "app:app"\nport = 0\nworkers = 1\n'
STREAM = '[stream.doubled]\nfile = "pipeline.py"\n'


class UpProcess(ServerProcess):
    """`headrace up` in `folder`, which is given an app, a pipeline and the settings."""

    def __init__(self, folder: Path, settings: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        for name, text in (("app.py", APP), ("pipeline.py", PIPELINE)):
            if not (folder / name).exists():
                (folder / name).write_text(text)
        self.write(settings)
        self.seen = 0
        command = [sys.executable, "-m", "headrace", "up", "--log-format", "json", *arguments]
        super().__init__(command, cwd=folder, env=env)

    def write(self, settings: str) -> None:
        (self.folder / "headrace.toml").write_text(settings)

    def wait_line(self, fits: Callable[[dict[str, Any]], bool], *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next line that fits, behind the one that was found last."""
        deadline = time.monotonic() + within_s
        while True:
            lines = self.all_lines()
            for index in range(self.seen, len(lines)):
                if fits(lines[index]):
                    self.seen = index + 1
                    return lines[index]
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert not ended and time.monotonic() < deadline, "".join(self.raw)
            time.sleep(0.01)

    def wait_action(self, action: str, *, of: str = "") -> dict[str, Any]:
        """The next line with that action: of the service `of`, or about it."""
        return self.wait_line(
            lambda line: line.get("action") == action and (not of or of in (line["service"], line.get("of")))
        )

    def all_lines(self) -> list[dict[str, Any]]:
        import json

        return [
            json.loads(line) if line.startswith("{") else {"service": "", "message": line} for line in list(self.raw)
        ]

    def actions(self, *services: str) -> list[tuple[str, str]]:
        return [
            (line["service"], line.get("action", ""))
            for line in self.all_lines()
            if not services or line["service"] in services
        ]

    def pid_of(self, service: str) -> int:
        """Of its process that became ready last."""
        ready = wait_until(
            lambda: [
                line
                for line in self.all_lines()
                if (line.get("action"), line.get("of")) == ("up.service.ready", service)
            ]
        )
        return int(ready[-1]["pid"])

    def url_of(self, service: str) -> str:
        ready = wait_until(lambda: [line for line in self.all_lines() if _tells_url(line, service)])
        return str(ready[-1]["url"])

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def pids(self) -> set[int]:
        """Of all processes that are of this one's services, also when it is gone: they have its settings file's name."""
        mark = f"HEADRACE_CONFIG={self.folder / 'headrace.toml'}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
        return found

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.pids())
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


def _tells_url(line: dict[str, Any], service: str) -> bool:
    return bool(line["service"] == service and str(line.get("action")).endswith(".ready") and "url" in line)


@contextmanager
def up(folder: Path, settings: str, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[UpProcess]:
    """One that is up, unless it ends before. The pipeline's queues are there: it looks again for one only now and then."""
    if "[stream." in settings and not (folder / "data").exists():
        with headrace.connect(folder / "data") as client:
            for name in ("events", "out"):
                client.queue(name, create=True)
    one = UpProcess(folder, settings, *arguments, env=env)
    try:
        one.wait_action("up.ready")
        yield one
    finally:
        one.end()
