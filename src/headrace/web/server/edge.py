"""The edge: the process that owns the clients' connections, and the queue of each app.

start    Boot → queues and their sockets for workers → workers have come → listening → READY
end      Leave → stops accepting → answers running and queued requests → workers' links end → exit
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from headrace.errors import HeadraceError
from headrace.process import rss_bytes
from headrace.settings import load as load_settings
from headrace.web.frontend.frontend import Frontend
from headrace.web.server import control
from headrace.web.server.control import ControlChannel
from headrace.web.server.process import clear, end_after, report_failure, set_up
from headrace.web.settings import WebSettings

if TYPE_CHECKING:
    from headrace.web.dispatch.dispatcher import Dispatcher
    from headrace.web.ipc.link_server import LinkServer

_log: Final = logging.getLogger("headrace.web")

_LOOK_S: Final = 0.01  # for workers, at the start
_END_S: Final = 1.0  # after its grace the edge ends, whatever hangs


class EdgeProcess:
    """One edge process."""

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        self._number = number
        self._boot: asyncio.Future[control.Boot] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._grace_s = 0.0
        self._idle_s = 0.0
        self._lost = False
        self._dispatchers: dict[str, Dispatcher] = {}
        self._servers: dict[str, LinkServer] = {}
        self._frontend: Frontend | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(self._make_channel, str(self._path))
        boot = await self._boot
        settings = load_settings(WebSettings, boot.settings)
        self._grace_s = float(settings.drain)
        set_up(settings)
        try:
            await self._open(settings, boot)
        except (HeadraceError, OSError) as error:
            report_failure(self._channel, "the edge cannot start", error)
            return 1
        self._channel.send(control.Ready())
        reports = asyncio.create_task(self._report())
        await self._leave.wait()
        reports.cancel()
        await self._close()
        return 0

    def _make_channel(self) -> ControlChannel:
        channel = self._channel = ControlChannel(on_message=self._obey, on_lost=self._on_lost, on_open=self._greet)
        return channel

    def _greet(self, channel: ControlChannel) -> None:
        channel.send(control.Hello("edge", os.getpid(), self._number))

    def _obey(self, _: ControlChannel, message: control.Message) -> None:
        match message:
            case control.Boot():
                self._boot.set_result(message)
            case control.Leave(grace_s, idle_s):
                self._grace_s, self._idle_s = grace_s, idle_s
                self._leave.set()
            case control.Apply():
                self._applying = asyncio.create_task(self._apply(message))
            case control.Reopen() if self._frontend is not None:
                self._frontend.reopen_logs()

    def _on_lost(self, _: ControlChannel) -> None:
        """The supervisor is gone and cannot replace what fails here: shut down in order."""
        if not self._boot.done():
            os._exit(1)
        self._lost = True
        self._leave.set()

    async def _open(self, settings: WebSettings, boot: control.Boot) -> None:
        self._add_apps(settings, boot.apps, boot.links)
        sockets = [socket.socket(fileno=number) for number in boot.sockets]
        self._frontend = Frontend(
            settings, dispatchers=self._dispatchers, sockets=sockets, shared=boot.shared, marks=self._marks
        )
        await self._wait_for_workers(float(settings.queue_timeout))
        await self._frontend.open()

    async def _wait_for_workers(self, patience_s: float) -> None:
        """Accept nothing before the apps have said which requests are durable: clients wait in the kernel. Stop waiting
        after `patience_s`, so that clients get an error if no worker starts."""
        deadline_s = asyncio.get_running_loop().time() + patience_s
        while not all(dispatcher.known for dispatcher in self._dispatchers.values()):
            if self._leave.is_set() or asyncio.get_running_loop().time() >= deadline_s:
                return
            await asyncio.sleep(_LOOK_S)

    def _add_apps(self, settings: WebSettings, apps: list[str], links: list[list[str]]) -> None:
        """A queue, and a socket that workers connect to, for each app that has none."""
        if not apps:
            return
        from headrace.web.dispatch.dispatcher import Dispatcher  # noqa: PLC0415 - folders and proxies need none
        from headrace.web.ipc.link_server import LinkServer  # noqa: PLC0415

        for spec, (path,) in zip(apps, links, strict=True):
            if spec not in self._dispatchers:
                dispatcher = Dispatcher(
                    loop=asyncio.get_running_loop(),
                    queue_size=settings.queue_size,
                    queue_timeout_s=settings.queue_timeout,
                    request_timeout_s=settings.request_timeout,
                    on_hung=self._on_hung,
                )
                self._dispatchers[spec] = dispatcher
                self._servers[spec] = LinkServer(Path(path), dispatcher)

    def _marks(self) -> list[tuple[str, list[str]]]:
        return [mark for dispatcher in self._dispatchers.values() for mark in dispatcher.durable]

    def _on_hung(self, pid: int) -> None:
        self._channel.send(control.RequestTimedOut(pid))

    async def _apply(self, message: control.Apply) -> None:
        assert self._frontend is not None
        error = ""
        try:
            settings = load_settings(WebSettings, message.settings)
            self._add_apps(settings, message.apps, message.links)
            if message.switch:
                self._frontend.apply(settings, self._dispatchers)
            else:
                await self._frontend.try_out(settings, self._dispatchers)
        except (HeadraceError, OSError) as refused:
            error = str(refused)
        self._channel.send(control.Applied(error))

    async def _report(self) -> None:
        while True:
            self._send_report()
            await asyncio.sleep(control.REPORT_S)

    def _send_report(self) -> None:
        assert self._frontend is not None
        frontend = self._frontend
        self._channel.send(control.Report(frontend.requests, frontend.in_flight, rss_bytes(), frontend.statistics()))

    async def _close(self) -> None:
        assert self._frontend is not None
        end_after(self._grace_s + _END_S)
        await self._frontend.close(self._grace_s, idle_s=self._idle_s)
        for dispatcher in self._dispatchers.values():
            dispatcher.drain()
        for server in self._servers.values():
            await server.close()
        self._send_report()
        if self._lost:
            clear(self._path)


async def _run(path: Path, number: int) -> int:
    return await EdgeProcess(path, number).run()


def main() -> int:
    """`python -m headrace.web.server.edge CONTROL NUMBER`. Started by the supervisor only."""
    return uvloop.run(_run(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
