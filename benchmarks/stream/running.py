"""Run a measurement in a process of its own, with a bound on its time, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent
STOP_TIMEOUT_S: Final = 10
LOG_END_CHARACTERS: Final = 1_500


def run(module: str, *arguments: object, timeout_s: float, log: Path) -> dict[str, Any]:
    """What `python -m benchmarks.stream.MODULE ARGUMENTS… --spawned-s NOW` prints as its last line, which is JSON.

    Raises:
        RuntimeError: it failed or took too long; the text has the end of its log.
    """
    with started(module, *arguments, log=log) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{module} {arguments[0]} took more than {timeout_s:.0f} s") from None
        if process.returncode:
            raise RuntimeError(f"{module} {arguments[0]} failed: {_end(log)}")
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


@contextmanager
def started(module: str, *arguments: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, in a group of its own; the whole group has ended when the block has."""
    temporary = log.parent / "tmp"  # what a process that was killed leaves there, goes with the folder
    temporary.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"benchmarks.stream.{module}", *map(str, arguments)]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--spawned-s", str(time.monotonic())],
            cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    """Ask, then insist. Its children too: Spark's Java outlives a Python that was killed."""
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _end(log: Path) -> str:
    """The last line that is not the continuation of another: what a traceback ends with."""
    lines = log.read_text(errors="replace")[-LOG_END_CHARACTERS:].splitlines()
    return next((line for line in reversed(lines) if line[:1].strip()), "it said nothing")
