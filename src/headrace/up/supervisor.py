"""The supervisor of `headrace up`: services in order, and what signals ask of it.

    start   broker ready → web, work, streams → console → ready
    HUP     the file is read anew → services that are gone stop, changed ones are replaced (or get HUP, if that is enough),
            new ones start, the others get HUP: new code, keys, certificates. A file that is wrong changes nothing
    TERM    web servers → workers and pipelines → console → broker, each when the ones before have ended
            a second TERM or INT: all at once

A service that does not get ready holds up the next stage for READY_WITHIN_S only: all of them bear a broker that is away.
Services end with this process, however it ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.children import reap_strangers
from headrace.errors import CallerError
from headrace.process import notify_systemd, private_folder
from headrace.settings import SettingsError
from headrace.up.child import EXIT_SET_WRONGLY, Child, State
from headrace.up.lines import Lines
from headrace.up.plan import Plan, Service
from headrace.up.sections import Stage

_log: Final = logging.getLogger("headrace.up")

READY_WITHIN_S: Final = 30.0
"""A store that was killed is open again within seconds; an app's import may take longer, but nothing waits for it."""


_ADDRESSES_S: Final = 0.2
"""A service's log, where its address is, comes another way than the word that it is ready."""


@dataclass(eq=False)
class AlreadyUp(CallerError):
    folder: Path

    def __str__(self) -> str:
        return f"another `headrace up` runs in {self.folder}; stop that one first, or use a folder of its own"


@dataclass(eq=False)
class InvalidServiceSettings(CallerError):
    """A service has refused its settings at the very start."""

    service: str
    said: str

    def __str__(self) -> str:
        return f"{self.service} cannot run as it is set: {self.said}"


class Supervisor:
    """`run`, once; on one loop, in the main thread."""

    def __init__(
        self, plan: Plan, *, reread: Callable[[], Plan], lines: Lines, on_ready: Callable[[Supervisor], None]
    ) -> None:
        """Args:
        reread: makes the plan anew, for HUP. Raises SettingsError.
        on_ready: called once, when everything that could be started is.
        """
        self.plan = plan
        self.children: dict[str, Child] = {}
        """By the service's name, in the plan's order."""
        self._reread = reread
        self._lines = lines
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._folder = private_folder()
        self._made = 0
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._again = False
        self._up = False

    async def run(self) -> int:
        """Until stopped. Returns the exit code.

        Raises:
            AlreadyUp: another one runs in the folder.
            InvalidServiceSettings: at the start; everything has been stopped again.
        """
        lock = _lock(self.plan.file.absolute().parent)
        self._obey_signals()
        try:
            self._lines.width = max(len(service.name) for service in self.plan.services)
            await self._start(self.plan.services)
            if not self._stopping.is_set():
                self._tell_ready()
            await self._stopping.wait()
            return 0 if await self._drain() else 1
        except InvalidServiceSettings:
            await self._drain()
            raise
        finally:
            await self._close()
            os.close(lock)

    def stop(self) -> None:
        """In order; the second time at once."""
        if self._stopping.is_set():
            self._end_now()
        self._stopping.set()
        self._changed.set()

    def reload(self) -> None:
        """Read the file anew; one that comes while one is under way follows it. If it was the terminal that hung up, stop."""
        if self._stopping.is_set():
            return
        _log.info("HUP: %s is read anew", self.plan.file.name, extra={"action": "up.reloading"})
        if self._lines.hung_up:
            self.stop()
            return
        if self._reloading is not None and not self._reloading.done():
            self._again = True
            return
        self._reloading = self._loop.create_task(self._reload())

    # Start

    async def _start(self, services: Iterable[Service]) -> None:
        """Stage by stage."""
        wanted = list(services)
        for stage in Stage:
            started = [self._add(service) for service in wanted if service.rules.stage is stage]
            for child in started:
                child.start()
            if started and not await self._settle(started):
                return

    def _add(self, service: Service) -> Child:
        self._made += 1
        child = Child(service, notes=self._folder / str(self._made), lines=self._lines, on_change=self._changed.set)
        self.children[service.name] = child
        return child

    async def _settle(self, started: list[Child]) -> bool:
        """Wait until they are ready, or for READY_WITHIN_S. Returns: whether to go on.

        Raises: InvalidServiceSettings: only at the very start.
        """
        deadline_s = self._loop.time() + READY_WITHIN_S
        while not self._stopping.is_set():
            for child in started:
                if not self._up and child.last_code == EXIT_SET_WRONGLY:
                    raise InvalidServiceSettings(child.service.name, child.said)
            waited_for = [child for child in started if child.state not in (State.READY, State.FAILING)]
            if not waited_for or not await self._wait_change(deadline_s):
                self._tell_late(waited_for)
                return True
        return False

    def _tell_late(self, late: list[Child]) -> None:
        for child in late:
            ids = {"action": "up.service.late", "of": child.service.name, "within_s": READY_WITHIN_S}
            _log.warning("%s is not ready yet; the others go on", child.service.name, extra=ids)

    async def _wait_change(self, deadline_s: float) -> bool:
        """Returns: False when the time is over."""
        self._changed.clear()
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _tell_ready(self) -> None:
        self._up = True
        ids = {"action": "up.ready", "services": ", ".join(self.children), "pid": os.getpid()}
        _log.info("everything that %s names is started", self.plan.file.name, extra=ids)
        notify_systemd("READY=1")
        self._feed_watchdog()
        self._loop.call_later(_ADDRESSES_S, self._on_ready, self)

    def _feed_watchdog(self) -> None:
        """systemd's: it restarts a supervisor whose loop does not turn. Source: sd_watchdog_enabled(3)."""
        every_us = os.environ.get("WATCHDOG_USEC", "")
        if every_us.isdigit():
            notify_systemd("WATCHDOG=1")
            self._loop.call_later(int(every_us) / 2_000_000, self._feed_watchdog)

    # While it runs

    def _obey_signals(self) -> None:
        for number, react in {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGQUIT: self._end_now,
            signal.SIGHUP: self.reload,
            signal.SIGCHLD: self._reap,
        }.items():
            self._loop.add_signal_handler(number, react)

    def _reap(self) -> None:
        for child in list(self.children.values()):
            child.reap()
        reap_strangers({child.pid for child in self.children.values()})

    # Reload

    async def _reload(self) -> None:
        notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}")
        try:
            await self._apply(self._reread())
        except SettingsError as error:
            _log.error("not reloaded, nothing has changed: %s", error, extra={"action": "up.reload.failed"})
        except Exception:  # noqa: BLE001  # a bug must not be silent, nor keep the service manager waiting
            _log.exception("the reload failed halfway", extra={"action": "up.reload.failed"})
        notify_systemd("READY=1")
        if self._again:
            self._again = False
            self._reloading = None
            self.reload()

    async def _apply(self, plan: Plan) -> None:
        before, self.plan = self.plan, plan
        wanted = {service.name: service for service in plan.services}
        gone = [child for name, child in self.children.items() if name not in wanted]
        await self._stop_all(gone)
        replaced = [name for name in wanted if name in self.children and self._renew(self.children[name], wanted[name])]
        await self._settle([self.children[name] for name in replaced])
        new = [service for name, service in wanted.items() if name not in self.children]
        await self._start(new)
        self.children = {name: self.children[name] for name in wanted if name in self.children}
        ids = {
            "action": "up.reloaded",
            "stopped": ", ".join(child.service.name for child in gone),
            "restarted": ", ".join(replaced),
            "started": ", ".join(service.name for service in new),
        }
        _log.info("reloaded", extra=ids)
        if before.up.log_level != plan.up.log_level:
            logging.getLogger("headrace").setLevel(plan.up.log_level.upper())

    def _renew(self, child: Child, service: Service) -> bool:
        """Returns: whether it is started anew. Otherwise it gets HUP, if it knows that."""
        if service.rules.needs_restart(child.service.changes(service)):
            child.replace(service)
            self._loop.call_later(float(self.plan.up.drain), child.kill_replaced)
            return True
        child.service = service
        if service.rules.obeys_hup:
            child.hang_up()
        return False

    # The end

    async def _drain(self) -> bool:
        """Stage by stage, within the bound. Returns: whether all have ended by themselves."""
        _log.info("stopping", extra={"action": "up.stopping"})
        notify_systemd("STOPPING=1")
        if self._reloading is not None:
            self._reloading.cancel()
        in_time = await self._stop_all(list(self.children.values()))
        _log.info("stopped", extra={"action": "up.stopped"})
        return in_time

    async def _stop_all(self, children: list[Child]) -> bool:
        deadline_s = self._loop.time() + float(self.plan.up.drain)
        in_time = True
        for stage in sorted({child.service.rules.stops for child in children}):
            stopped = [child for child in children if child.service.rules.stops == stage]
            for child in stopped:
                child.stop()
            while any(child.state is not State.STOPPED for child in stopped):
                if not await self._wait_change(deadline_s) and in_time:
                    in_time = False
                    self._kill(children)
                    deadline_s = self._loop.time() + READY_WITHIN_S
        for child in children:
            self.children.pop(child.service.name, None)
            await child.close()
        return in_time

    def _kill(self, children: list[Child]) -> None:
        left = [child for child in children if child.state is not State.STOPPED]
        names = ", ".join(child.service.name for child in left)
        ids = {"action": "up.killed", "after_s": float(self.plan.up.drain), "services": names}
        _log.error("not ended in time, killed: %s; what was accepted is not lost", names, extra=ids)
        for child in left:
            child.stop()  # so that it is not started again
            child.kill()

    async def _close(self) -> None:
        for child in list(self.children.values()):
            child.kill()
            await child.close()
        # A child that ends later would wake a loop that is closed, and Python complain of that.
        self._loop.remove_signal_handler(signal.SIGCHLD)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_now(self) -> None:
        for child in self.children.values():
            child.kill()
        _log.warning("ended at once", extra={"action": "up.ended"})
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)


def _lock(folder: Path) -> int:
    """The folder itself is locked, so that there is no file that stays behind. Freed when this process ends, however.

    Raises: AlreadyUp.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyUp(folder) from None
    except OSError as error:  # some network file systems lock no folders
        reason = error.strerror or str(error)
        _log.warning("the folder cannot be locked: %s", reason, extra={"action": "up.unlocked", "folder": str(folder)})
    return descriptor
