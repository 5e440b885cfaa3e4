"""What parent and child tell each other: JSON lines on a socket pair. Its end tells each that the other is gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from headrace.work.pool.task_stats import TaskCounters


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The child has imported the app. `target`: the broker that the app names, empty for none."""

    target: str = ""


class Working(msgspec.Struct, frozen=True, tag=True):
    """The child fetches tasks."""

    queues: tuple[str, ...] = ()


class Leaving(msgspec.Struct, frozen=True, tag=True):
    """The child fetches nothing any more, and ends when what runs has ended."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The child cannot start, and exits."""

    reason: str


class Report(msgspec.Struct, frozen=True, tag=True):
    """What the child has done so far, once a second; only if somebody wants metrics."""

    tasks: dict[str, TaskCounters]
    running: int
    in_hand: int
    rss_bytes: int


class Connect(msgspec.Struct, frozen=True, tag=True):
    """To the child: the broker is there; it is reached so."""

    target: str


class Leave(msgspec.Struct, frozen=True, tag=True):
    """To the child: fetch nothing any more, finish what runs within `drain_s`, give back the rest, end."""

    drain_s: float


Message: TypeAlias = Loaded | Working | Leaving | Failed | Report | Connect | Leave

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Message)
LINE_BYTES_MAX: Final = 1_048_576
"""A report of 200 tasks is about 60 kB."""


def encode(message: Message) -> bytes:
    return _ENCODER.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    message: Message = _DECODER.decode(line)
    return message


class Line:
    """The child's end: a thread reads it."""

    def __init__(self, descriptor: int, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._on_message = on_message
        self._on_end = on_end
        self._sending = threading.Lock()

    def start(self) -> None:
        threading.Thread(target=self._read, name="headrace control", daemon=True).start()

    def tell(self, message: Message) -> None:
        """A parent that is gone hears nothing; `on_end` knows."""
        with self._sending:
            try:
                self._socket.sendall(encode(message))
            except OSError:
                return

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            while line := _next(lines.readline):
                self._on_message(decode(line))
        self._on_end()


def _next(readline: Callable[[int], bytes]) -> bytes:
    try:
        return readline(LINE_BYTES_MAX)
    except OSError:
        return b""
