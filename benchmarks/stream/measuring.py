"""What one measurement costs: by the process that runs it, over itself and its children (Spark's is Java)."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine


@dataclass
class Usage:
    """Attributes:
    start_s: from the process's start until it could begin: imports, and Spark's session.
    seconds, cpu_s: of the work.
    first_s: until the first batch was done.
    peak_mib: resident, of all processes together, each at its highest.
    rows: that came out.
    """

    start_s: float
    seconds: float
    cpu_s: float
    first_s: float
    peak_mib: float
    rows: int

    def print(self) -> None:
        """For the process that waits for it."""
        print(json.dumps(asdict(self)), flush=True)


class Stopwatch:
    """From its making on. `spawned_s`: when this process was started, on the machine's monotonic clock."""

    def __init__(self, spawned_s: float) -> None:
        self._spawned_s = spawned_s
        self._cpu_s = machine.cpu_s(os.getpid())
        self._started_s = time.monotonic()
        self._first_s: float | None = None

    def first(self) -> None:
        """A batch is done; only the first call counts."""
        if self._first_s is None:
            self._first_s = time.monotonic()

    def stop(self, rows: int) -> Usage:
        now_s = time.monotonic()
        return Usage(
            start_s=self._started_s - self._spawned_s,
            seconds=now_s - self._started_s,
            cpu_s=machine.cpu_s(os.getpid()) - self._cpu_s,
            first_s=(self._first_s or now_s) - self._started_s,
            peak_mib=peak_mib(os.getpid()),
            rows=rows,
        )


def peak_mib(pid: int) -> float:
    """The highest resident memory of the process and its living descendants, each for itself."""
    found = (re.search(r"^VmHWM:\s+(\d+) kB", status(member), re.MULTILINE) for member in machine.tree(pid))
    return sum(int(match[1]) for match in found if match) / 1_024


def status(pid: int) -> str:
    return machine.read(Path(f"/proc/{pid}/status"))


def slope_s(measure: Callable[[int], float], *, few: int, many: int) -> float:
    """What one more costs: many less few, so that what is paid once does not count."""
    return (measure(many) - measure(few)) / (many - few)
