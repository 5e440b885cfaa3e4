"""The fork server: a fresh interpreter that imports the app once and forks the workers from there.

Forking is safe because nothing else runs here: no loop, no thread, one channel that is read between forks. A worker
starts in milliseconds, shares the memory of the import, and runs the code that this generation has imported, whatever
the files say by now. Without --preload each worker imports for itself.

A fork returns from `ForkServer.run` in the child: the worker runs with an empty stack, and ends as a program ends, with its
`atexit` functions.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headrace.settings import load as load_settings
from headrace.web.server import control
from headrace.web.server.control import BlockingControlChannel
from headrace.web.server.process import clear, import_apps, report_failure, set_up
from headrace.web.server.reconciler import KILL_AFTER_S
from headrace.web.server.worker import run_worker
from headrace.web.server.worker_job import EXIT_FAILED, WorkerJob
from headrace.web.settings import WebSettings

_log: Final = logging.getLogger("headrace.web")


class ForkServer:
    """Forks workers, reports their end to the supervisor, and exits after its last child."""

    def __init__(self, channel: BlockingControlChannel, boot: control.Boot, apps: dict[str, Any]) -> None:
        self._channel = channel
        self._boot = boot
        self._apps = apps
        self._settings = load_settings(WebSettings, boot.settings)
        self._children: dict[int, int] = {}
        """Process id → worker."""
        self._leaving = False
        self._kill_at_s: float | None = None
        self._wake, waker = socket.socketpair()
        self._wake.setblocking(False)
        waker.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)

    def run(self) -> WorkerJob | None:
        """Serve the supervisor. Returns None at the end; in a child: what it has to do."""
        while not (self._leaving and not self._children):
            readable, _, _ = select.select(self._sources(), [], [], 0.5 if self._leaving else None)
            if self._wake in readable:
                self._drop_wakes()
            self._reap()
            if self._channel in readable:
                job = self._obey(self._channel.read())
                if job is not None:
                    return job
            self._end_overdue()
        return None

    def _sources(self) -> list[Any]:
        return [self._wake] if self._channel.lost else [self._wake, self._channel]

    def _obey(self, messages: list[control.Message] | None) -> WorkerJob | None:
        if messages is None:
            # The supervisor is gone: the workers have seen it, too, and drain by themselves.
            self._leave(self._settings.drain)
            return None
        for message in messages:
            match message:
                case control.Fork(worker, index):
                    job = self._fork(worker, index)
                    if job is not None:
                        return job
                case control.Kill(worker):
                    self._kill(worker)
                case control.Leave(grace_s):
                    self._leave(grace_s)
        return None

    def _leave(self, grace_s: float) -> None:
        self._leaving = True
        self._kill_at_s = time.monotonic() + grace_s + KILL_AFTER_S + 1.0
        for number in self._boot.sockets:  # a client must not wait in the backlog of a server that ends
            with suppress(OSError):
                os.close(number)

    def _fork(self, worker: int, index: int) -> WorkerJob | None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._children[pid] = worker
            return None
        self._become_child()
        return WorkerJob(worker, index, parent, self._boot, self._settings, self._apps)

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._channel.close()
        self._wake.close()
        self._waker.close()
        numpy = sys.modules.get("numpy")
        if numpy is not None:  # the standard library's generators reseed themselves
            numpy.random.seed()

    def _kill(self, worker: int) -> None:
        for pid, number in self._children.items():
            if number == worker:
                os.kill(pid, signal.SIGKILL)

    def _end_overdue(self) -> None:
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
            for pid in self._children:
                os.kill(pid, signal.SIGKILL)
            self._kill_at_s = None

    def _reap(self) -> None:
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                code = os.waitstatus_to_exitcode(status)
                self._channel.send(control.Exited(self._children.pop(pid), code))

    def _drop_wakes(self) -> None:
        try:
            self._wake.recv(4_096)
        except BlockingIOError:
            return


def main() -> int:
    """`python -m headrace.web.server.fork_server CONTROL WORKER_GROUP GENERATION`. Started by the supervisor only."""
    path, worker_group, generation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    channel = BlockingControlChannel(path)
    channel.send(control.Hello("fork_server", os.getpid(), generation, worker_group))
    boot = channel.receive()
    if not isinstance(boot, control.Boot):
        return 0
    settings = load_settings(WebSettings, boot.settings)
    set_up(settings)
    apps: dict[str, Any] = {}
    if settings.preload:
        try:
            apps = import_apps(boot.apps, settings)
        except BaseException as error:  # noqa: BLE001 - a module that is imported may do anything, sys.exit too
            report_failure(channel, "the app could not be imported", error)
            return EXIT_FAILED
        _check_threads()
    gc.collect()
    gc.freeze()  # a collection in a worker would write to the pages that it shares with the others
    fork_server = ForkServer(channel, boot, apps)
    channel.send(control.Ready())
    job = fork_server.run()
    if job is not None:
        return run_worker(job, path, worker_group)
    if channel.lost:
        clear(path)
    return 0


def _check_threads() -> None:
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        _log.warning(
            "importing the app started threads (%s); they do not exist in the workers. Start them when the app starts"
            " (lifespan, first request), or use --preload off",
            ", ".join(others),
            extra={"action": "web.preload.threads", "threads": len(others)},
        )


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
