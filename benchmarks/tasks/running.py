"""One measurement: tasks are sent, then a worker is started, and the ledger is watched until all have run."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.servers import stop
from benchmarks.tasks.contenders import APPS, Contender
from headrace.testing.ports import free_port

LOOK_S: Final = 0.005
TIMEOUT_S: Final = 120.0
WARM: Final = 0.1
"""Of the tasks: not counted, so that the start of processes is not."""
AFTERWARDS_S: Final = 1.0
"""Looked at the ledger once more after this: for what runs twice."""
_SEND: Final = "import sys, importlib; importlib.import_module(sys.argv[1]).send(range(int(sys.argv[2])))"


@dataclass(frozen=True)
class TaskRow:
    """A contender's figures: of one round, or medians.

    Attributes:
        worker_us, store_us: CPU a task, of the worker's processes and of what keeps the tasks.
        lost, twice: tasks that were not run, and that were run more than once.
    """

    name: str
    tasks: int
    tasks_per_s: float
    worker_us: float
    store_us: float
    rss_mib: float
    lost: int
    twice: int
    keeps: str


def measure(contender: Contender, tasks: int, *, programs: Path, folder: Path) -> TaskRow:
    """Raises RuntimeError, with the end of the log: a process failed, or the tasks were not done in two minutes."""
    folder.mkdir(parents=True)
    ledger = folder / "ledger"
    ledger.write_bytes(bytes(tasks))
    with ExitStack() as stack:
        address, store = stack.enter_context(_store(contender, programs, folder))
        path = f"{APPS}{os.pathsep}{folder}"
        env = {**os.environ, "BROKER": address, "HEADRACE_BROKER": address, "LEDGER": str(ledger), "PYTHONPATH": path}
        _run([programs / "python", "-c", _SEND, contender.module, str(tasks)], env, folder)
        log = stack.enter_context((folder / "worker.log").open("wb"))
        command = [part.replace("$BROKER", address) for part in contender.worker(programs)]
        worker = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        stack.callback(stop, worker, 10)
        return _watch(contender, ledger, worker, store)


def _watch(contender: Contender, ledger: Path, worker: subprocess.Popen[bytes], store: int | None) -> TaskRow:
    with ledger.open("r+b") as file, mmap.mmap(file.fileno(), 0) as counts:
        tasks = len(counts)
        warm = _wait(counts, int(tasks * WARM), worker, ledger.parent)
        began_s, before = time.perf_counter(), _cpu(worker.pid, store)
        done = _wait(counts, tasks, worker, ledger.parent) - warm
        took_s, after = time.perf_counter() - began_s, _cpu(worker.pid, store)
        rss_mib = machine.memory_mib(worker.pid)
        time.sleep(AFTERWARDS_S)
        final = counts[:]
    return TaskRow(
        contender.name,
        tasks,
        done / took_s,
        (after[0] - before[0]) / done * 1e6,
        (after[1] - before[1]) / done * 1e6,
        rss_mib,
        final.count(0),
        tasks - final.count(0) - final.count(1),
        contender.keeps,
    )


def _wait(counts: mmap.mmap, number: int, worker: subprocess.Popen[bytes], folder: Path) -> int:
    """Until so many have run. Returns how many have."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while (run := len(counts) - counts[:].count(0)) < number:
        if worker.poll() is not None or time.monotonic() > deadline_s:
            end = (folder / "worker.log").read_text(errors="replace")[-1_000:]
            raise RuntimeError(f"{run} of {len(counts)} tasks were run; the worker's log ends with:\n{end}")
        time.sleep(LOOK_S)
    return run


def _cpu(worker: int, store: int | None) -> tuple[float, float]:
    return machine.cpu_s(worker), machine.cpu_s(store) if store is not None else 0.0


@contextmanager
def _store(contender: Contender, programs: Path, folder: Path) -> Iterator[tuple[str, int | None]]:
    """What keeps the tasks: its address, and its process if it has one."""
    if contender.store == "file":
        yield str(folder / "tasks.db"), None
        return
    port = free_port()
    if contender.store == "headrace":
        command = [str(programs / "headrace"), "broker", "--data", str(folder / "data"), "--port", str(port)]
        address = f"http://127.0.0.1:{port}"
    else:
        command = [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--appendonly",
            "yes",
        ]
        address = f"redis://127.0.0.1:{port}/0"
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_listening(port, process)
            yield address, process.pid
        finally:
            stop(process)


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen")


def _run(command: list[str | Path], env: dict[str, str], folder: Path) -> None:
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tasks could not be sent:\n{done.stderr[-1_000:]}")
