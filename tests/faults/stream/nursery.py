"""Processes that are born in milliseconds: forked from one that has loaded everything. And where they die.

`headrace stream run` needs about a second of CPU to load DuckDB and pyarrow. A campaign of fifty kills has better things to
do. The processes are real ones: with pid, memory, threads and connections of their own.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tests.patience import PATIENCE_S

When: TypeAlias = Literal["before", "after"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "pytest",
        "headrace.cli.stream",
        "headrace.cli.stream_file",
        "headrace.cli.stream_live",
        "headrace.stream.runner",
        "headrace.native.client",
        "numpy",
        "pyarrow.parquet",
        "tests.faults.stream.nursery",
    ]
)


@dataclass(frozen=True)
class Fault:
    """What happens to a process when it gets to a place of the product, without the product knowing.

    Attributes:
        place: `module:Class.method` or `module:function`.
        when: before the call, or behind it.
        number: of the call: 1 is the first.
        sent: SIGKILL: it dies there. SIGSTOP: it freezes there, until somebody lets it go on.
    """

    place: str
    when: When
    number: int = 1
    sent: signal.Signals = signal.SIGKILL

    def arm(self) -> None:
        owner, name = self._found()
        setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _found(self) -> tuple[Any, str]:
        module, _, path = self.place.partition(":")
        *classes, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for one in classes:
            owner = getattr(owner, one)
        return owner, name

    def _wrapped(self, called: Callable[..., Any]) -> Callable[..., Any]:
        calls, lock = itertools.count(1), threading.Lock()

        @wraps(called)
        def wrapper(*arguments: Any, **more: Any) -> Any:
            with lock:
                due = next(calls) == self.number
            if due and self.when == "before":
                os.kill(os.getpid(), self.sent)
            try:
                return called(*arguments, **more)
            finally:
                if due and self.when == "after":
                    os.kill(os.getpid(), self.sent)

        return wrapper


class Process:
    """A process that calls `run(*arguments)`.

    Args:
        log: the file that its output goes to.
        fault: see Fault.
        limits: numbers of `headrace.stream.limits` that are others in it: times that a test cannot wait for.
    """

    def __init__(
        self,
        run: Callable[..., None],
        *arguments: Any,
        log: Path,
        fault: Fault | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        self.name = f"{run.__name__} {arguments}"
        self.log = log
        self._process = _context.Process(target=_live, args=(run, arguments, log, fault, dict(limits or {})))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.exitcode is None

    def send(self, number: signal.Signals) -> None:
        assert self.running, f"it has ended with {self._process.exitcode}: {self.text}"
        os.kill(self.pid, number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """The exit code; of one that was killed, the signal's number, negative."""
        self._process.join(within_s)
        code = self._process.exitcode
        assert code is not None, f"it has not ended within {within_s} s: {self.text}"
        return code

    def end(self, number: signal.Signals) -> int:
        """Send it the signal, and wait until it is gone."""
        self.send(number)
        return self.wait()

    def close(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    @property
    def text(self) -> str:
        return f"{self.name}\n{self.log.read_text() if self.log.exists() else ''}"


def command_line(*arguments: str) -> None:
    """The command line."""
    sys.argv = ["headrace", *arguments]
    importlib.import_module("headrace.cli.main").main()


def _live(
    run: Callable[..., None], arguments: Sequence[Any], log: Path, fault: Fault | None, limits: dict[str, float]
) -> None:
    _write_to(log)
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        del os.environ[name]
    our_limits = importlib.import_module("headrace.stream.limits")
    for name, value in limits.items():
        assert hasattr(our_limits, name), name
        setattr(our_limits, name, value)
    if fault is not None:
        fault.arm()
    run(*arguments)


def _write_to(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
