"""USR2: a new supervisor takes over the listening sockets while the old one serves on.

No client waits and none is refused: both supervisors have the same sockets, and the old one drains only after the new one
has reported through a pipe that it serves. If the new one exits before that, the old one continues.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from headrace.web.server.sockets import export

_log: Final = logging.getLogger("headrace.web")

_READY_VARIABLE: Final = "HEADRACE_UPGRADE_READY"


class Upgrade:
    """Starts a new supervisor, at most one at a time."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = -1

    def start(self, sockets: Sequence[socket.socket], admin: Sequence[socket.socket]) -> None:
        """Start the version that is installed now, with the arguments of this process."""
        if self._process is not None:
            return
        self._reader, writer = os.pipe()
        environment = {**os.environ, **export(sockets, admin), _READY_VARIABLE: str(writer)}
        passed = [writer, *(one.fileno() for one in (*sockets, *admin))]
        self._process = subprocess.Popen(  # noqa: S603 - the very command that started this process
            [sys.executable, *sys.orig_argv[1:]], env=environment, pass_fds=passed
        )
        os.close(writer)
        _log.info("a new supervisor is started", extra={"action": "web.upgrade.started", "pid": self._process.pid})
        asyncio.get_running_loop().add_reader(self._reader, self._on_ready_pipe)

    def _on_ready_pipe(self) -> None:
        ready = bool(os.read(self._reader, 1))
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)
        process, self._process = self._process, None
        if ready and process is not None:
            # From here on it is on its own: not our child to wait for.
            process.returncode = 0
            _log.info("the new supervisor serves", extra={"action": "web.upgrade.done", "pid": process.pid})
            self._on_ready()
        elif process is not None:
            process.kill()  # it has ended, as a rule; one that only lost the pipe must neither serve later nor be waited for
            process.wait()
            _log.error("the new supervisor has failed; this one goes on", extra={"action": "web.upgrade.failed"})


def notify_predecessor() -> None:
    """Report to the supervisor that this one replaces, if there is one."""
    writer = os.environ.pop(_READY_VARIABLE, "")
    if writer:
        with suppress(BrokenPipeError):  # the old one has ended meanwhile
            os.write(int(writer), b"1")
        os.close(int(writer))
