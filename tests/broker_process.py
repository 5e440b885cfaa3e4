"""Real server processes for tests, a broker first: on a free port, found by their log line, ended by their pid."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import headrace
from tests.patience import PATIENCE_S

T = TypeVar("T")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headrace", "broker", *arguments]


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "NOTIFY_"))}
    return {**kept, "PYTHONPATH": str(Path(headrace.__file__).parent.parent), **extra}


def run_command(
    command: Sequence[str], *, cwd: Path, within_s: float = PATIENCE_S, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=within_s, check=False
    )


def run_to_end(
    *arguments: str, cwd: Path, within_s: float = PATIENCE_S, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a broker that is expected to end by itself."""
    return run_command(command(*arguments), cwd=cwd, within_s=within_s, **env)


def wait_until(condition: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    """The first truthy answer of `condition`, asked again and again."""
    deadline = time.monotonic() + within_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class ServerProcess:
    """A running server. `lines` are its log lines so far, as parsed JSON, `raw` as they came."""

    port = 0

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None, **how: Any) -> None:
        """Args: how: more for `subprocess.Popen`."""
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._news: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(**(env or {})),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            **how,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line)
            self._news.put(json.loads(line) if line.startswith("{") else {"message": line})
        self._news.put(None)

    def wait_for(self, action: str, *, within_s: float = PATIENCE_S) -> dict[str, Any]:
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

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def get(
        self, path: str, *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class BrokerProcess(ServerProcess):
    """A running broker."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        before_start: Callable[[], None] | None = None,
    ) -> None:
        self.data = data
        super().__init__(
            command("--data", str(data), "--port", "0", "--log-format", "json", *arguments),
            cwd=cwd or data.parent,
            env=env,
            preexec_fn=before_start,  # one system call, in the child
        )

    def wait_ready(self) -> None:
        self.url = str(self.wait_for("broker.ready")["url"])
        self.port = int(self.url.rpartition(":")[2])

    def wait_end(self, *, within_s: float = PATIENCE_S) -> int:
        code = self.process.wait(within_s)
        self._reader.join(within_s)
        return code

    def get_by_socket(self, path: str, *, method: str = "GET", body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """As `get`, over the Unix socket."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE_S)
        connection.sock.connect(str(self.data / "headrace.sock"))
        try:
            connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get_secure(self, path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE_S, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def sqs(self, operation: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        """An unsigned call of the JSON protocol."""
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{operation}"}
        status, body = self.get("/", method="POST", body=json.dumps(parameters).encode(), headers=headers)
        return status, json.loads(body or b"{}")

    def metric(self, line_start: str) -> float:
        _, body = self.get("/metrics")
        found = [line for line in body.decode().splitlines() if line.startswith(line_start + " ")]
        return float(found[0].rpartition(" ")[2])


@contextmanager
def broker(
    data: Path,
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    before_start: Callable[[], None] | None = None,
) -> Iterator[BrokerProcess]:
    """A broker that is ready; killed at the end if it still runs. `before_start` runs in its process."""
    one = BrokerProcess(data, *arguments, cwd=cwd, env=env, before_start=before_start)
    try:
        one.wait_ready()
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.wait_end()
        assert one.process.stderr is not None
        one.process.stderr.close()
