"""What a figure depends on: the machine, its disk, and what processes have used."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any, Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in read(children).split()]
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of the process, its living descendants, and those it has waited for."""
    return sum(_ticks(member) for member in tree(pid)) / TICKS_PER_S


def _ticks(pid: int) -> int:
    # The second field, the name in brackets, may hold spaces: count from behind it. 14 to 17: utime stime cutime cstime.
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15])


def memory_mib(pid: int) -> float:
    """Resident memory of the process and its descendants, shared pages counted in each."""
    pages = (read(Path(f"/proc/{member}/statm")).split() for member in tree(pid))
    return sum(int(fields[1]) for fields in pages if fields) * PAGE_BYTES / 1_048_576


def own_memory_mib(pid: int) -> float:
    """Memory of the process and its descendants, each shared page divided among those that share it (PSS)."""
    rollups = (read(Path(f"/proc/{member}/smaps_rollup")) for member in tree(pid))
    found = (re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE) for text in rollups)
    return sum(int(match[1]) for match in found if match) / 1_024


def read(path: Path) -> str:
    """The file's text; empty when the process has gone meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""


def sync_ms(folder: Path, rounds: int = 100) -> float:
    """Median of writing 4 KiB over blocks already written and syncing them: what a commit costs at least here."""
    path = folder / "sync-probe"
    page = os.urandom(4_096)
    took = []
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for number in range(rounds):
            started = time.perf_counter()
            os.pwrite(descriptor, page, 4_096 * (number % 16))
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(took[16:]) * 1_000


def describe(folder: Path) -> dict[str, Any]:
    """The facts without which a figure means nothing; `folder` is where the data of the servers lies."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file_system": _file_system(folder),
        "sync_p50_ms": round(sync_ms(folder), 3),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    for line in read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _file_system(folder: Path) -> str:
    """The type of the file system that holds the folder: the longest mount point above it."""
    target = folder.resolve()
    mounts = (line.split() for line in read(Path("/proc/self/mounts")).splitlines())
    above = [(len(point), kind) for _, point, kind, *_ in mounts if target.is_relative_to(point)]
    return max(above)[1] if above else "unknown"
