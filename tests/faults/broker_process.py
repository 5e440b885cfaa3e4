"""A real broker process that tests may kill, pause and starve, and a raw client that never tries again by itself."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headrace.testing.ports import free_port
from tests.patience import PATIENCE_S

SOURCE: Final = Path(__file__).parents[2] / "src"


@dataclass
class BrokerProcess:
    """`headrace broker` on a folder. `before_start` runs in the child, before the broker."""

    folder: Path
    port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ("--cooldowns", "off")
    before_start: Callable[[], None] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.folder.with_name(f"{self.folder.name}.log").read_text(errors="replace")

    def spawn(self) -> None:
        """Start, and do not wait."""
        command = [sys.executable, "-m", "headrace", "broker", "--data", str(self.folder), "--port", str(self.port)]
        path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
        with self.folder.with_name(f"{self.folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                preexec_fn=self.before_start,  # noqa: PLW1509 - the test has no other threads when it starts a broker
            )

    def start(self) -> None:
        """Start, and wait until it is ready."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self._ready():
            assert self.process is not None
            assert self.process.poll() is None, f"the broker ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"the broker is not ready:\n{self.log}"
            time.sleep(0.01)

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """TERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def cpu_seconds(self) -> float:
        text = Path(f"/proc/{self.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def limit_descriptors(count: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    return limit


@dataclass(frozen=True)
class Answer:
    """What one attempt came to.

    Attributes:
        status: the HTTP status; 0 when no whole answer came: it is not known whether it happened.
        data: the answer's JSON.
        sent: when the request was about to be written (monotonic seconds).
        received: when the answer was there.
    """

    status: int
    data: dict[str, Any]
    sent: float
    received: float

    @property
    def acknowledged(self) -> bool:
        return self.status == 200

    @property
    def unknown(self) -> bool:
        return self.status == 0

    @property
    def refused(self) -> bool:
        return self.status not in (0, 200)


class RawClient:
    """One connection, one attempt a call. After an unknown outcome the next call connects anew."""

    def __init__(self, port: int, *, timeout_s: float = PATIENCE_S) -> None:
        self.port = port
        self.timeout_s = timeout_s
        self.queue_url = f"http://127.0.0.1:{port}/000000000000/"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, action: str, **parameters: Any) -> Answer:
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout_s):
                status, data = await self._attempt(action, parameters)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError):
            self.close()
            return Answer(0, {}, sent, time.monotonic())
        return Answer(status, data, sent, time.monotonic())

    async def on_queue(self, action: str, queue: str, **parameters: Any) -> Answer:
        return await self.call(action, QueueUrl=self.queue_url + queue, **parameters)

    async def _attempt(self, action: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        writer.write(request_bytes(action, parameters, self.port))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
        body = await reader.readexactly(length)
        if any(line.lower() == b"connection: close" for line in lines):
            self.close()
        return int(lines[0].split()[1]), json.loads(body or b"{}")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request_bytes(action: str, parameters: dict[str, Any], port: int) -> bytes:
    body = json.dumps(parameters).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-amz-json-1.0\r\n"
        f"X-Amz-Target: AmazonSQS.{action}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
