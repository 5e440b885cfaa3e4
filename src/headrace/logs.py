"""Log lines: text for people on a terminal, JSON for programs.

Standard `logging`, on the logger `headrace` alone: the root logger is the application's. A line carries a stable key
`action` and ids, as `extra`, and never a message's body:

    _log.warning("the store is full", extra={"action": "store.full", "path": path})

`action` and the ids are what to search for; the words may change.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import msgspec

LOGGER: Final = "headrace"

Format = Literal["auto", "text", "json"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS: Final = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_VALUE_CHARACTERS_MAX: Final = 500  # one odd value must not flood the log


def configure(stream: TextIO, *, form: Format = "auto", level: str = "info") -> None:
    """Send headrace's log lines to `stream`, instead of wherever they went. Idempotent.

    Args:
        stream: where to; standard error, usually.
        form: `auto` is text if the stream is a terminal, else JSON.
        level: the least severe level to write.
    """
    text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter(colour=wants_colour(stream)) if text else JsonFormatter())
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def ids_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`, `action` first."""
    found = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {"action": found.pop("action")} | found if "action" in found else found


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, `action`, ids, maybe `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: _plain(value) for name, value in ids_of(record).items()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """`08:13:48.123 WARNING the store is full  action=store.full path=/data`, coloured on a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = self._paint(f"{record.levelname:<7}", _COLOURS.get(record.levelname, "0"))
        ids = " ".join(f"{name}={_word(value)}" for name, value in ids_of(record).items())
        line = f"{self._paint(time, '2')} {level} {_one_line(record.getMessage())}"
        line += f"  {self._paint(ids, '2')}" if ids else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _plain(value: Any) -> Any:
    """A value that JSON has, not too long."""
    if value is None or isinstance(value, bool | int | float):
        return value
    # A lone surrogate (a file name that is not UTF-8) is no JSON.
    return str(value)[:_VALUE_CHARACTERS_MAX].encode("utf-8", "backslashreplace").decode()


def _word(value: Any) -> str:
    """A value as one word: quoted if it has spaces or what a terminal would obey."""
    text = str(_plain(value))
    return text if text.isprintable() and text and not set(text) & set(' "=') else _one_line(repr(text))


def _one_line(text: str) -> str:
    """Nothing that breaks the line or moves a terminal's cursor: what a client sent may be in there."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
