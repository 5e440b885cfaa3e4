"""The broker process that the demo starts, kills and starts again, and how it is watched."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import headrace
from demo.clients import VISIBILITY_S
from headrace.errors import HeadraceError

READY_TIMEOUT_S: Final = 30
STOP_TIMEOUT_S: Final = 20


class Gauge(NamedTuple):
    """What the broker says of itself. `commit_ms` is the recent mean, the sync to the disk included."""

    waiting: int
    in_flight: int
    commit_ms: float
    operations_a_commit: float


class BrokerProcess:
    """A real `headrace broker` on a free port of the loopback, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.log = folder / "broker.log"
        self._data = folder / "store"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it serves; returns the seconds that took.

        Raises:
            RuntimeError: it ended, or did not serve within half a minute; the text has the end of its log.
        """
        started = time.monotonic()
        command = [sys.executable, "-m", "headrace", "broker", "--data", str(self._data), "--port", str(self.port)]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which then stops the broker.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > started + READY_TIMEOUT_S:
                raise RuntimeError(f"the broker does not serve:\n{self.log.read_text()[-2_000:]}")
            time.sleep(0.02)
        return time.monotonic() - started

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def check(self) -> None:
        """Raises RuntimeError if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"the broker ended with {self._process.returncode}:\n{self.log.read_text()[-2_000:]}")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Watcher:
    """Reads a broker's gauges; never waits for one that is down."""

    def __init__(self, endpoint: str, queue: str) -> None:
        self._client = headrace.connect(endpoint, timeout=2, patience=0)
        self._queue = self._client.queue(queue)

    def read(self) -> Gauge | None:
        """The gauges now; None while the broker cannot be reached."""
        try:
            counts = self._queue.counts()
            store = self._client.statistics().store
        except HeadraceError:
            return None
        if store is None:
            return Gauge(counts.visible + counts.delayed, counts.in_flight, 0.0, 0.0)
        return Gauge(
            waiting=counts.visible + counts.delayed,
            in_flight=counts.in_flight,
            commit_ms=store.commit_seconds_recent * 1_000,
            operations_a_commit=store.commit_operations / max(1, store.commits),
        )

    def close(self) -> None:
        self._client.close()


def prepare(endpoint: str, *, inbox: str, work: str, topic: str) -> None:
    """Make the topic, the queue that publishes to it, and the consumers' queue that is subscribed to it."""
    with headrace.connect(endpoint) as client:
        for queue in (inbox, work):
            client.queue(queue, create=True, visibility_timeout=VISIBILITY_S)
        client.topic(topic, create=True, inbox=inbox, retention="1 day").subscribe(work)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
