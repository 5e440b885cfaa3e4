"""The servers that are compared: how each is installed, started on a free port, measured and stopped.

Peers are installed into a cache folder outside version control, at pinned versions, by pip and npm. One that cannot
be installed here is reported as left out, with the reason; nothing is skipped silently.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import machine
from benchmarks.http_load import ask
from benchmarks.sqs_wire import BadAnswer
from headrace.testing.ports import free_port

READY_TIMEOUT_S: Final = 60
STOP_TIMEOUT_S: Final = 20
INSTALL_TIMEOUT_S: Final = 600


class CannotInstall(Exception):
    """A peer is not to be had on this machine; the text says why."""


@dataclass(frozen=True)
class Server:
    """A kind of server.

    Attributes:
        name: as the tables show it.
        durable: what keeps a message that was answered: `fsync` (the disk, synced) or `memory`.
        install: makes it runnable in a cache folder; idempotent; raises CannotInstall.
        command: its command line, from (cache folder, data folder, port).
        environment: variables that it needs, from the port.
    """

    name: str
    durable: str
    install: Callable[[Path], None]
    command: Callable[[Path, Path, int], list[str]]
    environment: Callable[[int], dict[str, str]] = field(default=lambda _: {})


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    endpoint: str
    pid: int

    def cpu_s(self) -> float:
        return machine.cpu_s(self.pid)

    def memory_mib(self) -> float:
        return machine.memory_mib(self.pid)


@contextmanager
def running(server: Server, cache: Path, data: Path) -> Iterator[Running]:
    """Start the server on an empty `data` folder, wait until it answers, and stop it at the end.

    Raises:
        RuntimeError: it ended or did not answer within a minute; the text has the end of its log.
    """
    data.mkdir(parents=True)
    port = free_port()
    log = data.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command(cache, data, port),
            env={**os.environ, **server.environment(port)},
            cwd=data,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, endpoint, log)
        yield Running(endpoint, process.pid)
    finally:
        stop(process)
        shutil.rmtree(data, ignore_errors=True)


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask(endpoint, "ListQueues")
        except (OSError, BadAnswer):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not answer:\n{log.read_text(errors='replace')[-2_000:]}")


def stop(process: subprocess.Popen[Any], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Ask the server's own process group to end; insist after a while."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _nothing_to_install(_: Path) -> None:
    pass


def run(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as failed:
        last = (failed.stderr or failed.stdout).strip().splitlines()[-1:]
        raise CannotInstall(f"{command[0]} failed: {' '.join(last)}") from failed
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise CannotInstall(str(failed)) from failed


def _pip_installer(package: str, program: str) -> Callable[[Path], None]:
    """Installs a package into a virtual environment of its own: its dependencies are not ours."""

    def install(cache: Path) -> None:
        home = cache / package
        if not (home / "bin" / program).exists():
            run(sys.executable, "-m", "venv", home)
            run(home / "bin" / "pip", "install", "--quiet", package)

    return install


def fauxqs_package() -> str:
    """The version that this machine's Node can run: 2.x wants Node 22."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise CannotInstall("Node and npm are not installed (Debian: apt-get install nodejs npm)")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
    return "fauxqs@2.4.1" if int(version.lstrip("v").partition(".")[0]) >= 22 else "fauxqs@1.9.2"


def _install_fauxqs(cache: Path) -> None:
    home = cache / "fauxqs"
    package = fauxqs_package()
    if not (home / "node_modules" / "fauxqs").exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text('{"private": true}\n')
        run("npm", "install", "--prefix", home, "--no-audit", "--no-fund", package)


MINISTACK: Final = "ministack==1.5.33"
MOTO: Final = "moto[server]==5.2.5"


def headrace() -> Server:
    return _headrace("headrace", ["-m", "headrace"])


def headrace_loop() -> Server:
    """A variant that always commits on the loop's thread, however slow the disk."""
    return _headrace("commits on the loop", ["-c", _PLACED.format(slow_from_s=3_600)])


def headrace_thread() -> Server:
    """A variant that always commits in a thread, however fast the disk."""
    return _headrace("commits in a thread", ["-c", _PLACED.format(slow_from_s=-1)])


_PLACED: Final = (
    "from headrace.queue.store.local import store; store.SLOW_SYNC_S = {slow_from_s}; "
    "from headrace.cli.main import main; main()"
)


def _headrace(name: str, program: list[str]) -> Server:
    return Server(
        name=name,
        durable="fsync",
        install=_nothing_to_install,
        command=lambda _cache, data, port: [
            sys.executable, *program, "broker", "--data", str(data / "store"), "--port", str(port),
            "--log-level", "warning",
        ],
    )  # fmt: skip


def fauxqs() -> Server:
    return Server(
        name="fauxqs",
        durable="memory",
        install=_install_fauxqs,
        command=lambda cache, _data, _port: ["node", str(cache / "fauxqs/node_modules/fauxqs/dist/server.js")],
        environment=lambda port: {"FAUXQS_PORT": str(port), "FAUXQS_LOGGER": "false"},
    )


def ministack() -> Server:
    return Server(
        name="MiniStack",
        durable="memory",
        install=_pip_installer(MINISTACK, "ministack"),
        command=lambda cache, _data, _port: [str(cache / MINISTACK / "bin/ministack")],
        environment=lambda port: {"GATEWAY_PORT": str(port), "SERVICES": "sqs", "LOG_LEVEL": "ERROR"},
    )


def moto() -> Server:
    return Server(
        name="moto_server",
        durable="memory",
        install=_pip_installer(MOTO, "moto_server"),
        command=lambda cache, _data, port: [str(cache / MOTO / "bin/moto_server"), "-p", str(port)],
    )


PEERS: Final[dict[str, Callable[[], Server]]] = {
    "fauxqs": fauxqs,
    "ministack": ministack,
    "moto": moto,
    "loop": headrace_loop,
    "thread": headrace_thread,
}
