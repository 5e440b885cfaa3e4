"""One measurement: clients load a queue, and everybody's CPU is taken at both ends of the same window."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.postgres.contenders import Contender, Mode
from benchmarks.postgres.servers import Serving
from benchmarks.runs import ROOT
from benchmarks.servers import stop

WARMUP_S: Final = 1.5


@dataclass(frozen=True)
class Row:
    """A contender's figures in one mode: of one round, or medians.

    Attributes:
        node_us, database_us, client_us: CPU a message; None where there is no such process.
    """

    name: str
    mode: str
    messages_per_s: float
    node_us: float | None
    database_us: float | None
    client_us: float
    keeps: str

    @property
    def all_us(self) -> float:
        """CPU a message of everybody."""
        return (self.node_us or 0.0) + (self.database_us or 0.0) + self.client_us


def measure(
    contender: Contender, modes: Sequence[Mode], *, seconds: float, python: Path, folder: Path
) -> Iterator[Row]:
    """One mode after the other, on the same servers.

    Raises:
        RuntimeError: a server or a client failed.
        CannotInstall: it is not to be had here.
    """
    folder.mkdir(parents=True)
    with contender.serve(folder) as serving:
        for mode in modes:
            yield _measured(contender, mode, serving, seconds=seconds, python=python, folder=folder)


def _measured(contender: Contender, mode: Mode, serving: Serving, *, seconds: float, python: Path, folder: Path) -> Row:
    with ExitStack() as stack:
        clients = []
        for number in range(contender.clients):
            client = _client(contender, mode, serving, number, seconds, python, folder)
            stack.enter_context(client)  # closes its pipe
            stack.callback(stop, client)
            clients.append(client)
        before = _sample(clients, serving, folder)
        return _row(contender, mode, before, _sample(clients, serving, folder))


def _client(
    contender: Contender, mode: Mode, serving: Serving, number: int, seconds: float, python: Path, folder: Path
) -> subprocess.Popen[str]:
    """headrace's clients run with this interpreter, those of the peers where these are installed."""
    program = [
        sys.executable if contender.ours else str(python),
        "-m",
        f"benchmarks.postgres.clients.{contender.client}",
    ]
    command = [
        *program, serving.addresses[number % len(serving.addresses)], "--mode", mode,
        "--connections", str(contender.connections // contender.clients), "--seconds", str(seconds),
        "--warmup", str(WARMUP_S), *contender.options,
    ]  # fmt: skip
    with (folder / f"client-{number}.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )


@dataclass(frozen=True)
class Sample:
    """Where everybody stood: messages done, the mean moment of the clients, CPU seconds by role."""

    messages: int
    at: float
    cpu_s: dict[str, float]


def _sample(clients: Sequence[subprocess.Popen[str]], serving: Serving, folder: Path) -> Sample:
    """Wait until each client tells, then take the CPU of the servers. Raises RuntimeError: a client has ended."""
    told = [_told(client, folder / f"client-{number}.log") for number, client in enumerate(clients)]
    cpu_s = {role: sum(machine.cpu_s(pid) for pid in pids) for role, pids in serving.pids.items()}
    cpu_s["client"] = sum(one["cpu_s"] for one in told)
    return Sample(sum(one["messages"] for one in told), sum(one["at"] for one in told) / len(told), cpu_s)


def _told(client: subprocess.Popen[str], log: Path) -> dict[str, Any]:
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise RuntimeError(f"a client failed: {_last_line(log)}")
    told: dict[str, Any] = json.loads(line)
    return told


def _last_line(log: Path) -> str:
    return next(
        (line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "it said nothing"
    )


def _row(contender: Contender, mode: Mode, before: Sample, after: Sample) -> Row:
    messages = after.messages - before.messages
    if messages <= 0:
        raise RuntimeError("not one message was served in the window")

    def us(role: str) -> float | None:
        if role not in after.cpu_s:
            return None
        return (after.cpu_s[role] - before.cpu_s[role]) / messages * 1e6

    return Row(
        contender.name, mode, messages / (after.at - before.at), us("node"), us("database"), us("client") or 0.0,
        contender.keeps,
    )  # fmt: skip
