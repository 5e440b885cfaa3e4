"""wrk as the load: a closed loop over kept connections, two system calls and a microsecond or two a request."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.web.plan import CONNECTIONS
from benchmarks.web.running import Running

SCRIPT: Final = Path(__file__).parent / "report.lua"
THREADS: Final = 2


class NoWrk(Exception):
    """wrk is not installed."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured, and what all of the server's processes used meanwhile."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_s: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU a request, of all processes."""
        return self.cpu_s / max(1, self.requests) * 1e6


def find() -> str:
    """The program.

    Raises:
        NoWrk: it is not installed; says how to.
    """
    program = shutil.which("wrk")
    if program is None:
        raise NoWrk("wrk is not installed (Debian: apt-get install wrk)")
    return program


def load(server: Running, path: str, *, seconds: int, connections: int = CONNECTIONS) -> Load:
    """Load the server for so long.

    Raises:
        RuntimeError: wrk failed, or nothing was answered.
    """
    command = [
        find(), "--threads", str(min(THREADS, connections)), "--connections", str(connections), "--timeout", "10",
        "--duration", f"{seconds}s", "--script", str(SCRIPT), f"http://127.0.0.1:{server.port}{path}",
    ]  # fmt: skip
    before_s = server.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    used_s = server.cpu_s() - before_s
    if done.returncode != 0:
        raise RuntimeError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return read(done.stdout, used_s)


def read(output: str, cpu_s: float) -> Load:
    """The last line of wrk's output, which report.lua has written.

    Raises:
        RuntimeError: no request was answered.
    """
    found = json.loads(output.strip().splitlines()[-1])
    if not found["requests"]:
        raise RuntimeError("no request was answered")
    return Load(
        requests=found["requests"],
        seconds=found["seconds"],
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        failed=found["refused"] + found["broken"],
        cpu_s=cpu_s,
    )
