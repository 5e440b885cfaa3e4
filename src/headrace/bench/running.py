"""What all measurements share: processes of their own, what those cost, and the shape of a row."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from headrace.children import end_group, ending, spawn, wait_ready
from headrace.doctor.disk import percentile
from headrace.errors import StoreUnusable
from headrace.native.endpoint import is_served

START_S: Final = 60.0
STOP_S: Final = 20.0
Progress = Callable[[str, int, int], None]


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one kind of call did.

    Attributes:
        clients: how many called at once.
        a_second: what was measured: messages, requests, tasks, rows; syncs, for the disk; windows, for their latency.
        p50_ms, p99_ms, max_ms: how long a call took; None where there are no calls.
        cpu_us: CPU of the servers for one of them; None where it is not measured, or cannot be (outside Linux).
    """

    what: str
    clients: int
    a_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    cpu_us: float | None = None


def measured(
    what: str, clients: int, count: int, times_s: Sequence[float], passed_s: float, *, cpu_s: float | None = None
) -> Measured:
    """A row. Args: count: in `passed_s`; times_s: of each call, in any order, may be none; cpu_s: for all `count`."""
    ordered = sorted(times_s)
    p50, p99, most = (
        (round(percentile(ordered, part) * 1e3, 3) for part in (0.5, 0.99, 1.0)) if ordered else (None, None, None)
    )
    cpu_us = None if cpu_s is None else round(cpu_s / count * 1e6, 2)
    return Measured(what, clients, round(count / passed_s, 1), p50, p99, most, cpu_us)


@contextmanager
def term_ends_in_order() -> Iterator[None]:
    """Meanwhile TERM ends as Ctrl-C does: folders are removed and processes ended. Main thread only."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@asynccontextmanager
async def process(
    arguments: Sequence[str], folder: Path, is_ready: Callable[[], bool]
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A command of headrace while it is measured; it starts in `folder`, and is ended whatever happens.

    What is set in the environment and in a headrace.toml is not for it: figures are of the defaults.

    Raises:
        StoreUnusable: it has ended, or is not ready in time.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    started = spawn([*arguments, "--log-level", "error"], own_group=True, environ=environ, cwd=folder)
    try:
        if not await wait_ready(is_ready, started, within_s=START_S):
            code = started.poll()
            why = f"was not ready in {START_S:g} s" if code is None else f"has ended: {ending(code)}"
            raise StoreUnusable(str(folder), f"`headrace {arguments[0]}` {why}; is the path too long for a socket?")
        yield started
    finally:
        await asyncio.to_thread(_end, started)


def _end(started: subprocess.Popen[bytes]) -> None:
    started.terminate()
    try:
        started.wait(STOP_S)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
    finally:
        end_group(started.pid)


@asynccontextmanager
async def broker(data: Path) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A broker with a new data folder `data`, over its Unix socket. Raises StoreUnusable: it did not come up."""
    arguments = ["broker", "--data", str(data), "--port", "0"]
    async with process(arguments, data.parent, lambda: is_served(data)) as started:
        yield started


def cpu_s(pid: int) -> float | None:
    """CPU seconds of a process, its living descendants and those waited for; None where there is no /proc."""
    ticks = [_ticks(member) for member in _tree(pid)]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if any(ticks) else None


def cpu_since(pids: Sequence[int], before: Sequence[float | None]) -> float | None:
    """CPU seconds of all these processes since `before`, their `cpu_s` then."""
    now = [cpu_s(pid) for pid in pids]
    pairs = [(late, early) for late, early in zip(now, before, strict=True) if late is not None and early is not None]
    return sum(late - early for late, early in pairs) if len(pairs) == len(pids) else None


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in _read(children).split()]
    return found


def _ticks(pid: int) -> int:
    # The second field, the name in brackets, may hold spaces: count from behind it. 14 to 17: utime stime cutime cstime.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15])


def _read(path: Path) -> str:
    """Empty when the process has gone meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""
