"""A real web server for tests: started on a free port, found by its log line, ended by its pid; leaves nobody behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.broker_process import ServerProcess, run_command, wait_until
from tests.patience import PATIENCE_S


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "headrace", "serve", *arguments]


def run_to_end(
    *arguments: str, cwd: Path, within_s: float = PATIENCE_S, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    return run_command(command(*arguments), cwd=cwd, within_s=within_s, **env)


class WebProcess(ServerProcess):
    """A running web server."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.url = ""
        super().__init__(
            command("--log-format", "json", *arguments),
            cwd=folder,
            env=env,
            start_new_session=True,  # so that a failing test can end all of it
        )

    def wait_ready(self) -> dict[str, Any]:
        ready = self.wait_for("web.ready")
        self.url, self.port = str(ready["url"]), int(ready["port"])
        return ready

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def wait_end(self, *, within_s: float = PATIENCE_S) -> int:
        """The exit code; and not before every process that it has started is gone: they all hold its stderr."""
        code = self.process.wait(within_s)
        self.wait_empty(within_s=within_s)
        return code

    def wait_empty(self, *, within_s: float = PATIENCE_S) -> None:
        self._reader.join(within_s)
        assert not self._reader.is_alive(), f"some process is still there: {self.processes()} {self.raw}"

    def end(self) -> None:
        """Whatever is left, at once."""
        lines = " ".join(self.processes().values())
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for control in re.findall(r"\S+/headrace-\w+(?=/control)", lines):  # what was killed could not tidy up
            shutil.rmtree(control, ignore_errors=True)
        self.process.wait()
        self._reader.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()

    # What is asked

    def text(self, path: str = "/") -> str:
        status, body = self.get(path)
        assert status == 200, (status, body)
        return body.decode()

    def processes(self) -> dict[int, str]:
        """Process id → command line, of all that it consists of, itself included."""
        found = {}
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == self.process.pid:  # its session
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        return found

    def edges(self) -> set[int]:
        return {pid for pid, line in self.processes().items() if "headrace.web.server.edge" in line}

    def fork_servers(self) -> set[int]:
        own = {pid: line for pid, line in self.processes().items() if "headrace.web.server.fork_server" in line}
        return {pid for pid in own if _parent(pid) not in own}

    def workers(self) -> set[int]:
        own = {pid: line for pid, line in self.processes().items() if "headrace.web.server.fork_server" in line}
        return {pid for pid in own if _parent(pid) in own}


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextmanager
def serve(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[WebProcess]:
    """A server that is ready; on a free port, unless it is given one."""
    given = any(name in arguments for name in ("--port", "--uds", "--bind"))
    patient = {"HEADRACE_WEB__QUEUE_TIMEOUT": "1m", **(env or {})}  # for workers that start on a busy machine
    one = WebProcess(folder, *arguments, *(() if given else ("--port", "0")), env=patient)
    try:
        one.wait_ready()
        yield one
    finally:
        one.end()


__all__ = ["WebProcess", "command", "run_to_end", "serve", "wait_until"]
