"""`headrace up` as the demo runs it: started, watched by its log, stopped; and who is killed on purpose, by what the parts
say of themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from demo.nodes import Node
from headrace import presence
from headrace.children import end_with
from headrace.errors import HeadraceError
from headrace.native.client import Client

CONFIG: Final = Path(__file__).parent / "headrace.toml"
PORTS: Final = {"broker": 9324, "web": 8000, "console": 9325}
READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 40.0


class Stack:
    """Broker, web server, workers, pipeline and console under one supervisor, with their data in `folder`.

    With a `store` on PostgreSQL there is a second broker, on its own, and all are given both.
    """

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.node = Node(folder, store) if store is not None else None
        self.broker = f"unix://{folder / 'store' / 'headrace.sock'}"
        if self.node is not None:
            self.broker += f",unix://{self.node.socket}"
        self.log = folder / "up.log"
        self.urls: dict[str, str] = {}
        """Part → where it serves, once it has said so."""
        self.pids: dict[str, int] = {}
        """Part → its process, as the supervisor started it last."""
        self.readies: dict[str, int] = {}
        """Part → how often it has become ready."""
        self._folder = folder
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()

    def start(self) -> None:
        """Does not wait: `wait_for` does."""
        ports = {f"HEADRACE_{part.upper()}__PORT": str(_port(port)) for part, port in PORTS.items()}
        data = {"HEADRACE_BROKER__DATA": str(self._folder / "store"), "HEADRACE_DEMO_DATA": str(self._folder)}
        if self.node is not None and self._store is not None:
            data |= {"HEADRACE_BROKER__STORE": self._store}
            data |= {f"HEADRACE_{part}__BROKER": self.broker for part in ("WEB", "WORKER", "STREAM", "CONSOLE")}
            self.node.start()
        command = [sys.executable, "-m", "headrace", "up", "--config", str(CONFIG), "--log-format", "json"]
        self._process = subprocess.Popen(
            command,
            cwd=CONFIG.parent,
            env={**os.environ, **ports, **data},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for the demo, which then stops everything
            preexec_fn=partial(end_with, os.getpid()),  # noqa: PLW1509 - no threads yet; and it ends if the demo is killed
        )
        threading.Thread(target=self._read, name="log of headrace up", daemon=True).start()

    def wait_for(self, fact: Callable[[], bool], what: str) -> None:
        """Until it is so. Raises RuntimeError: everything ended, or it did not become so within a minute."""
        deadline_s = time.monotonic() + READY_WITHIN_S
        with self._changed:
            while not fact():
                self.check()
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{what} did not come within {READY_WITHIN_S:.0f} s; its log is {self.log}")
                self._changed.wait(0.1)

    def check(self) -> None:
        """Raises RuntimeError if it has ended by itself; the text has the end of its log."""
        if self._process is not None and self._process.poll() is not None:
            said = self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else ""
            raise RuntimeError(f"headrace up ended with {self._process.returncode}:\n{said}")

    def stop(self) -> int:
        """TERM: everything in order. Returns its exit code; -9 if it had to be killed."""
        code = self._stop_up()
        if self.node is not None:
            self.node.stop()
        return code

    def brokers(self) -> list[int]:
        """The processes of the brokers."""
        second = [self.node.pid] if self.node is not None and self.node.pid is not None else []
        return [*(self.pids[part] for part in ("broker",) if part in self.pids), *second]

    def _stop_up(self) -> int:
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)  # it takes all parts with it
            self._process.wait()
            return -signal.SIGKILL

    def _read(self) -> None:
        """Its log, line by line, until it ends: kept as a file, and looked at."""
        assert self._process is not None
        assert self._process.stderr is not None
        with self.log.open("wb", buffering=0) as log, self._process.stderr as lines:
            for line in lines:
                log.write(line)
                with contextlib.suppress(msgspec.DecodeError):
                    self._note(msgspec.json.decode(line))

    def _note(self, fields: dict[str, Any]) -> None:
        action = fields.get("action", "")
        with self._changed:
            if action == "up.service.ready":
                self.pids[fields["of"]] = fields["pid"]
                self.readies[fields["of"]] = self.readies.get(fields["of"], 0) + 1
            elif action.endswith(".ready") and "url" in fields:
                self.urls[fields["service"]] = fields["url"]
            self._changed.notify_all()


def fresh(folder: Path) -> Path:
    """An empty folder for a run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def web_worker(client: Client) -> int | None:
    """A process that answers requests now: as the web server says."""
    for holder in client.holders("web"):
        facts = presence.read("web", holder.facts)
        assert isinstance(facts, presence.WebFacts)
        serving = [worker for worker in facts.workers if worker.stage == "serving"]
        if serving:
            return max(serving, key=lambda worker: worker.in_flight).pid
    return None


def present(client: Client, kind: str) -> int | None:
    """The process of that kind which has most in its hands: a worker, a pipeline."""
    holders = sorted(client.holders(kind), key=lambda holder: -holder.leases)
    return presence.read(kind, holders[0].facts).pid if holders else None


def kill(pid: int | None) -> bool:
    """SIGKILL: no handler runs, nothing is flushed. False: there is no such process."""
    if not pid:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def ask(find: Callable[[], int | None]) -> int | None:
    """What the broker says, or nothing while it is away."""
    try:
        return find()
    except HeadraceError:
        return None


def _port(wanted: int) -> int:
    """The one that everybody knows, if it is free; else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted
