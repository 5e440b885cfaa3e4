"""One log of many processes: every line says which service it is of.

Services write JSON lines, since their standard error is a pipe, and apps print what they like. On a terminal all is shown as
text, with the service's name in front; elsewhere all is JSON, with a key `service`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from headrace.logs import JsonFormatter, TextFormatter, wants_colour

LINE_BYTES_MAX: Final = 64 * 1_024
"""A longer line is cut into several: what an app prints must not fill the memory."""
_COLOURS: Final = ("36", "35", "34", "32", "33", "96", "95", "94")
_OWN_KEYS: Final = ("ts", "level", "logger", "message", "exception", "service")


class Lines:
    """Writes the lines of all services to one stream."""

    def __init__(self, stream: TextIO, *, text: bool) -> None:
        self._stream = stream
        self._text = text
        self._colour = wants_colour(stream)
        self._formatter = TextFormatter(colour=self._colour)
        self._services: dict[str, str] = {}
        self.width = 0
        """Of the names in front of text."""
        self.hung_up = False
        """The terminal is gone. Whoever reads a pipe may go without a word: that is no reason to end."""

    def write(self, service: str, line: bytes) -> None:
        """One line, without its end. Empty ones are left out."""
        if not line.strip():
            return
        found = _fields(line)
        if self._text:
            text = self._readable(found) if found is not None else line.decode(errors="replace")
            out = "".join(f"{self._prefix(service)}{row}\n" for row in text.splitlines())
        else:
            out = msgspec.json.encode((found or _printed(line)) | {"service": service}).decode() + "\n"
        try:
            self._stream.write(out)
            self._stream.flush()
        except OSError as error:  # nobody reads us any more: the services work on
            self.hung_up = error.errno == errno.EIO

    def _readable(self, fields: dict[str, Any]) -> str:
        text = self._formatter.format(_record(fields))
        return f"{text}\n{fields['exception']}" if fields.get("exception") else text

    def _prefix(self, service: str) -> str:
        if service not in self._services:
            code = _COLOURS[len(self._services) % len(_COLOURS)]
            name = f"{service:<{self.width}} |"
            self._services[service] = f"\x1b[{code}m{name}\x1b[0m " if self._colour else f"{name} "
        return self._services[service]


class Handler(logging.Handler):
    """The supervisor's own lines among those of its services."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write("up", self.format(record).encode())


class Splitter(asyncio.Protocol):
    """Cuts what comes out of a pipe into lines, and tells each."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)
        if len(self._rest) > LINE_BYTES_MAX:
            self._tell(self._rest)
            self._rest = b""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._tell(self._rest)
        self._rest = b""

    def _tell(self, line: bytes) -> None:
        for start in range(0, len(line), LINE_BYTES_MAX):
            self._on_line(line[start : start + LINE_BYTES_MAX].rstrip(b"\r"))


def fields_of(line: bytes) -> dict[str, Any]:
    """What a log line of a service says; nothing if it is none."""
    return _fields(line) or {}


def _fields(line: bytes) -> dict[str, Any] | None:
    """The fields of a JSON log line as `JsonFormatter` writes it, else None."""
    if not line.startswith(b"{"):
        return None
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    is_ours = isinstance(found, dict) and {"ts", "level", "message"} <= found.keys()
    return found if is_ours else None


def _record(fields: dict[str, Any]) -> logging.LogRecord:
    """The record that was written as these fields, as far as its text needs it."""
    record = logging.makeLogRecord({name: value for name, value in fields.items() if name not in _OWN_KEYS})
    record.msg, record.args = str(fields["message"]), ()
    record.levelname = str(fields["level"]).upper()
    record.created = _unix_s(fields["ts"])
    return record


def _unix_s(ts: object) -> float:
    try:
        return datetime.fromisoformat(str(ts)).timestamp()
    except ValueError:
        return datetime.now(UTC).timestamp()


def _printed(line: bytes) -> dict[str, Any]:
    """A line that no log has written."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    message = line.decode(errors="backslashreplace")
    return {"ts": now, "level": "info", "logger": "output", "message": message, "action": "up.output"}
