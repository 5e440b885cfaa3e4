"""The demo on PostgreSQL: a server of its own, and a second broker beside that of `headrace up`. Both brokers are nodes of one
store, so all parts are given both."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from headrace.children import end_with
from headrace.testing.postgres import Server, find_programs

MISSING: Final = (
    "This demo starts a PostgreSQL of its own, and there is none (15 or later) on this machine. On Debian and Ubuntu:\n"
    "  sudo apt-get install postgresql"
)


class Database:
    """A PostgreSQL server that syncs as in production, with the store's tables. A context manager; all is gone afterwards."""

    def __init__(self) -> None:
        """Raises RuntimeError: PostgreSQL is not installed."""
        if find_programs() is None:
            raise RuntimeError(MISSING)
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-demo-")  # the server's user must be able to read it
        self._server = Server(Path(self._folder.name), durable=True)
        self.url = self._server.url()

    def __enter__(self) -> Self:
        self._server.start()
        command = [sys.executable, "-m", "headrace", "store", "init", self.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._folder.cleanup()


class Node:
    """The second broker: started again whenever it ends, until `stop`."""

    def __init__(self, folder: Path, store: str) -> None:
        self.pid: int | None = None
        self.socket = folder / "node" / "headrace.sock"
        self._log = folder / "node.log"
        self._command = [
            sys.executable,
            "-m",
            "headrace",
            "broker",
            "--data",
            str(self.socket.parent),
            "--store",
            store,
        ]
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="second node", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Idempotent."""
        self._over.set()
        if self._process is not None:
            self._process.terminate()
            self._thread.join()

    def _keep(self) -> None:
        with self._log.open("ab") as log:
            while not self._over.is_set():
                self._process = subprocess.Popen(
                    [*self._command, "--port", "0", "--log-format", "json"],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
                    preexec_fn=partial(end_with, os.getpid()),  # noqa: PLW1509 - it ends if the demo is killed
                )  # fmt: skip
                self.pid = self._process.pid
                self._process.wait()
                self._over.wait(0.5)
