"""One service as a process: started, watched, started again, told to stop.

WAITING ──start──▶ STARTING ──READY=1──▶ READY            (it tells as it would tell systemd)
   ▲                   │                   │
   └──── backoff ──── ended, unasked ◀─────┘               FAILING: it has ended early FAILING_AFTER times in a row
any ──replace──▶ REPLACING ──ended──▶ STARTING
any ──stop──▶ STOPPING ──ended──▶ STOPPED
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from headrace.children import Restarts, end_group, ending, spawn
from headrace.up.lines import Lines, Splitter, fields_of
from headrace.up.plan import Service

_log: Final = logging.getLogger("headrace.up")

FAILING_AFTER: Final = 3
EXIT_SET_WRONGLY: Final = 2
_NOTE_BYTES_MAX: Final = 4_096
_LAST_WORDS_S: Final = 0.5


class State(Enum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"
    REPLACING = "replacing"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Child:
    """`start`; `reap` at each SIGCHLD; `replace` or `stop`. On one loop, in the main thread."""

    def __init__(self, service: Service, *, notes: Path, lines: Lines, on_change: Callable[[], None]) -> None:
        """Args:
        notes: in a private folder: the socket over which the service tells that it is ready.
        on_change: called after every change of `state`.
        """
        self.service = service
        self.state = State.WAITING
        self.url = ""
        """Where it serves, once it has said so."""
        self.last_code: int | None = None
        self.last_line = b""
        """Of what it has printed or logged, to show why it fails."""
        self._lines = lines
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._group = 0
        """Of processes: it, and what it has started. It may live on when it has ended itself."""
        self._restarts = Restarts()
        self._timer: asyncio.TimerHandle | None = None
        self._readings: set[asyncio.Task[None]] = set()
        """What an earlier process of the service has started may still print."""
        self._notes = _open_notes(notes)
        self._notes_path = str(notes)
        self._loop.add_reader(self._notes, self._read_note)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def said(self) -> str:
        """The last line that it has printed, or its message if it was one of the log."""
        text = self.last_line.decode(errors="replace")
        return str(fields_of(self.last_line).get("message", text))

    @property
    def restarts(self) -> int:
        """Early deaths in a row."""
        return self._restarts.crashes

    def start(self) -> None:
        """One that the system has no room for is tried again, as one that has ended."""
        self._timer = None
        self._restarts.started(self._loop.time())
        try:
            self._spawn()
        except (OSError, subprocess.SubprocessError) as error:
            self._retry("cannot be started", str(error), code=None)
        else:
            self._move(State.FAILING if self.state is State.FAILING else State.STARTING)

    def _spawn(self) -> None:
        reading, writing = os.pipe()
        try:
            self._process = spawn(
                self.service.rules.command,
                own_group=True,
                environ={**self.service.environ, "NOTIFY_SOCKET": self._notes_path, "PYTHONUNBUFFERED": "1"},
                stdout=writing,
                stderr=writing,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._group = self._process.pid
        task = self._loop.create_task(self._read(reading))
        self._readings.add(task)
        task.add_done_callback(self._readings.discard)

    def hang_up(self) -> None:
        """HUP, if it runs and is ready: one that starts reads everything anew anyhow, and may not listen yet."""
        if self._process is not None and self.state is State.READY:
            self._process.send_signal(signal.SIGHUP)

    def replace(self, service: Service) -> None:
        """Stop it, and start what the newer service says in its place."""
        self.service = service
        self.url = ""
        self._restarts = Restarts()
        self._end_timer()
        if self._process is None:
            self.start()
        elif self.state is not State.STOPPING:
            self._process.terminate()
            self._move(State.REPLACING)

    def stop(self) -> None:
        """TERM. Idempotent."""
        self._end_timer()
        if self._process is None:
            self._move(State.STOPPED)
        elif self.state is not State.STOPPING:
            self._process.terminate()
            self._move(State.STOPPING)

    def kill(self) -> None:
        """At once, with all that it has started and left behind."""
        if self._group:
            end_group(self._group)

    def kill_replaced(self) -> None:
        """If it has still not made room for its newer self."""
        if self.state is State.REPLACING:
            self.kill()

    async def close(self) -> None:
        """Leave nothing behind; what is in the pipes is told first."""
        self.kill()
        if self._readings:
            await asyncio.wait(self._readings, timeout=_LAST_WORDS_S)
        self._loop.remove_reader(self._notes)
        self._notes.close()
        for reading in self._readings:
            reading.cancel()

    def reap(self) -> None:
        """Look whether it has ended."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return
        self._process, self.last_code = None, code
        if self.state is State.STOPPING:
            self._move(State.STOPPED)
        elif self.state is State.REPLACING:
            self.start()
        else:
            self._retry("has ended", ending(code), code=code)

    # What happens

    def _retry(self, what: str, how: str, *, code: int | None) -> None:
        pause_s = self._restarts.ended(self._loop.time())
        ids: dict[str, object] = {"action": "up.service.ended", "code": code, "restart_in_s": round(pause_s, 1)}
        _log.error("%s %s (%s); it is started again", self.service.name, what, how, extra=self._ids(ids))
        if self._restarts.crashes == FAILING_AFTER:
            ids = {"action": "up.service.failing", "said": self.said}
            _log.error("%s keeps ending; the others go on", self.service.name, extra=self._ids(ids))
        self._timer = self._loop.call_later(pause_s, self.start)
        self._move(State.FAILING if self._restarts.crashes >= FAILING_AFTER else State.WAITING)

    def _read_note(self) -> None:
        """What it tells as a service tells systemd. Source: sd_notify(3)."""
        note = self._notes.recv(_NOTE_BYTES_MAX)
        if b"READY=1" in note.split(b"\n") and self.state in (State.STARTING, State.FAILING):
            _log.info(
                "%s is ready", self.service.name, extra=self._ids({"action": "up.service.ready", "pid": self.pid})
            )
            self._move(State.READY)

    async def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", 0) as pipe:
            ended = self._loop.create_future()
            transport, _ = await self._loop.connect_read_pipe(lambda: _Output(self._note_line, ended), pipe)
            try:
                await ended
            finally:
                transport.close()

    def _note_line(self, line: bytes) -> None:
        self._lines.write(self.service.name, line)
        if line.strip():
            self.last_line = line
        fields = fields_of(line)
        if str(fields.get("action", "")).endswith(".ready") and "url" in fields:
            self.url = str(fields["url"])

    def _ids(self, ids: dict[str, object]) -> dict[str, object]:
        return {**ids, "of": self.service.name}

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self, state: State) -> None:
        self.state = state
        self._on_change()


class _Output(Splitter):
    """What a service prints, until nobody has its end of the pipe any more."""

    def __init__(self, on_line: Callable[[bytes], None], ended: asyncio.Future[None]) -> None:
        super().__init__(on_line)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._ended.done():
            self._ended.set_result(None)


def _open_notes(path: Path) -> socket.socket:
    notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notes.setblocking(False)
    notes.bind(str(path))
    return notes
