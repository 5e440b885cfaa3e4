"""The processes of one app: its fork servers and workers. `headrace.web.server.reconciler` decides which should exist."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.children import ending
from headrace.settings import dump
from headrace.web.server import control, reconciler
from headrace.web.server.control import ControlChannel
from headrace.web.server.reconciler import WorkerReconciler
from headrace.web.settings import WebSettings

_log: Final = logging.getLogger("headrace.web")

IDLE_S: Final = 1.0
"""How long a replaced process keeps idle connections: busy clients send their next request within this time."""


@dataclass(frozen=True, slots=True)
class WorkerGroupConfig:
    """The configuration of a worker group."""

    control: Path
    apps: Sequence[str]
    links: Sequence[Sequence[str]]
    """Sockets of the edges, for each app; empty in direct mode."""
    sockets: Sequence[int]
    """Listening sockets to inherit, in direct mode."""


class WorkerGroup:
    """Carries out the actions of its reconciler, and reports events to it. Call `reconcile` after every change."""

    def __init__(
        self,
        number: int,
        config: WorkerGroupConfig,
        settings: WebSettings,
        *,
        workers: int,
        on_change: Callable[[WorkerGroup], None],
        on_start_failed: Callable[[str], None],
        on_ended: Callable[[bytes], None],
    ) -> None:
        """Args:
        on_ended: called with the last statistics of a process that has ended.
        """
        self.number = number
        self.config = config
        self.settings = settings
        self.reconciler = WorkerReconciler(workers, drain_s=float(settings.drain))
        self.interface = ""
        self.statistics: dict[int, bytes] = {}
        """Worker → what it reported last, in direct mode."""
        self.reload_failure = ""
        """Why the last reload, or the start, failed; empty if it did not."""
        self._on_change = on_change
        self._on_start_failed = on_start_failed
        self._on_ended = on_ended
        self._idle_s = IDLE_S
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fork_servers: dict[int, subprocess.Popen[bytes]] = {}
        self._fork_server_channels: dict[int, ControlChannel] = {}
        self._worker_channels: dict[int, ControlChannel] = {}
        self._reasons: dict[int, str] = {}
        """Generation → what its fork server said before it ended."""

    # What the supervisor does

    def reconcile(self) -> None:
        """Carry out the actions that are due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._loop.time()
        for action in self.reconciler.advance(now_s):
            self._perform(action)
        due_s = self.reconciler.due_s(now_s)
        if due_s is not None:
            self._timer = self._loop.call_at(due_s, self.reconcile)
        self._on_change(self)

    def reload(self, settings: WebSettings) -> None:
        self.settings = settings
        self.reconciler.drain_s = float(settings.drain)
        self.reload_failure = ""
        self.reconciler.reload()
        self.reconcile()

    def roll_back(self, settings: WebSettings, *, workers: int) -> None:
        """A reload has failed, here or elsewhere: processes that start from now on get the previous settings."""
        self.settings = settings
        self.reconciler.drain_s = float(settings.drain)
        self.reconciler.resize(workers)
        self.reconcile()

    def limit_reload_wait(self) -> None:
        self.reconciler.limit_reload_wait()
        self.reconcile()

    def resume(self, settings: WebSettings, *, workers: int) -> None:
        """Start again, after a drain."""
        self.settings = settings
        self.reload_failure = ""
        self._idle_s = IDLE_S
        self.reconciler.drain_s = float(settings.drain)
        self.reconciler.resize(workers)
        self.reconciler.resume()
        self.reconcile()

    def resize(self, change: int) -> None:
        self.reconciler.resize(self.reconciler.wanted + change)
        _log.info(
            "%d workers from now on",
            self.reconciler.wanted,
            extra={"action": "web.resized", "workers": self.reconciler.wanted},
        )
        self.reconcile()

    def drain(self, grace_s: float, *, idle_s: float) -> None:
        self.reconciler.drain_s, self._idle_s = grace_s, idle_s
        self.reconciler.drain()
        self.reconcile()

    def mark_hung(self, pid: int) -> bool:
        """A request in this process hangs. Returns whether the process belongs to this group."""
        if not any(worker.pid == pid for worker in self.reconciler.workers.values()):
            return False
        _log.warning("a request hangs in a worker", extra={"action": "web.worker.hung", "pid": pid})
        self.reconciler.mark_hung(pid, self._loop.time())
        self.reconcile()
        return True

    def kill(self) -> None:
        """Kill all processes of the group."""
        for number in self._worker_channels:
            self._kill_by_pid(number)
        for process in self._fork_servers.values():
            process.kill()
            process.wait()

    def announce_shutdown(self) -> None:
        for channel in self._worker_channels.values():
            channel.send(control.ShuttingDown())

    def reopen_logs(self) -> None:
        for channel in self._worker_channels.values():
            channel.send(control.Reopen())

    @property
    def finished(self) -> bool:
        return self.reconciler.finished and not self._fork_servers

    def reap(self) -> None:
        """Look which fork servers have ended."""
        for generation, process in list(self._fork_servers.items()):
            code = process.poll()
            if code is not None:
                del self._fork_servers[generation]
                reason = self._reasons.pop(generation, f"the process that imports the app has ended ({ending(code)})")
                if generation in self.reconciler.generations:  # else it was stopped
                    _log.warning(
                        reason, extra={"action": "web.fork_server.ended", "generation": generation, "code": code}
                    )
                    self.reconciler.fork_server_gone(generation, reason, self._loop.time())
                self.reconcile()

    # Processes that connect

    def attach(self, channel: ControlChannel, hello: control.Hello) -> None:
        if hello.role == "fork_server":
            self._fork_server_channels[hello.number] = channel
            channel.on_message = lambda _, message: self._from_fork_server(hello.number, message)
            channel.on_lost = lambda _: self._drop_fork_server(hello.number)
            channel.send(self._boot(hello.number))
        elif self.reconciler.worker_connected(hello.number, hello.pid):
            self._worker_channels[hello.number] = channel
            channel.on_message = lambda _, message: self._from_worker(hello.number, message)
            channel.on_lost = lambda _: self._drop_worker(hello.number)
            if (
                self.reconciler.workers[hello.number].stage is reconciler.LEAVING
            ):  # the message could not be sent before
                channel.send(control.Leave(0.0))
        else:
            channel.send(control.Leave(0.0))

    def _boot(self, generation: int) -> control.Boot:
        config = self.config
        return control.Boot(
            settings=dump(self.settings),
            apps=list(config.apps),
            links=[list(paths) for paths in config.links],
            sockets=list(config.sockets),
            generation=generation,
            shared=len(config.sockets) < self.reconciler.wanted,
        )

    def _drop_fork_server(self, generation: int) -> None:
        self._fork_server_channels.pop(generation, None)
        for worker in list(self.reconciler.workers.values()):
            # Workers whose channel was lost before: their end would have been reported by the fork server.
            if worker.generation == generation and worker.pid and worker.number not in self._worker_channels:
                self._worker_gone(worker.number, "it is gone, and so is its fork server")

    def _drop_worker(self, number: int) -> None:
        self._worker_channels.pop(number, None)
        record = self.statistics.pop(number, b"")
        if record:
            self._on_ended(record)
        worker = self.reconciler.workers.get(number)
        # Its fork server reports how it has ended, unless that is gone itself.
        if worker is not None and worker.generation not in self._fork_server_channels:
            self._worker_gone(number, "it is gone, and so is its fork server")

    def _from_fork_server(self, generation: int, message: control.Message) -> None:
        match message:
            case control.Ready():
                self.reconciler.fork_server_ready(generation)
            case control.Failed(reason):
                self._reasons[generation] = reason
                return  # its end is what counts
            case control.Exited(worker, code):
                self._worker_gone(worker, ending(code))
                return
        self.reconcile()

    def _from_worker(self, number: int, message: control.Message) -> None:
        worker = self.reconciler.workers.get(number)
        if worker is None:
            return
        now_s = self._loop.time()
        match message:
            case control.Report(requests, in_flight, rss_bytes, statistics):
                worker.requests, worker.in_flight, worker.rss_bytes = requests, in_flight, rss_bytes
                worker.last_report_s = now_s
                if statistics:
                    self.statistics[number] = statistics
                return
            case control.Ready(interface):
                self.interface = interface
                worker.concurrent = interface == "asgi"
                self.reconciler.worker_ready(number, now_s)
            case control.Serving():
                self.reconciler.worker_serving(number, now_s)
            case control.Failed(reason):
                self.reconciler.worker_failed(number, reason, now_s)
            case control.RequestTimedOut(pid):
                self.mark_hung(pid)
                return
            case control.Retire(reason):
                ids = {"action": "web.worker.retiring", "worker": number, "pid": worker.pid}
                _log.info("a worker is replaced: %s", reason, extra=ids)
                self.reconciler.retire(number)
        self.reconcile()

    def _worker_gone(self, number: int, how: str) -> None:
        worker = self.reconciler.workers.get(number)
        if worker is None:
            return
        expected = worker.stage is reconciler.LEAVING
        _log.log(
            logging.INFO if expected else logging.WARNING,
            "a worker has ended: %s",
            how,
            extra={"action": "web.worker.ended", "worker": number, "pid": worker.pid, "requests": worker.requests},
        )
        self.reconciler.worker_gone(number, self._loop.time(), reason=f"a worker of it has ended: {how}")
        self.reconcile()

    # What the reconciler decides

    def _perform(self, action: reconciler.Action) -> None:
        match action:
            case reconciler.StartForkServer(generation):
                self._start_fork_server(generation)
            case reconciler.StopForkServer(generation):
                self._send(self._fork_server_channels.get(generation), control.Leave(self.reconciler.drain_s))
            case reconciler.KillForkServer(generation):
                if generation in self._fork_servers:
                    self._fork_servers[generation].kill()
            case reconciler.ForkWorker(generation, worker, index):
                self._send(self._fork_server_channels.get(generation), control.Fork(worker, index))
            case reconciler.ServeWorker(worker):
                self._send(self._worker_channels.get(worker), control.Serve())
            case reconciler.LeaveWorker(worker, grace_s):
                self._send(self._worker_channels.get(worker), control.Leave(grace_s, self._idle_s))
            case reconciler.KillWorker(worker):
                self._kill_worker(worker)
            case reconciler.ReloadDone(generation):
                ids = {"action": "web.reloaded", "generation": generation}
                _log.info("the new code serves: %s", ", ".join(self.config.apps), extra=ids)
            case reconciler.ReloadFailed(generation, reason):
                self.reload_failure = reason
                ids = {"action": "web.reload.failed", "generation": generation}
                _log.error("reload failed, the previous code keeps serving: %s", reason, extra=ids)
            case reconciler.StartFailed(reason):
                self.reload_failure = reason
                self._on_start_failed(reason)

    def _start_fork_server(self, generation: int) -> None:
        self._fork_servers[generation] = spawn(
            "headrace.web.server.fork_server",
            [str(self.config.control), str(self.number), str(generation)],
            sockets=self.config.sockets,
        )

    def _kill_worker(self, number: int) -> None:
        worker = self.reconciler.workers[number]
        ids = {"action": "web.worker.killed", "worker": number, "pid": worker.pid}
        _log.warning("a worker is killed", extra=ids)
        fork_server = self._fork_server_channels.get(worker.generation)
        if fork_server is not None:
            fork_server.send(control.Kill(number))
        elif number in self._worker_channels:
            self._kill_by_pid(number)

    def _kill_by_pid(self, number: int) -> None:
        """As long as its channel is open it has not ended, and its process id is not reused."""
        worker = self.reconciler.workers.get(number)
        if worker is not None and worker.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    @staticmethod
    def _send(channel: ControlChannel | None, message: control.Message) -> None:
        if channel is not None:
            channel.send(message)


def spawn(module: str, arguments: Sequence[str], *, sockets: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a new interpreter that runs a module of headrace.

    `-P`: a file `select.py` where the server was started is the app's business, not ours.
    """
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", module, *arguments], pass_fds=sockets, stdin=subprocess.DEVNULL
    )
