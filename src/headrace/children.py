"""Processes that a supervisor of ours starts: how they are spawned, how they end with it, when they are started again.

For every parent: the web server's and the workers' supervisors, `headrace up`. What a parent does about an end is its own
rule; these are the parts that all of them need.

  spawn ──▶ ready ──▶ ended ──▶ Restarts.ended(now) says how long the next start waits
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
_DOUBLINGS_MAX: Final = 16
"""The longest wait is reached before; a float does not hold all powers of two."""
CRASH_S: Final = 3.0
"""A process that lived no longer has not died by chance: the next one waits, twice as long each time."""
CALM_S: Final = 30.0
"""Without such a death for so long, counting starts anew."""

_LOOK_EACH_S: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def spawn(
    arguments: Sequence[str],
    *,
    module: str = "headrace",
    own_group: bool = False,
    environ: Mapping[str, str] | None = None,
    **how: Any,
) -> subprocess.Popen[bytes]:
    """A fresh interpreter that runs a module of ours, `headrace` itself unless another is named.

    It gets TERM when the calling *thread* ends, however that ends (Linux): call it from the main thread. `-P`: a file
    `select.py` where the parent was started is the app's business, not ours.

    Args:
        arguments: of the module.
        own_group: in a process group of its own, so that Ctrl-C on the terminal reaches only the parent, which stops
            its children in order; `end_group` kills it with all that it has started.
        environ: instead of the parent's.
        how: more for `subprocess.Popen`: `pass_fds`, `stdout`, `stderr`, `cwd`. Standard input is empty.
    """
    parent = os.getpid()
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        env=environ,
        process_group=0 if own_group else None,
        preexec_fn=lambda: end_with(parent),  # noqa: PLW1509 - two calls of the kernel, nothing that threads could hold
        **how,
    )


def end_with(parent: int) -> None:
    """In the child: TERM when the parent dies. It would not know otherwise."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def end_group(group: int) -> None:
    """SIGKILL for a child with `own_group`, by its pid, and all that it has started, as far as they are in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def reap_strangers(own: Collection[int]) -> None:
    """Take note of the end of processes that are ours only since their parent is gone: as process 1 of a container, all
    orphans are. They would stay zombies for ever.

    Args: own: children whose end somebody else asks for; they are left alone.
    """
    with suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid in own:
                return
            os.waitpid(found.si_pid, 0)


def ending(code: int) -> str:
    """An exit code in words, as `Popen.returncode` has it: negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def backoff_s(crashes: int) -> float:
    """How long the next start waits after so many early deaths in a row (see CRASH_S); after none not at all."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(crashes - 1, _DOUBLINGS_MAX)) if crashes else 0.0


@dataclass(slots=True)
class Restarts:
    """When a child may be started again; or the children of a fleet, whose early deaths count together. Pure: `now_s` is
    any monotonic time."""

    crashes: int = 0
    """Early deaths in a row."""
    since_s: float = 0.0
    """When it was started last."""
    _crashed_s: float = -CALM_S

    def started(self, now_s: float) -> None:
        self.since_s = now_s

    def ended(self, now_s: float) -> float:
        """It has ended, unasked. Returns: seconds until it is to be started again."""
        if now_s - self.since_s >= CRASH_S:
            self.crashes = 0
            return 0.0
        return self.crashed(now_s)

    def crashed(self, now_s: float) -> float:
        """It has died early. Returns: as `ended`."""
        if now_s - self._crashed_s >= CALM_S:
            self.crashes = 0
        self.crashes += 1
        self._crashed_s = now_s
        return backoff_s(self.crashes)


async def wait_ready(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], *, within_s: float) -> bool:
    """Until `is_ready`, the process has ended or the time is over. Returns whether it is ready.

    Args:
        is_ready: asked again and again; must not block for long.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while process.poll() is None and loop.time() < deadline_s:
        if is_ready():
            return True
        await asyncio.sleep(_LOOK_EACH_S)
    return False
