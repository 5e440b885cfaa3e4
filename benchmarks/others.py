"""Other durable queues, by their own protocols and synced to the disk at each write: anchors beside the native client.

Redis (a stream with a consumer group, `appendfsync always`) and beanstalkd (`-f 0`), where they are installed. Each
gets what it does best: batches of pipelined commands from one connection, through a message's whole life.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from benchmarks.http_load import BODY_BYTES
from benchmarks.machine import cpu_s
from benchmarks.sqs_wire import bodies
from headrace.testing.ports import free_port

BATCHES: Final = (100, 1_000)
START_TIMEOUT_S: Final = 20
LIMIT_S: Final = 10.0
"""A measurement that takes longer is cut here."""


@dataclass(frozen=True)
class OtherFigures:
    """One measurement of one connection."""

    server: str
    batch: int
    messages: int
    messages_per_s: float
    server_cpu_us: float


class Queue(Protocol):
    """A connection that can take a batch through its whole life."""

    def cycle(self, texts: Sequence[bytes]) -> int:
        """Send, receive and delete the messages; how many were deleted."""


class RedisStream:
    """Redis's answer to a queue with acknowledgements: XADD, XREADGROUP, XACK and XDEL."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._answers: BinaryIO = self._socket.makefile("rb")
        self._ask([[b"XGROUP", b"CREATE", b"q", b"g", b"0", b"MKSTREAM"]])

    def cycle(self, texts: Sequence[bytes]) -> int:
        self._ask([[b"XADD", b"q", b"*", b"b", text] for text in texts])
        read = [b"XREADGROUP", b"GROUP", b"g", b"c", b"COUNT", b"%d" % len(texts), b"STREAMS", b"q", b">"]
        (streams,) = self._ask([read])
        ids = [entry[0] for _, entries in streams for entry in entries]
        _, deleted = self._ask([[b"XACK", b"q", b"g", *ids], [b"XDEL", b"q", *ids]])
        return int(deleted)

    def _ask(self, commands: list[list[bytes]]) -> list[Any]:
        """Send the commands in one write; their answers."""
        self._socket.sendall(b"".join(_resp(command) for command in commands))
        return [self._read() for _ in commands]

    def _read(self) -> Any:
        kind, rest = (line := self._answers.readline())[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(f"Redis: {rest.decode()}")
        if kind == b"$":
            return self._answers.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def _resp(command: Sequence[bytes]) -> bytes:
    parts = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)
    return b"*%d\r\n%b" % (len(command), parts)


class Beanstalk:
    """put, reserve, delete; pipelined."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._answers: BinaryIO = self._socket.makefile("rb")

    def cycle(self, texts: Sequence[bytes]) -> int:
        self._ask([b"put 0 0 600 %d\r\n%b\r\n" % (len(text), text) for text in texts], b"INSERTED")
        self._socket.sendall(b"reserve\r\n" * len(texts))
        ids = [self._reserved() for _ in texts]
        self._ask([b"delete %b\r\n" % id for id in ids], b"DELETED")
        return len(ids)

    def _ask(self, commands: list[bytes], expected: bytes) -> None:
        self._socket.sendall(b"".join(commands))
        for _ in commands:
            answer = self._answers.readline()
            if not answer.startswith(expected):
                raise RuntimeError(f"beanstalkd: {answer!r}")

    def _reserved(self) -> bytes:
        _, id, size = self._answers.readline().split()
        self._answers.read(int(size) + 2)
        return id


@dataclass(frozen=True)
class Other:
    """A server: its program, its command line from (data folder, port), its client."""

    name: str
    program: str
    command: Callable[[Path, int], list[str]]
    connect: Callable[[int], Queue]


OTHERS: Final = (
    Other(
        "Redis stream, appendfsync always",
        "redis-server",
        lambda data, port: [
            "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always",
        ],
        RedisStream,
    ),
    Other(
        "beanstalkd -f 0",
        "beanstalkd",
        lambda data, port: ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", str(data), "-f", "0"],
        Beanstalk,
    ),
)  # fmt: skip


def measure(data: Path, *, messages: int, say: Callable[[str], None]) -> Iterator[OtherFigures]:
    """Every server that is installed, at each batch size."""
    for other in OTHERS:
        if shutil.which(other.program) is None:
            say(f"{other.program} is left out: it is not installed")
            continue
        say(other.name)
        with _running(other, data / other.program) as (process, queue):
            for batch in BATCHES:
                yield _measure(other, process.pid, queue, batch=batch, messages=messages)


def _measure(other: Other, pid: int, queue: Queue, *, batch: int, messages: int) -> OtherFigures:
    texts = [text.encode() for text in bodies(batch, BODY_BYTES)]
    queue.cycle(texts)
    done, started, used = 0, time.perf_counter(), cpu_s(pid)
    while done < messages and time.perf_counter() < started + LIMIT_S:
        done += queue.cycle(texts)
    took = time.perf_counter() - started
    return OtherFigures(other.name, batch, done, done / took, (cpu_s(pid) - used) / done * 1e6)


@contextmanager
def _running(other: Other, data: Path) -> Iterator[tuple[subprocess.Popen[bytes], Queue]]:
    data.mkdir(parents=True)
    port = free_port()
    process = subprocess.Popen(other.command(data, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process, _connect(other, process, port)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(data, ignore_errors=True)


def _connect(other: Other, process: subprocess.Popen[bytes], port: int) -> Queue:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None:
        try:
            return other.connect(port)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    raise RuntimeError(f"{other.program} does not answer")
