"""Worker processes, their connections and an edge's loop as a simulation: a real dispatcher with real links, no sockets, no
threads, no clock. What a process has written is read when the simulation says so, its death link by link.

Threads of a WSGI worker keep the rules of `headrace.web.ipc.wsgi_link`; here they are again in a few lines.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from headrace.web.dispatch.dispatcher import Dispatcher
from headrace.web.dispatch.prefetch_policy import is_repeatable
from headrace.web.ipc.frames import COUNT, HEADER, HEADER_BYTES, LONG, Hello, Kind, Request
from headrace.web.ipc.worker_link import WorkerLink
from tests.web.scripted import head


@dataclass(order=True)
class Timer:
    due_s: float
    order: int
    act: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The part of asyncio's that dispatchers and links use. Time passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[Timer] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now_s

    def call_soon(self, act: Callable[..., object], *arguments: object) -> None:
        self._soon.append(lambda: cast("None", act(*arguments)))

    def call_later(self, seconds: float, act: Callable[..., object], *arguments: object) -> Timer:
        timer = Timer(self.now_s + seconds, next(self._order), lambda: cast("None", act(*arguments)))
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        while self._soon:
            self._soon.popleft()()

    def pass_time(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._timers and self._timers[0].due_s <= until_s:
            timer = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, timer.due_s)
            if not timer.cancelled:
                timer.act()
                self.run()
        self.now_s = until_s


@dataclass(eq=False)
class Job:
    """A request, as a worker has it."""

    number: int
    target: str
    repeatable: bool
    upgrade: bool
    started: bool = False


class Transport:
    """The edge's end of a connection."""

    def __init__(self, end: End) -> None:
        self.end = end
        self._closing = False

    def is_closing(self) -> bool:
        return self._closing

    def set_write_buffer_limits(self, *, high: int) -> None: ...

    def get_extra_info(self, _: str) -> Transport:
        return self

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("3i", self.end.process.pid, 0, 0)

    def write(self, data: bytes) -> None:
        self.end.arrived += data

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.end.process.loop.call_soon(self.end.lose, None)

    abort = close


class End:
    """A worker's end of a link: one thread's, one that ASGI requests share, or a control thread's."""

    def __init__(self, process: Process, number: int, capacity: int) -> None:
        self.process = process
        self.number = number
        self.capacity = capacity
        self.link: WorkerLink | None = None
        """Once the edge has accepted it."""
        self.out: deque[bytes] = deque()
        """Written, and not read by the edge."""
        self.arrived = bytearray()
        self.hung_up = False
        """Behind `out` comes the end."""
        self.cut = False
        """It dies of a write of the edge: what it has written is not read any more."""
        self.over = False
        """The edge knows of the end."""
        self.garbled = False
        self.dismissed = False
        self.inbox: list[Job] = []
        self.running: list[Job] = []
        hello = Hello(process.pid, process.generation, process.interface, capacity, [], number)
        self.send(Kind.HELLO, 0, msgspec.msgpack.encode(hello))

    @property
    def lives(self) -> bool:
        return not (self.hung_up or self.over)

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.out.append(HEADER.pack(len(payload), number, kind) + payload)

    # The edge's side

    def accept(self, server: Server) -> None:
        self.link = WorkerLink(cast("Any", server))
        self.link.connection_made(cast("Any", Transport(self)))

    def read(self, pieces: int) -> None:
        """Let the edge read what has come, or the end."""
        assert self.link is not None
        if self.link.transport.is_closing():
            return
        if self.cut:
            self.link.transport._closing = True  # type: ignore[attr-defined]
            self.lose(BrokenPipeError())
        elif self.out:
            data = b"".join(self.out.popleft() for _ in range(min(pieces, len(self.out))))
            self.link.data_received(data)
        elif self.hung_up:
            self.link.transport._closing = True  # type: ignore[attr-defined]
            self.lose(None)

    def lose(self, error: Exception | None) -> None:
        assert self.link is not None
        self.over = True
        self.link.connection_lost(error)

    # The worker's side

    def hear(self) -> None:
        """Take what has arrived."""
        data = self.arrived
        while len(data) >= HEADER_BYTES:
            length, number, kind = HEADER.unpack_from(data)
            payload = bytes(data[HEADER_BYTES : HEADER_BYTES + length])
            del data[: HEADER_BYTES + length]
            self._take(Kind(kind), number, payload)

    def _take(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind is Kind.REQUEST:
            begin = COUNT.size + COUNT.unpack_from(payload)[0]
            request = msgspec.msgpack.decode(payload[COUNT.size : begin], type=Request)
            self.inbox.append(Job(number, request.target, is_repeatable(request), bool(request.upgrade)))
        elif kind is Kind.PING:
            self.send(Kind.PONG, number, payload)
        elif kind is Kind.LEAVE:
            self.dismissed = True
            self.process.leave()
        elif kind is Kind.RECALL:
            self.process.return_unstarted(COUNT.unpack(payload)[0])
        elif kind is Kind.GONE and any(job.number == number for job in self.inbox):
            self.inbox = [job for job in self.inbox if job.number != number]
            self.send(Kind.GONE, number)

    def return_unstarted(self) -> None:
        """What was not begun; only threads do."""
        for job in self.inbox:
            self.send(Kind.RETURN, job.number)
        self.inbox.clear()

    def begin(self) -> Job | None:
        """Run the next one, if there is room for it."""
        if not self.inbox or (self.running and self.process.interface == "wsgi"):
            return None
        job = self.inbox.pop(0)
        self.running.append(job)
        return job

    def answer(self, job: Job, *, long: bool = False) -> None:
        self.running.remove(job)
        if job.started:
            self.send(Kind.ENDED, job.number, b"\1" * long)
        else:
            self.send(Kind.ANSWER, job.number, head(flags=LONG * long) + job.target.encode())

    def start(self, job: Job) -> None:
        """Of the answer the head, and some of the body; or the tunnel that was asked for."""
        job.started = True
        self.send(Kind.HEAD, job.number, head(101 if job.upgrade else 200))
        self.send(Kind.DATA, job.number, job.target.encode())

    def give_up(self, job: Job) -> None:
        self.running.remove(job)
        self.send(Kind.GONE, job.number)

    def hang_up_if_done(self) -> None:
        if self.dismissed and self.capacity and not (self.running or self.inbox or self.arrived):
            self.hung_up = True
        self.process.end_if_done()


class Process:
    """A worker: threads with a control thread, or a loop."""

    def __init__(
        self, loop: Loop, pid: int, *, generation: int, interface: str, threads: int, has_control_thread: bool
    ) -> None:
        self.loop = loop
        self.pid = pid
        self.generation = generation
        self.interface = interface
        self.lives = True
        self.leaving = False
        self.ends: list[End] = []
        """All there have been."""
        capacity = 1 if interface == "wsgi" else 100
        self._sockets = [capacity] * threads + [0] * has_control_thread

    def connect(self) -> None:
        """A link for each thread that has none, as it knows."""
        for number, capacity in enumerate(self._sockets):
            if self.lives and not self.leaving and not any(end.number == number and end.lives for end in self.ends):
                self.ends.append(End(self, number, capacity))

    def return_unstarted(self, number: int) -> None:
        for end in self.ends:
            if end.number == number and end.lives:
                end.hear()
                end.return_unstarted()

    def leave(self) -> None:
        if self.leaving:
            return
        self.leaving = True
        for end in self.ends:
            if end.lives and end.capacity:
                end.send(Kind.LEAVE, 0)
                if self.interface == "wsgi":
                    end.return_unstarted()
        self.end_if_done()

    def end_if_done(self) -> None:
        if self.leaving and not any(end.lives and end.capacity for end in self.ends):
            self.lives = False
            for end in self.ends:
                if end.lives:
                    end.send(Kind.LEAVE, 0)
                    end.hung_up = True

    def die(self, *, cut: bool) -> None:
        """Args: cut: what it has written and the edge has not read is lost."""
        self.lives = False
        for end in self.ends:
            if end.lives:
                end.cut = cut and end.link is not None
                end.hung_up = True


class Server:
    """In place of `links.LinkServer`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.links: dict[WorkerLink, None] = {}

    def opened(self, link: WorkerLink) -> None:
        self.links[link] = None

    def closed(self, link: WorkerLink) -> None:
        del self.links[link]
