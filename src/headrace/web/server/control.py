"""The control channel: messages between the supervisor and its processes.

One Unix stream socket a process, to a socket file in a folder that only the user may enter. It is the lifeline, too: a
process whose channel ends knows that the supervisor is gone, however it died, and drains; no process outlives it.

  4 bytes: length (u32, little-endian); then one message as msgpack

  process → supervisor                                   supervisor → process
  Hello    who connects                                  Boot     settings and addresses: begin
  Ready    imported (fork server), started (worker), listens  Serve    worker: take requests from now on
  Failed   it could not; the reason, for people          Fork     fork server: fork a worker
  Serving  worker: requests come                         Kill     fork server: kill -9 a worker that is its child
  Exited   fork server: a worker has ended, and how           Apply    edge: apps and routes as in these settings
  Report   each second: counts, memory, statistics       Leave    finish what you have, and end
  Retire   worker: replace me, then let me go            Ending   worker: the server is about to end
  Hung     edge: a request of this process ran too long
  Applied  edge: whether it could                        Reopen   reopen the log files
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

import msgspec

REPORT_S: Final = 1.0
"""Between two Reports of a process. After several times as long without one it counts as stuck (reconciler, edges)."""

_LENGTH: Final = struct.Struct("<I")
_MESSAGE_BYTES_MAX: Final = 16 * 1_048_576
"""Far beyond statistics of a thousand routes; a longer message is not ours."""

Role: TypeAlias = Literal["edge", "fork_server", "worker"]


class Hello(msgspec.Struct, frozen=True, tag=True):
    """`number` was given by the supervisor: of the edge, the generation, the worker. `worker_group`: whose fork server
    or worker."""

    role: Role
    pid: int
    number: int
    worker_group: int = 0


class Ready(msgspec.Struct, frozen=True, tag=True):
    """`interface`: of the app, `wsgi` or `asgi`; empty if it is not known (yet)."""

    interface: str = ""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """`reason` in one line; the traceback has been logged."""

    reason: str


class Serving(msgspec.Struct, frozen=True, tag=True):
    """A worker takes requests."""


class Exited(msgspec.Struct, frozen=True, tag=True):
    """`code` as in `subprocess.Popen.returncode`: negative is a signal."""

    worker: int
    code: int


class Report(msgspec.Struct, frozen=True, tag=True):
    """`statistics` of an edge, or of a worker without one: what `headrace.web.frontend.metrics` reads."""

    requests: int = 0
    in_flight: int = 0
    rss_bytes: int = 0
    statistics: bytes = b""


class Retire(msgspec.Struct, frozen=True, tag=True):
    """A worker asks to be replaced."""

    reason: str


class RequestTimedOut(msgspec.Struct, frozen=True, tag=True):
    """A request has run into its limit in the worker `pid`. From an edge, or in direct mode from the worker itself."""

    pid: int


class Applied(msgspec.Struct, frozen=True, tag=True):
    """`error` is empty if the settings are in force."""

    error: str = ""


class Boot(msgspec.Struct, frozen=True, tag=True):
    """What a process needs to start. `sockets`: descriptors of listening sockets that it has inherited."""

    settings: bytes
    """As `headrace.settings.dump` wrote them."""
    apps: list[str] = []
    """The specs of the apps: edge: all; fork server: its own."""
    links: list[list[str]] = []
    """For each of `apps`: the paths of the edges' sockets that its workers connect to. Edge: its own socket alone."""
    sockets: list[int] = []
    generation: int = 0
    shared: bool = False
    """Whether several processes listen on the same socket."""


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Take requests."""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """`index` is the worker's place among its like; a replacement takes the same."""

    worker: int
    index: int


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Kill a worker with SIGKILL. The fork server is the parent, so that the process id cannot be another's meanwhile."""

    worker: int


class Leave(msgspec.Struct, frozen=True, tag=True):
    """Finish within `grace_s`. `idle_s`: how long idle connections are kept for the next request, which is answered and
    closes them: a client that sends one just now should not be cut while another process serves the address."""

    grace_s: float
    idle_s: float = 0.0


class Apply(msgspec.Struct, frozen=True, tag=True):
    """New settings for an edge. Without `switch` it only checks them, and accepts workers of new apps."""

    settings: bytes
    apps: list[str]
    links: list[list[str]]
    switch: bool


class ShuttingDown(msgspec.Struct, frozen=True, tag=True):
    """To a worker: the server is about to end; close WebSockets, which would not end by themselves."""


class Reopen(msgspec.Struct, frozen=True, tag=True):
    """Log files were moved away."""


Message: TypeAlias = (
    Hello
    | Ready
    | Failed
    | Serving
    | Exited
    | Report
    | Retire
    | RequestTimedOut
    | Applied
    | Boot
    | Serve
    | Fork
    | Kill
    | Leave
    | Apply
    | ShuttingDown
    | Reopen
)

_encode = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Message)


class MalformedMessage(ValueError):
    """Invalid bytes, or a message of another version."""


def encode(message: Message) -> bytes:
    payload = _encode(message)
    return _LENGTH.pack(len(payload)) + payload


class MessageDecoder:
    """Bytes in any pieces → messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Raises: Malformed."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _MESSAGE_BYTES_MAX:
                raise MalformedMessage(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                yield cast("Message", _decode.decode(payload))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second: of a text that is none
                raise MalformedMessage(str(error)) from None


class ControlChannel(asyncio.Protocol):
    """An end on an event loop. `on_message` is called for each message, `on_lost` once, when the other end is gone."""

    def __init__(
        self,
        *,
        on_message: Callable[[ControlChannel, Message], None],
        on_lost: Callable[[ControlChannel], None],
        on_open: Callable[[ControlChannel], None] = lambda _: None,
    ) -> None:
        self.on_message = on_message
        self.on_lost = on_lost
        self._on_open = on_open
        self._stream = MessageDecoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._stream.feed(data):
                self.on_message(self, message)
        except MalformedMessage:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._transport = None
        self.on_lost(self)

    def send(self, message: Message) -> None:
        """Send a message. A lost peer is reported by `on_lost`, not here."""
        if self._transport is not None:
            self._transport.write(encode(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class BlockingControlChannel:
    """An end in a process without a loop. One thread."""

    def __init__(self, path: Path) -> None:
        """Connect. Raises: OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._stream = MessageDecoder()
        self.lost = False
        """The other end is gone, and `read` has said so."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message. A lost peer is reported by `read`, not here."""
        try:
            self._socket.sendall(encode(message))
        except OSError:
            return

    def read(self) -> list[Message] | None:
        """Wait for messages; None once the other end is gone."""
        try:
            data = self._socket.recv(65_536)
            if data:
                return list(self._stream.feed(data))
        except (OSError, MalformedMessage):
            pass
        self.lost = True
        return None

    def detach(self) -> socket.socket:
        """The socket, for a `ControlChannel`; nothing must have been read but whole messages."""
        return self._socket

    def receive(self) -> Message | None:
        """Wait for the first message of all; None once the other end is gone."""
        while True:
            messages = self.read()
            if messages is None:
                return None
            if messages:
                assert len(messages) == 1, "the supervisor waits for an answer to its first message"
                return messages[0]

    def close(self) -> None:
        self._socket.close()
