"""A real web server for tests: started on a free port, found by its log line, ended by its pid; leaves nobody behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from tests.broker_process import environment, wait_until

READY_WITHIN_S = 30.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headrace", "serve", *arguments]


def run_to_end(*arguments: str, cwd: Path, within_s: float = 30.0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


class WebProcess:
    """A running server. `lines` are its log lines so far, as parsed JSON."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.url = ""
        self.port = 0
        self._news: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self.process = subprocess.Popen(
            command("--log-format", "json", *arguments),
            cwd=folder,
            env=environment(**(env or {})),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # so that a failing test can end all of it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line)
            self._news.put(json.loads(line) if line.startswith("{") else {"message": line})
        self._news.put(None)

    def wait_for(self, action: str, *, within_s: float = READY_WITHIN_S) -> dict[str, Any]:
        """The next log line with this action."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {action} within {within_s} s: {self.raw}") from None
            assert line is not None, f"ended with {self.process.wait()} before {action}: {self.raw}"
            self.lines.append(line)
            if line.get("action") == action:
                return line

    def wait_ready(self) -> dict[str, Any]:
        ready = self.wait_for("web.ready")
        self.url, self.port = str(ready["url"]), int(ready["port"])
        return ready

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def wait_end(self, *, within_s: float = 20.0) -> int:
        """The exit code; and not before every process that it has started is gone: they all hold its stderr."""
        code = self.process.wait(within_s)
        self.wait_empty(within_s=within_s)
        return code

    def wait_empty(self, *, within_s: float = 20.0) -> None:
        self._reader.join(within_s)
        assert not self._reader.is_alive(), f"some process is still there: {self.processes()} {self.raw}"

    def end(self) -> None:
        """Whatever is left, at once."""
        lines = " ".join(self.processes().values())
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for control in re.findall(r"\S+/headrace-\w+(?=/control)", lines):  # what was killed could not tidy up
            shutil.rmtree(control, ignore_errors=True)
        self.process.wait()
        self._reader.join(20)
        assert self.process.stderr is not None
        self.process.stderr.close()

    # What is asked

    def get(
        self, path: str = "/", *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def text(self, path: str = "/") -> str:
        status, body = self.get(path)
        assert status == 200, (status, body)
        return body.decode()

    def processes(self) -> dict[int, str]:
        """Process id → command line, of all that it consists of, itself included."""
        found = {}
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == self.process.pid:  # its session
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        return found

    def edges(self) -> set[int]:
        return {pid for pid, line in self.processes().items() if "headrace.web.edge" in line}

    def zygotes(self) -> set[int]:
        own = {pid: line for pid, line in self.processes().items() if "headrace.web.zygote" in line}
        return {pid for pid in own if _parent(pid) not in own}

    def workers(self) -> set[int]:
        own = {pid: line for pid, line in self.processes().items() if "headrace.web.zygote" in line}
        return {pid for pid in own if _parent(pid) in own}


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextmanager
def serve(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[WebProcess]:
    """A server that is ready; on a free port, unless it is given one."""
    given = any(name in arguments for name in ("--port", "--uds", "--bind"))
    one = WebProcess(folder, *arguments, *(() if given else ("--port", "0")), env=env)
    try:
        one.wait_ready()
        yield one
    finally:
        one.end()


__all__ = ["WebProcess", "command", "run_to_end", "serve", "wait_until"]
