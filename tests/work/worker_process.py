"""A real `headrace worker` for tests: a folder with an app, a broker and a ledger; ended by its pids, leaves nobody behind."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headrace.work.app import App
from headrace.work.run_log import Run, read_runs
from tests.broker_process import ServerProcess, wait_until
from tests.patience import PATIENCE_S

APP = '''
import asyncio, os, time
import headrace.work
from pathlib import Path

HERE = Path(__file__).parent
app = headrace.work.App()

def write(line):
    """Whole or not at all, whoever else writes: one write at the end of the file."""
    ledger = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, f"{line}\\n".encode())
    os.close(ledger)

@app.task
def note(n: int, pause: float = 0.0) -> None:
    write(f"began {n}")
    time.sleep(pause)
    write(f"ended {n}")

@app.task(queue="aio")
async def anote(n: int, pause: float = 0.0) -> None:
    write(f"began {n}")
    await asyncio.sleep(pause)
    write(f"ended {n}")

@app.task
def until(n: int, path: str) -> None:
    write(f"began {n}")
    while not os.path.exists(path):
        time.sleep(0.005)
    write(f"ended {n}")
'''


class Ledger:
    """What tasks wrote."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger"

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    def counts(self, what: str) -> Counter[int]:
        """Number → how often it `began` or `ended`."""
        pairs = [line.split() for line in self.lines()]
        return Counter(int(number) for word, number in pairs if word == what)

    def wait(self, what: str, number: int, *, within_s: float = PATIENCE_S) -> None:
        """Until so many different ones have."""
        wait_until(lambda: len(self.counts(what)) >= number, within_s=within_s)


class WorkerProcess(ServerProcess):
    """A running worker: the parent and its children."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.ledger = Ledger(folder)
        command = [sys.executable, "-m", "headrace", "worker", "tasks:app", "--log-format", "json", *arguments]
        super().__init__(command, cwd=folder, env=env)

    def wait_ready(self) -> dict[str, Any]:
        return self.wait_for("work.ready")

    def children(self) -> list[int]:
        """Process ids of the children that run tasks, the oldest first."""
        return [
            pid for pid, line in sorted(descendants(self.process.pid).items()) if "headrace.work.pool.child" in line
        ]

    def brokers(self) -> list[int]:
        return [pid for pid, line in descendants(self.process.pid).items() if "headrace broker" in line]

    def stop(self, *, within_s: float = PATIENCE_S) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_end(within_s=within_s)

    def wait_end(self, *, within_s: float = PATIENCE_S) -> int:
        """The exit code; and not before every process that it has started is gone: they all hold its stderr."""
        code = self.process.wait(within_s)
        self._reader.join(within_s)
        assert not self._reader.is_alive(), f"some process is still there: {self.raw}"
        return code

    def actions(self) -> list[str]:
        """Of all log lines so far."""
        self.drain_news()
        return [str(line.get("action", "")) for line in self.lines]

    def drain_news(self) -> None:
        while not self._news.empty():
            line = self._news.get()
            if line is not None:
                self.lines.append(line)

    def end(self) -> None:
        """Whatever is left, at once."""
        left = [self.process.pid, *descendants(self.process.pid)]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


def descendants(pid: int) -> dict[int, str]:
    """Process id → command line, of all that it has started and that live."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(status[1]) == pid and status[0] != "Z":
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found |= {int(entry.name): line} | descendants(int(entry.name))
    return found


@contextmanager
def working(
    folder: Path, *arguments: str, app: str = "", ready: bool = True, env: Mapping[str, str] | None = None
) -> Iterator[WorkerProcess]:
    """A worker in `folder`, with a broker of its own on `folder/data` unless the arguments name another."""
    path = folder / "tasks.py"
    if not path.exists():
        path.write_text(APP + app, encoding="utf-8")
    if "--broker" not in arguments:
        arguments = ("--broker", str(folder / "data"), *arguments)
    one = WorkerProcess(folder, *arguments, env=env)
    try:
        if ready:
            one.wait_ready()
        yield one
    finally:
        one.end()


@contextmanager
def sender(folder: Path, app: str = "", *, broker: str | None = None) -> Iterator[Any]:
    """The app's module in this process, connected to the folder's broker, unless another is named: `with sender(folder) as
    tasks: tasks.note.send(1)`."""
    path = folder / "tasks.py"
    if not path.exists():
        path.write_text(APP + app, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "tasks", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    made: App = names["app"]
    made.connect(broker or f"unix://{folder}/data/headrace.sock")
    try:
        yield type(
            "Tasks",
            (),
            {
                name: staticmethod(value) if callable(value) and not hasattr(value, "send") else value
                for name, value in names.items()
                if not name.startswith("__")
            },
        )
    finally:
        made.close()


def runs(app: App, limit: int = 30_000) -> list[Run]:
    return read_runs(app.backend, limit=limit)
