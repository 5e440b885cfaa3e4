"""Start a server, wait until it answers, know what it uses, stop it."""

from __future__ import annotations

import http.client
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.servers import READY_TIMEOUT_S, stop
from benchmarks.web import nginx
from benchmarks.web.contenders import APPS, App, Contender
from headrace.testing.ports import free_port

PROBE_EVERY_S: Final = 0.01
STOP_TIMEOUT_S: Final = 5
"""For servers that still work off an overload."""
LOG_END_CHARACTERS: Final = 500


@dataclass(frozen=True)
class Running:
    """A server that answers: its name in tables, its port, its first processes, and how long it took to answer."""

    name: str
    port: int
    pids: tuple[int, ...]
    started_in_s: float

    def cpu_s(self) -> float:
        return sum(machine.cpu_s(pid) for pid in self.pids)

    def rss_mib(self) -> float:
        return sum(machine.memory_mib(pid) for pid in self.pids)

    def pss_mib(self) -> float:
        return sum(machine.own_memory_mib(pid) for pid in self.pids)


@contextmanager
def serving(contender: Contender, app: App, *, programs: Path, folder: Path) -> Iterator[Running]:
    """Run the app on the contender, behind nginx if it wants that.

    Raises:
        RuntimeError: it ended or did not answer within a minute; the text has the end of its log.
    """
    port = free_port()
    commands = [contender.command(programs, app.spec, port)]
    if contender.front:
        upstream, port = port, free_port()
        commands.append(nginx.front(folder / "nginx", port=port, upstream=upstream))
    with launched(contender.name, commands, port=port, path=app.path, folder=folder) as running:
        yield running


@contextmanager
def launched(name: str, commands: Sequence[Sequence[str]], *, port: int, path: str, folder: Path) -> Iterator[Running]:
    """Run the commands together; they are ready when `path` is answered with 200."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    started = time.perf_counter()
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        processes = []
        for command in commands:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(APPS)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(stop, process, STOP_TIMEOUT_S)
            processes.append(process)
        wait_until_ready(processes, port, path, log)
        took_s = time.perf_counter() - started
        yield Running(name, port, tuple(process.pid for process in processes), took_s)


def wait_until_ready(processes: Sequence[subprocess.Popen[bytes]], port: int, path: str, log: Path) -> None:
    """Ask until the answer is 200.

    Raises:
        RuntimeError: a process has ended, or a minute is over.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        if _status(port, path) == 200:
            return
        time.sleep(PROBE_EVERY_S)
    raise RuntimeError(
        f"{processes[0].args!r} does not answer; {log} ends with:\n{log.read_text(errors='replace')[-LOG_END_CHARACTERS:]}"
    )


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
