"""A WSGI application as the target of exchanges in the same process: `--direct`.

Exchanges live on the loop, applications block: a request goes to a thread by a SimpleQueue, and what the thread says of
its answer comes back as steps in one deque, for which the loop is woken once however many there are. Under load that is
one wake-up for a batch of answers, where one for each would be the most expensive part of a request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from headrace.errors import InvalidParameter
from headrace.http import problem
from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.web.apps.wsgi import ClientGone, RequestChannel, WsgiApp, WsgiRunner

WINDOW_BYTES: Final = 262_144
"""Of a body that its thread has not read, and of an answer that its client has not taken: a slow one holds no more."""
_PIECE_BYTES_MAX: Final = 65_536

_log: Final = logging.getLogger("headrace.web")


class WsgiTarget:
    """A pool of threads that run a WSGI application. Everything but the application runs on the loop.

    Invariant: `in_flight` counts the requests that are queued for a thread or have one.
    """

    def __init__(self, app: WsgiApp, *, threads: int, multiprocess: bool = True) -> None:
        """Starts the threads; answers are given on the loop that runs now."""
        if threads < 1:
            raise InvalidParameter("threads", str(threads), "at least one is needed")
        self.capacity = threads
        self.in_flight = 0
        self.requests = 0
        """Taken so far."""
        self.on_free: Callable[[], None] | None = None
        """Called on the loop whenever `in_flight` has fallen."""
        self._runner = WsgiRunner(app, multithread=threads > 1, multiprocess=multiprocess)
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_ThreadChannel | None] = SimpleQueue()
        self._steps: deque[tuple[Any, ...]] = deque()
        self._woken = False
        self._idle = asyncio.Event()
        self._closing = False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"headrace-wsgi-{number}", daemon=True).start()

    def __call__(self, exchange: Exchange) -> None:
        if self._closing:
            problem.respond(exchange, 503, "The server is stopping.", kind="draining")
            return
        self.in_flight += 1
        self.requests += 1
        self._jobs.put(_ThreadChannel(self, exchange, exchange.take() if exchange.ended else None))

    async def close(self, grace_s: float = 10.0) -> bool:
        """Take no further requests, and wait for those that run. Returns whether all have ended in time; else threads are left."""
        self._closing = True
        if self.in_flight:
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                return False
        for _ in range(self.capacity):
            self._jobs.put(None)
        return True

    # Threads

    def _work(self) -> None:
        room = threading.Condition()
        run = self._runner.run
        while (job := self._jobs.get()) is not None:
            job.room = room
            if job.exchange.gone:
                job.abort()  # its client has left
            else:
                run(job.exchange, job, job.body)
            if job.retired:
                self.post(self.release)

    def post(self, *step: Any) -> None:
        """For threads: have the loop call `step[0]` with the rest. Steps keep their order."""
        self._steps.append(step)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._take_steps)
            except RuntimeError:
                _log.debug("a thread has answered after the end of the loop", extra={"action": "web.wsgi.late"})

    def _take_steps(self) -> None:
        # Before the steps are looked at: one that comes right afterwards wakes the loop again.
        self._woken = False
        steps = self._steps
        while steps:
            step = steps.popleft()
            try:
                step[0](*step[1:])
            except Exception:  # noqa: BLE001  # one answer's step must not keep the others'
                _log.exception("an answer failed", extra={"action": "web.wsgi.failed"})

    # Loop

    def release(self) -> None:
        self.in_flight -= 1
        if self._closing and not self.in_flight:
            self._idle.set()
        if self.on_free is not None:
            self.on_free()


class _ThreadChannel(RequestChannel):
    """A request on its way through a thread: the thread's channel, and that channel's other end on the loop.

    The thread's methods only post steps and wait; the loop's touch the exchange. What both touch is guarded by `room`, a
    condition that the thread lends to its jobs one after another. Most requests need none of it: one step answers them.
    """

    __slots__ = (
        "_ahead",
        "_body_ended",
        "_buffered",
        "_pending",
        "_pieces",
        "_target",
        "body",
        "exchange",
        "retired",
        "room",
    )

    room: threading.Condition

    def __init__(self, target: WsgiTarget, exchange: Exchange, body: bytes | None) -> None:
        self._target = target
        self.exchange = exchange
        self.body = body
        """All of it, or None: it is still arriving."""
        self.retired = False
        """The thread has work after the answer, and is free only then."""
        self._ahead = 0  # bytes of the answer that have not been given to the exchange
        self._pending: deque[tuple[Any, ...]] = deque()
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._body_ended = body is not None

    # The thread's side

    def read(self) -> bytes:
        with self.room:
            while not self._pieces:
                if self._body_ended:
                    return b""
                self._check()
                self._target.post(self._want)
                self.room.wait()
            piece = self._pieces.popleft()
            was_full = self._buffered >= WINDOW_BYTES
            self._buffered -= len(piece)
        if was_full:
            self._target.post(self._want)
        return piece

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        self._target.post(self._respond, status, fields, body)

    def start(self, status: int, fields: Fields) -> None:
        self._target.post(self._start, status, fields)

    def send(self, data: bytes) -> None:
        if len(data) <= _PIECE_BYTES_MAX:
            self._send(data)
            return
        for begin in range(0, len(data), _PIECE_BYTES_MAX):
            self._send(data[begin : begin + _PIECE_BYTES_MAX])

    def _send(self, piece: bytes) -> None:
        with self.room:
            self._check()
            while self._ahead >= WINDOW_BYTES:
                self.room.wait()
                self._check()
            self._ahead += len(piece)
        self._target.post(self._push, len(piece), self.exchange.send, piece)

    def _check(self) -> None:
        # No lost wake-up: the loop sets `gone` before it takes `room` to report it.
        if self.exchange.gone:
            raise ClientGone("the client disconnected")

    def send_file(self, fd: int, offset: int, count: int) -> None:
        self._check()
        self._target.post(self._push, 0, self.exchange.send_file, os.dup(fd), offset, count)

    def finish(self) -> None:
        self._target.post(self._finish)

    def abort(self) -> None:
        self._target.post(self._abort)

    def retire(self) -> None:
        self.retired = True

    # The loop's side: the body

    def _want(self) -> None:
        self.exchange.notify = self._advance
        self._feed()

    def _feed(self) -> None:
        if self._body_ended or self._buffered >= WINDOW_BYTES:
            return
        exchange = self.exchange
        ended = exchange.ended
        data = exchange.take()
        with self.room:
            if data:
                self._pieces.append(data)
                self._buffered += len(data)
            self._body_ended = ended
            if data or ended or exchange.gone:
                self.room.notify()

    # The loop's side: the answer

    def _respond(self, status: int, fields: Fields, body: bytes) -> None:
        self.exchange.notify = None
        try:
            self.exchange.respond(status, fields, body)
        finally:
            self._release()

    def _start(self, status: int, fields: Fields) -> None:
        self.exchange.notify = self._advance
        self.exchange.start(status, fields)

    def _push(self, *step: Any) -> None:
        self._pending.append(step)
        self._advance()

    def _finish(self) -> None:
        try:
            self._push(0, self.exchange.finish)
        finally:
            self._release()

    def _abort(self) -> None:
        try:
            self.exchange.abort()
            self._advance()
        finally:
            self._release()

    def _release(self) -> None:
        """The thread is free; what it said may still be on its way."""
        if not self.retired:
            self._target.release()

    def _advance(self) -> None:
        """Something has changed, or there is more to send. To an exchange that is gone all is sent: it drops it."""
        if not self._body_ended:
            self._feed()
        exchange, pending, passed_on = self.exchange, self._pending, 0
        while pending and exchange.writable:
            step = pending.popleft()
            passed_on += step[0]
            step[1](*step[2:])
        if passed_on or exchange.gone:
            with self.room:
                self._ahead -= passed_on
                self.room.notify()
