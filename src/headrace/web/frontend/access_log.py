"""The access log: a line for each request, in the combined format or as JSON.

The loop only formats lines; a thread writes them, ten times a second, as one piece. So neither a slow disk nor a pipe
without a reader blocks a request: what does not fit in memory then is dropped, and counted.

Lines have what the client sent in request line, Referer, User-Agent and X-Request-Id, with control characters, quotes
and backslashes escaped; never Authorization, cookies or bodies.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal

import msgspec

from headrace.errors import CallerError
from headrace.http.exchange import Exchange

_log: Final = logging.getLogger("headrace.web")

_EVERY_S: Final = 0.1
_WAITING_CHARACTERS_MAX: Final = 16_000_000
"""Lines that are not written yet: about 80,000, some seconds of a busy server."""
_VALUE_CHARACTERS_MAX: Final = 2_000
"""Of one thing that the client sent; a log is no place for 64 KB of path."""
_CLOSE_S: Final = 5.0
_WARNING_EVERY_S: Final = 60.0
_MODE: Final = 0o640

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ODD: Final = re.compile(r"[^ !#-\[\]-~]")
_C1: Final = re.compile("[\x7f-\x9f]")
_VERSIONS: Final = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2.0"}

Format = Literal["combined", "json"]


class LogUnusable(CallerError):
    """The file cannot be opened for appending."""


class AccessLog:
    """Give `record` every exchange that is done. One loop.

    Invariant: `record` never blocks; at most _WAITING_CHARACTERS_MAX are in memory.
    """

    def __init__(
        self,
        path: Path | None,
        form: Format,
        *,
        loop: asyncio.AbstractEventLoop,
        now_s: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Open the log.

        Args:
            path: appended to; None for standard output.

        Raises: LogUnusable.
        """
        self._render = _render_json if form == "json" else _render_combined
        self._stamp = _json_stamp if form == "json" else _combined_stamp
        self._loop = loop
        self._now_s = now_s
        self._unix_s = unix_s
        self._second = -1
        self._time = ""
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._given = 0
        """Characters given to the writer, ever."""
        self.dropped = 0
        """Lines that were lost, ever, because they could not be written in time, or at all."""
        self._told = 0
        self._warn_again_s = -math.inf
        self._writer = _Writer(path)

    def record(self, exchange: Exchange) -> None:
        """Note a finished exchange."""
        second = int(self._unix_s())
        if second != self._second:
            self._second = second
            self._time = self._stamp(second)
        self._lines.append(self._render(exchange, self._time, self._now_s() - exchange.began_s))
        if self._timer is None:
            self._timer = self._loop.call_later(_EVERY_S, self.flush)

    def flush(self) -> None:
        """Pass the gathered lines on to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if self._given - self._writer.written > _WAITING_CHARACTERS_MAX:
            self.dropped += len(lines)
        elif lines:
            piece = "".join(lines)
            self._given += len(piece)
            self._writer.write(piece, len(lines))
        self._report()

    def reopen(self) -> None:
        """Go on in a new file of the same name: the old one was renamed. Lines until now are in the old one."""
        self.flush()
        self._writer.reopen()

    def close(self) -> None:
        """Write the remaining lines; waits for a slow disk, but not for ever. Idempotent. After a `flush` on the loop, and
        without a `record` since, another thread may call it."""
        self.flush()
        self._writer.close()

    def _report(self) -> None:
        self.dropped += self._writer.take_lost()
        error = self._writer.error
        if (error or self.dropped > self._told) and self._now_s() >= self._warn_again_s:
            _log.warning(
                "the access log loses lines: %s",
                error or "it is written too slowly",
                extra={"action": "web.access_log.lossy", "dropped": self.dropped - self._told},
            )
            self._warn_again_s = self._now_s() + _WARNING_EVERY_S
            self._told = self.dropped
            self._writer.error = ""


class _Writer:
    """The thread, and its file. What it shares with the loop are numbers that only one of them changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._fd = _open(path)
        self._jobs: SimpleQueue[tuple[str, int] | Literal["reopen"] | None] = SimpleQueue()
        self.written = 0
        self.error = ""
        self._lost = 0
        self._lost_taken = 0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def write(self, piece: str, lines: int) -> None:
        self._jobs.put((piece, lines))

    def reopen(self) -> None:
        self._jobs.put("reopen")

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join(_CLOSE_S)

    def take_lost(self) -> int:
        lost = self._lost - self._lost_taken
        self._lost_taken += lost
        return lost

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job == "reopen":
                self._reopen()
            else:
                self._write(*job)
        os.close(self._fd)

    def _write(self, piece: str, lines: int) -> None:
        data = piece.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = self._write_some(data)
        except OSError as error:
            self.error = f"{self._path or 'standard output'}: {error.strerror}"
            self._lost += lines
        self.written += len(piece)

    def _write_some(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data) :]
        except BlockingIOError:  # whoever shares this pipe or terminal with us has made it non-blocking
            select.select((), (self._fd,), ())
            return data

    def _reopen(self) -> None:
        try:
            fd = _open(self._path)
        except LogUnusable as error:
            self.error = f"{error}; going on in the old file"
            return
        os.close(self._fd)
        self._fd = fd


def open_for(
    setting: str, form: Format, *, loop: asyncio.AbstractEventLoop, terminal: bool | None = None
) -> AccessLog | None:
    """The log that a setting asks for: a path, `-` for standard output, `off`; `auto`: `-` on a terminal.

    Raises: LogUnusable.
    """
    if setting == "auto":
        on_terminal = sys.stdout.isatty() if terminal is None else terminal
        setting = "-" if on_terminal else "off"
    if setting in ("off", ""):
        return None
    return AccessLog(None if setting == "-" else Path(setting), form, loop=loop)


def _open(path: Path | None) -> int:
    try:
        if path is None:
            return os.dup(1)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise LogUnusable(f"cannot write the access log {path or '-'}: {error.strerror}") from error


# ------------------------------------------------------------------------------------------------------------ lines


class _Line(msgspec.Struct, gc=False):
    """The JSON form, in this order."""

    ts: str
    client: str
    method: str
    host: str
    target: str
    version: str
    status: int
    sent_bytes: int
    duration_s: float
    wait_s: float
    route: str
    referer: str
    agent: str
    request_id: str


_encode: Final = msgspec.json.Encoder().encode


def _render_json(exchange: Exchange, stamp: str, duration_s: float) -> str:
    get = exchange.headers.get
    line = _Line(
        stamp,
        exchange.peer,
        exchange.method,
        _text(get(b"host")),
        _plain((exchange.root_path + exchange.target)[:_VALUE_CHARACTERS_MAX]),
        exchange.version,
        exchange.status,
        exchange.sent_bytes,
        round(duration_s, 6),
        round(exchange.waited_s, 6),
        exchange.route,
        _text(get(b"referer")),
        _text(get(b"user-agent")),
        _text(get(b"x-request-id")),
    )
    return _encode(line).decode() + "\n"


def _render_combined(exchange: Exchange, stamp: str, duration_s: float) -> str:  # noqa: ARG001  # the JSON form has it
    get = exchange.headers.get
    target = _quotable(exchange.root_path + exchange.target)
    version = _VERSIONS.get(exchange.version, exchange.version)
    return (
        f'{exchange.peer} - - {stamp} "{exchange.method} {target} {version}" {exchange.status} {exchange.sent_bytes} '
        f'"{_quoted(get(b"referer"))}" "{_quoted(get(b"user-agent"))}"\n'
    )


def _text(value: bytes | None) -> str:
    return _plain(value[:_VALUE_CHARACTERS_MAX].decode("utf-8", "replace")) if value else ""


def _plain(text: str) -> str:
    """JSON escapes what is below a blank; DEL and C1, which a terminal may obey too, are left to us."""
    return text if text.isprintable() else _C1.sub(_escape, text)


def _quoted(value: bytes | None) -> str:
    return _quotable(value.decode("latin-1")) if value else "-"


def _quotable(text: str) -> str:
    r"""Escaped as nginx does it: `\x22` for a quote."""
    if len(text) > _VALUE_CHARACTERS_MAX:
        text = text[:_VALUE_CHARACTERS_MAX] + "..."
    return text if _ODD.search(text) is None else _ODD.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    data = character.encode("latin-1" if character < "\u0100" else "utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02X}" for byte in data)


def _combined_stamp(unix_s: int) -> str:
    """Local time, as servers write it: English whatever the locale."""
    local = time.localtime(unix_s)
    offset = local.tm_gmtoff // 60
    sign, offset = ("-", -offset) if offset < 0 else ("+", offset)
    day = f"{local.tm_mday:02}/{_MONTHS[local.tm_mon - 1]}/{local.tm_year}"
    return f"[{day}:{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} {sign}{offset // 60:02}{offset % 60:02}]"


def _json_stamp(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
