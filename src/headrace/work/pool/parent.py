"""The parent: starts the children, replaces those that end, and ends them in order. What should be is `fleet`'s to decide.

It imports no app: whatever goes wrong there cannot take it along. A child tells it which broker the app names; if that
is a folder that nobody serves, the parent starts a broker on it. Children are fresh interpreters, never forks.

    TERM, INT   children fetch nothing any more, finish what runs, give back the rest → exit 0; INT again: at once
    HUP         children with new code, slot by slot; what runs in the old ones is finished there
    TTIN, TTOU  a process more, or less
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen, SubprocessError
from typing import Final

from headrace.children import end_group, ending, spawn
from headrace.managed_broker import ManagedBroker
from headrace.native.endpoint import SOCKET_NAME, is_served
from headrace.process import notify_systemd, raise_descriptor_limit
from headrace.settings import SettingsError, dump
from headrace.work.pool import control, reconciler
from headrace.work.pool.limits import LOOK_S
from headrace.work.pool.metrics import HOST, Exposition, Snapshot, Totals
from headrace.work.pool.reconciler import LEAVING, WORKING, WorkerReconciler
from headrace.work.pool.shared_status import SharedStatus
from headrace.worker_settings import WorkerSettings

_log: Final = logging.getLogger("headrace.work")
CHILD: Final = "headrace.work.pool.child"


@dataclass(slots=True)
class Process:
    """A child as the parent sees it."""

    number: int
    popen: Popen[bytes]
    line: socket.socket
    board: SharedStatus
    received: bytearray = field(default_factory=bytearray)
    failure: str = ""
    """Why it cannot start, as it has said itself."""

    @property
    def ids(self) -> dict[str, object]:
        return {"child": self.number, "pid": self.popen.pid}

    def tell(self, message: control.Message) -> None:
        try:
            self.line.sendall(control.encode(message))
        except OSError:
            return  # it has ended: SIGCHLD tells


class Parent:
    """`run` until stopped; on one loop, in the main thread."""

    def __init__(self, settings: WorkerSettings, *, reread: Callable[[], WorkerSettings]) -> None:
        """Args:
        reread: reads the settings anew, for HUP. Raises SettingsError.
        """
        self.settings = settings
        self._reread = reread
        self._loop = asyncio.get_running_loop()
        self._reconciler = WorkerReconciler(settings.processes, drain_s=float(settings.drain))
        self._processes: dict[int, Process] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-work-"))
        self._broker: ManagedBroker | None = None
        self._target: asyncio.Task[str] | None = None
        self._before = settings
        """The settings of before the reload that is under way."""
        self._again = False
        """Another reload is to follow it; it reads the settings when it begins."""
        self._totals = Totals()
        self._exposition: Exposition | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._failure = ""
        self._was_ready = False

    async def run(self) -> int:
        """The exit code: 0 stopped, 1 the app or the broker could not be used at the start."""
        raise_descriptor_limit()
        self._obey_signals()
        looking = asyncio.ensure_future(self._look_again_and_again())
        try:
            self._expose()
            self._step()
            while not (self._reconciler.over and not self._processes):
                self._changed.clear()
                await self._changed.wait()
        finally:
            looking.cancel()
            if self._exposition is not None:
                await self._exposition.close()
            await self._stop_broker()
            shutil.rmtree(self._folder, ignore_errors=True)
        _log.info("stopped", extra={"action": "work.stopped"})
        return 1 if self._failure else 0

    def _expose(self) -> None:
        """Raises AddressUnusable."""
        port = self.settings.metrics_port
        if port:
            self._exposition = Exposition(self._snapshot, lambda: self._healthy(time.monotonic()))
            self._exposition.open(port)
            url = f"http://{HOST}:{port}/metrics"
            _log.info("metrics at %s", url, extra={"action": "work.metrics", "url": url})

    def _snapshot(self) -> Snapshot:
        stages = dict.fromkeys(("starting", "working", "leaving"), 0)
        for child in self._reconciler.children.values():
            stages[child.stage.name.lower()] += 1
        return Snapshot(self._totals.tasks(), self._totals.reports, stages, self._reconciler.restarts)

    # Signals

    def _obey_signals(self) -> None:
        for number, react in {
            signal.SIGTERM: self._drain,
            signal.SIGINT: self._interrupt,
            signal.SIGQUIT: lambda: self._drain(0.0),
            signal.SIGHUP: self._reload,
            signal.SIGTTIN: lambda: self._resize(1),
            signal.SIGTTOU: lambda: self._resize(-1),
            signal.SIGCHLD: self._reap,
        }.items():
            self._loop.add_signal_handler(number, react)

    def _interrupt(self) -> None:
        if not self._reconciler.draining:
            self._drain()
            return
        _log.warning("ended at once", extra={"action": "work.ended"})
        for process in self._processes.values():
            end_group(process.popen.pid)
        if self._broker is not None:
            self._broker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)

    def _drain(self, drain_s: float | None = None) -> None:
        if not self._reconciler.draining:
            _log.info("stopping", extra={"action": "work.stopping"})
            notify_systemd("STOPPING=1")
        self._reconciler.drain(drain_s)
        self._step()

    def _reload(self) -> None:
        if self._reconciler.draining:
            return
        if self._reconciler.reloading:
            self._again = True
            return
        try:
            settings = self._reread()
        except SettingsError as error:
            _log.error("not reloaded: %s", error, extra={"action": "work.reload.failed"})
            return
        self._before, self.settings = self.settings, settings
        self._reconciler.drain_s = float(settings.drain)
        self._reconciler.reload()
        _log.info("new code is loaded", extra={"action": "work.reloading"})
        self._step()

    def _follow_up(self) -> None:
        if self._again:
            self._again = False
            self._loop.call_soon(self._reload)

    def _resize(self, change: int) -> None:
        self._reconciler.resize(self._reconciler.wanted + change)
        wanted = self._reconciler.wanted
        _log.info("%d processes from now on", wanted, extra={"action": "work.resized", "processes": wanted})
        self._step()

    # Children

    def _step(self) -> None:
        """Carry out what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = self._loop.time()
        for action in self._reconciler.advance(now_s):
            self._do(action)
        due_s = self._reconciler.due_s(now_s)
        if due_s is not None:
            self._timer = self._loop.call_at(due_s, self._step)
        self._changed.set()

    def _do(self, action: reconciler.Action) -> None:
        match action:
            case reconciler.Start(number, slot):
                self._start(number, slot)
            case reconciler.Leave(number, drain_s):
                if number in self._processes:
                    self._processes[number].tell(control.Leave(drain_s))
            case reconciler.Kill(number):
                self._kill(number)
            case reconciler.ReloadDone():
                self._reconciler.resize(self.settings.processes)
                _log.info("the new code works in all processes", extra={"action": "work.reloaded"})
                self._loop.call_soon(self._step)
                self._follow_up()
            case reconciler.ReloadFailed(reason):
                self.settings = self._before
                _log.error("not reloaded, the old code goes on: %s", reason, extra={"action": "work.reload.failed"})
                self._follow_up()
            case reconciler.StartFailed(reason):
                self._failure = reason
                _log.error("cannot start: %s", reason, extra={"action": "work.start.failed"})
                self._loop.call_soon(self._drain, 0.0)

    def _start(self, number: int, slot: int) -> None:
        """One that the system has no room for is tried again, as one that has ended early."""
        try:
            process = self._processes[number] = self._spawn(number, slot)
        except (OSError, SubprocessError) as error:
            ids = {"action": "work.child.ended", "child": number, "ending": str(error)}
            _log.error("a process cannot be started: %s", error, extra=ids)
            self._reconciler.child_gone(number, self._loop.time(), reason=f"it cannot be started: {error}")
            return
        self._loop.add_reader(process.line, self._read, process)
        _log.debug("a process has been started", extra={"action": "work.child.started", **process.ids})

    def _spawn(self, number: int, slot: int) -> Process:
        """Raises: OSError, SubprocessError: the system has no room for it."""
        ours, theirs = socket.socketpair()
        board = SharedStatus.make()
        what = [str(theirs.fileno()), str(board), str(slot), dump(self.settings).decode()]
        try:
            popen = spawn(what, module=CHILD, own_group=True, pass_fds=(theirs.fileno(), board))
            ours.setblocking(False)
            return Process(number, popen, ours, SharedStatus(board))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(board)

    def _kill(self, number: int) -> None:
        process = self._processes.get(number)
        if process is not None:
            _log.warning("a process is killed", extra={"action": "work.child.killed", **process.ids})
            end_group(process.popen.pid)

    def _read(self, process: Process) -> None:
        try:
            data = process.line.recv(control.LINE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(process.line)
            return
        process.received += data
        while b"\n" in process.received:
            line, _, rest = bytes(process.received).partition(b"\n")
            process.received[:] = rest
            self._heard(process, control.decode(line))

    def _heard(self, process: Process, message: control.Message) -> None:
        now_s = self._loop.time()
        match message:
            case control.Loaded(target):
                asyncio.ensure_future(self._connect(process, target))  # noqa: RUF006 - ends by itself, within a bound
            case control.Working(queues):
                self._reconciler.child_working(process.number, now_s)
                ids = {"action": "work.child.working", "queues": ",".join(queues), **process.ids}
                _log.info("works on %s", ", ".join(queues), extra=ids)
                self._tell_ready()
            case control.Leaving(reason):
                _log.info("a process is replaced: %s", reason, extra={"action": "work.child.leaving", **process.ids})
                self._reconciler.child_leaving(process.number, now_s)
            case control.Report():
                self._totals.note(process.number, message)
                return
            case control.Failed(reason):
                process.failure = reason
                self._reconciler.child_failed(process.number, reason)
        self._step()

    def _tell_ready(self) -> None:
        if not self._was_ready and self._reconciler.working >= self._reconciler.wanted:
            self._was_ready = True
            notify_systemd("READY=1")
            _log.info("ready", extra={"action": "work.ready", "processes": self._reconciler.wanted})

    def _reap(self) -> None:
        if self._broker is not None:
            self._broker.reap()
        for number, process in list(self._processes.items()):
            code = process.popen.poll()
            if code is not None:
                self._gone(number, process, code)
        self._step()

    def _gone(self, number: int, process: Process, code: int) -> None:
        self._read(process)  # what it said before it ended
        child = self._reconciler.children.get(number)
        unasked = child is not None and child.stage is not LEAVING and not self._reconciler.draining
        if unasked or code != 0:
            ids = {"action": "work.child.ended", "ending": ending(code), **process.ids}
            tasks = ", ".join(
                f"{text} ({time.monotonic() - since_s:.1f} s)" for text, since_s in process.board.running()
            )
            ran = f"; in it ran {tasks}" if tasks else ""
            why = f": {process.failure}" if process.failure else ""
            _log.warning("a process has ended (%s)%s%s", ending(code), why, ran, extra=ids)
        del self._processes[number]
        self._totals.ended(number)
        self._loop.remove_reader(process.line)
        process.line.close()
        process.board.close()
        self._reconciler.child_gone(number, self._loop.time(), reason=f"the process has ended ({ending(code)})")

    # The broker

    async def _connect(self, process: Process, target: str) -> None:
        """Tell it where the broker is; start one before, if it is a folder that nobody serves."""
        if self._target is None:
            self._target = asyncio.ensure_future(self._served(self.settings.broker or target))
        process.tell(control.Connect(await self._target))

    async def _served(self, target: str) -> str:
        if not target or "://" in target:
            return target
        folder = Path.cwd() / target
        if not is_served(folder):
            _log.info("starts a broker on %s", folder, extra={"action": "work.broker.starting", "path": str(folder)})
        keys = self._folder / "keys.json"
        self._broker = ManagedBroker(folder, keys=keys, on_ended=self._changed.set, owner="work")
        await self._broker.start()
        return f"unix://{folder / SOCKET_NAME}"

    async def _stop_broker(self) -> None:
        if self._broker is None:
            return
        self._broker.stop()
        while not self._broker.over:
            self._changed.clear()
            await self._changed.wait()

    # Watching

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._look()

    def _look(self) -> None:
        """The watchdog, and the heartbeat."""
        now_s = time.monotonic()
        stalled_s = float(self.settings.watchdog)
        for number, process in self._processes.items():
            child = self._reconciler.children.get(number)
            if child is None or child.stage is not WORKING:
                continue
            if now_s - process.board.fetched_s > stalled_s and not process.board.running():
                _log.error(
                    "a process has fetched nothing for %.0f s although nothing runs in it: it is replaced",
                    now_s - process.board.fetched_s,
                    extra={"action": "work.child.stalled", **process.ids},
                )
                self._reconciler.child_stuck(number)
        self._step()
        if self.settings.heartbeat is not None and self._healthy(now_s):
            self.settings.heartbeat.touch()

    def _healthy(self, now_s: float) -> bool:
        """Whether a child works, and every working one has come through to the broker lately, or is busy."""
        working = [
            process
            for number, process in self._processes.items()
            if (child := self._reconciler.children.get(number)) is not None and child.stage is WORKING
        ]
        fresh_s = float(self.settings.watchdog)
        return bool(working) and all(
            now_s - each.board.succeeded_s < fresh_s or each.board.running() for each in working
        )
