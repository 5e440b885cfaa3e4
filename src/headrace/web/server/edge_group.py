"""The edge processes, as the supervisor manages them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headrace.children import CRASH_S, backoff_s, ending
from headrace.web.server import control
from headrace.web.server.control import ControlChannel
from headrace.web.server.worker_group import spawn

_log: Final = logging.getLogger("headrace.web")

_START_TRIES: Final = 3
"""No edge has ever been ready, and one has died so often: it will not get better by itself."""
_APPLIED_S: Final = 30.0
"""An edge that does not say within this time whether it has applied new settings has not."""
_LOOK_S: Final = 10.0
_SILENT_LOOKS_MAX: Final = 3
"""An edge reports each second; one that has not at this many checks in a row is stuck, and all its clients with it. Looks
are counted, not seconds: a supervisor that was stopped itself finds the reports of that time only after its timers."""


@dataclass(slots=True)
class EdgeState:
    """One edge process."""

    number: int
    sockets: list[int]
    process: subprocess.Popen[bytes] | None = None
    channel: ControlChannel | None = None
    ready: bool = False
    since_s: float = 0.0
    crashes: int = 0
    report: control.Report = field(default_factory=control.Report)
    silent_looks: int = 0
    applied: asyncio.Future[str] | None = None


class EdgeGroup:
    """All edge processes. An edge that dies is restarted, and one that is stuck is killed, unless they are leaving."""

    def __init__(
        self,
        control_path: Path,
        sockets: Sequence[Sequence[int]],
        *,
        boot: Callable[[int, list[int]], control.Boot],
        on_change: Callable[[], None],
        on_start_failed: Callable[[str], None],
        on_hung: Callable[[int], None],
        on_ended: Callable[[bytes], None],
    ) -> None:
        """Args:
        sockets: for each edge the descriptors that it listens on.
        boot: what an edge needs, by its number and sockets.
        on_ended: called with the last statistics of an edge that has ended.
        """
        self._control = control_path
        self._edges = [EdgeState(number, list(own)) for number, own in enumerate(sockets)]
        self._boot = boot
        self._on_change = on_change
        self._on_start_failed = on_start_failed
        self._on_hung = on_hung
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._leaving = False
        self._proven = False
        self.restarts = 0

    def start(self) -> None:
        for edge in self._edges:
            self._start(edge)
        self._loop.call_later(_LOOK_S, self._look)

    @property
    def ready(self) -> bool:
        return all(edge.ready for edge in self._edges)

    @property
    def finished(self) -> bool:
        return self._leaving and all(edge.process is None for edge in self._edges)

    @property
    def rss_bytes(self) -> int:
        return sum(edge.report.rss_bytes for edge in self._edges)

    @property
    def statistics(self) -> list[bytes]:
        return [edge.report.statistics for edge in self._edges if edge.report.statistics]

    def leave(self, grace_s: float, *, idle_s: float) -> None:
        self._leaving = True
        self.send(control.Leave(grace_s, idle_s))

    def kill(self) -> None:
        self._leaving = True
        for edge in self._edges:
            if edge.process is not None:
                edge.process.kill()
                edge.process.wait()

    def send(self, message: control.Message) -> None:
        for edge in self._edges:
            if edge.channel is not None:
                edge.channel.send(message)

    async def apply(self, number: int, message: control.Apply) -> str:
        """Send new settings to one edge. Returns its error, or an empty text. An edge that has died meanwhile starts
        with them."""
        edge = self._edges[number]
        if edge.channel is None or not edge.ready:
            return ""
        edge.applied = self._loop.create_future()
        edge.channel.send(message)
        try:
            return await asyncio.wait_for(edge.applied, _APPLIED_S)
        except TimeoutError:
            return f"an edge did not answer within {_APPLIED_S:g} s"
        finally:
            edge.applied = None

    def reap(self) -> None:
        """Handle edges that have exited."""
        for edge in self._edges:
            code = edge.process.poll() if edge.process is not None else None
            if code is not None:
                self._ended(edge, code)

    def attach(self, channel: ControlChannel, hello: control.Hello) -> None:
        edge = self._edges[hello.number]
        edge.channel = channel
        channel.on_message = lambda _, message: self._obey(edge, message)
        channel.on_lost = lambda lost: self._drop(edge, lost)
        channel.send(self._boot(edge.number, edge.sockets))

    # Inside

    def _start(self, edge: EdgeState) -> None:
        if self._leaving:
            return
        edge.since_s = self._loop.time()
        edge.process = spawn("headrace.web.server.edge", [str(self._control), str(edge.number)], sockets=edge.sockets)

    def _look(self) -> None:
        """Kill edges that are stuck."""
        if self._leaving:
            return
        for edge in self._edges:
            if edge.ready and edge.process is not None:
                edge.silent_looks += 1
                if edge.silent_looks >= _SILENT_LOOKS_MAX:
                    _log.error(
                        "an edge is stuck; it is killed", extra={"action": "web.edge.stuck", "edge": edge.number}
                    )
                    edge.silent_looks = 0
                    edge.process.kill()
        self._loop.call_later(_LOOK_S, self._look)

    def _obey(self, edge: EdgeState, message: control.Message) -> None:
        match message:
            case control.Report():
                edge.report = message
                edge.silent_looks = 0
            case control.RequestTimedOut(pid):
                self._on_hung(pid)
            case control.Applied(error):
                if edge.applied is not None and not edge.applied.done():
                    edge.applied.set_result(error)
            case control.Ready():
                edge.ready = self._proven = True
                self._on_change()
            case control.Failed(reason):
                self._failed(reason)

    def _failed(self, reason: str) -> None:
        if not self._proven:
            self._on_start_failed(reason)
        else:
            _log.error(reason, extra={"action": "web.edge.failed"})

    def _drop(self, edge: EdgeState, channel: ControlChannel) -> None:
        if edge.channel is channel:
            edge.channel, edge.ready, edge.silent_looks = None, False, 0
            if edge.report.statistics:
                self._on_ended(edge.report.statistics)
            edge.report = control.Report()
            if edge.applied is not None and not edge.applied.done():
                edge.applied.set_result("")
            self._on_change()

    def _ended(self, edge: EdgeState, code: int) -> None:
        edge.process, edge.ready = None, False
        if self._leaving:
            self._on_change()
            return
        ids = {"action": "web.edge.ended", "edge": edge.number, "code": code}
        _log.warning("an edge has ended (%s); it is started again", ending(code), extra=ids)
        self.restarts += 1
        early = self._loop.time() - edge.since_s < CRASH_S
        edge.crashes = edge.crashes + 1 if early else 0
        if edge.crashes >= _START_TRIES and not self._proven:
            self._on_start_failed(f"the edge does not start ({ending(code)})")
            return
        self._loop.call_later(backoff_s(edge.crashes), self._start, edge)
        self._on_change()
