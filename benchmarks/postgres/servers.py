"""Databases, nodes and peers as processes: started in a folder of their own, on free ports, and stopped.

Each yields an address for clients and the pids whose CPU counts, by role: `node` is what clients talk to, `database` what is
behind it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.http_load import ask
from benchmarks.servers import CannotInstall, stop
from benchmarks.sqs_wire import BadAnswer
from headrace.testing.ports import free_port
from headrace.testing.postgres import Server, find_programs

START_S: Final = 60.0
SETTINGS: Final = ("shared_buffers = 512MB", "autovacuum_naptime = 10s", "max_connections = 200")
"""Over those of a server for tests; syncs are on."""
RABBIT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


@dataclass(frozen=True)
class Serving:
    """What clients load. `addresses`: they are shared out among them."""

    addresses: Sequence[str]
    pids: Mapping[str, Sequence[int]] = field(default_factory=dict)


@contextmanager
def database(folder: Path) -> Iterator[tuple[str, int]]:
    """An empty PostgreSQL that syncs: its URL and pid. Raises CannotInstall: there is none on this machine."""
    if find_programs() is None:
        raise CannotInstall("no PostgreSQL 15 or later (Debian: apt-get install postgresql)")
    folder.mkdir(parents=True)
    server = Server(folder, durable=True, settings=SETTINGS)
    try:
        server.start()
        yield server.url(), server.pid
    finally:
        server.stop(signal.SIGINT)


@contextmanager
def headrace(folder: Path, *, nodes: int) -> Iterator[Serving]:
    """So many nodes on one PostgreSQL."""
    with ExitStack() as stack:
        url, pid = stack.enter_context(database(folder / "database"))
        run([sys.executable, "-m", "headrace", "store", "init", url], folder)
        ports = [free_port() for _ in range(nodes)]
        started = [stack.enter_context(_node(url, port, folder)) for port in ports]
        yield Serving(
            [f"http://127.0.0.1:{port}" for port in ports], {"node": [node.pid for node in started], "database": [pid]}
        )


@contextmanager
def _node(url: str, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "headrace",
        "broker",
        "--store",
        url,
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    with process(command, folder, f"node-{port}") as started:
        _wait(started, lambda: _answers(port), folder / f"node-{port}.log")
        yield started


def _answers(port: int) -> bool:
    try:
        ask(f"http://127.0.0.1:{port}", "ListQueues")
    except (OSError, BadAnswer):
        return False
    return True


@contextmanager
def postgres_alone(folder: Path) -> Iterator[Serving]:
    """Clients talk to the database themselves."""
    with database(folder / "database") as (url, pid):
        yield Serving([url], {"database": [pid]})


@contextmanager
def nats(folder: Path) -> Iterator[Serving]:
    """JetStream that syncs each message; the default is every two minutes."""
    _needs("nats-server", "nats-server")
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: "{folder / "nats"}", sync_interval: always }}\n'
    )
    with process(["nats-server", "-c", str(config)], folder, "nats") as started:
        _wait(started, lambda: _listens(port), folder / "nats.log")
        yield Serving([f"nats://127.0.0.1:{port}"], {"node": [started.pid]})


@contextmanager
def rabbit(folder: Path) -> Iterator[Serving]:
    """One node of RabbitMQ, as it is by default."""
    if not RABBIT.exists():
        raise CannotInstall("no RabbitMQ (Debian: apt-get install rabbitmq-server)")
    port, names = free_port(), free_port()
    environment = {
        "HOME": str(folder), "ERL_EPMD_PORT": str(names), "RABBITMQ_NODENAME": "bench@localhost",
        "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "rabbit"), "RABBITMQ_LOG_BASE": str(folder / "rabbit-log"),
        "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "ERL_EPMD_ADDRESS": "127.0.0.1", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
    }  # fmt: skip
    with (
        process(["epmd", "-port", str(names), "-address", "127.0.0.1"], folder, "epmd", environment),
        process([str(RABBIT)], folder, "rabbit", environment) as started,
    ):
        _wait(started, lambda: _listens(port), folder / "rabbit.log")
        yield Serving([f"amqp://guest:guest@127.0.0.1:{port}/"], {"node": [started.pid]})


# --- processes ---


@contextmanager
def process(
    command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to `name`.log, ended at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield started
        finally:
            stop(started)


def run(command: Sequence[str], folder: Path) -> None:
    """Raises RuntimeError with the end of what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:5])} failed: {(done.stderr or done.stdout)[-500:]}")


def _needs(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise CannotInstall(f"no {program} (Debian: apt-get install {package})")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(started: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    """Until it serves. Raises RuntimeError with the end of its log."""
    until = time.monotonic() + START_S
    while not ready():
        if started.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{log.stem} does not start: {log.read_text(errors='replace').strip()[-300:]}")
        time.sleep(0.05)
