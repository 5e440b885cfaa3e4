"""Runs stored requests: receives them from the broker, runs each through the request router, and stores the response or
retries later.

A stored request is run as a `ReplayedExchange`: its body is whole, and its response is kept instead of sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from headrace.errors import HeadraceError, ReceiptExpired
from headrace.http.exchange import Exchange, Target
from headrace.http.fields import Fields
from headrace.native.aio_queue import AsyncReceivedMessage
from headrace.web.stored import records
from headrace.web.stored.limits import EXTEND_EACH_S, PAUSE_S, POLL_S, RESPONSE_BYTES_MAX, RUNNING_MAX, SWEEP_EACH_S
from headrace.web.stored.records import RequestRecord, Response, StoredRequest
from headrace.web.stored.request_store import RequestStore

_log: Final = logging.getLogger("headrace.web")


class StoredRequestRunner:
    """Invariants: messages that are received and not settled are in `_running`; those that run are in `_held`, and their leases
    are renewed."""

    def __init__(self, store: RequestStore, target: Target) -> None:
        """Args: target: routes a request to its application; rate limits and the access log are for clients."""
        self._store = store
        self._target = target
        self._running: set[asyncio.Task[None]] = set()
        self._held: set[AsyncReceivedMessage] = set()
        self._room = asyncio.Event()
        self._watched: dict[str, asyncio.Future[RequestRecord]] = {}
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for work in (self._pull, self._extend, self._sweep):
            self._loops.append(asyncio.ensure_future(_restart_forever(work)))

    async def close(self, grace_s: float) -> None:
        """Receive no more, and finish running requests; those that take longer than the grace run again after their lease."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._running:
            extending = asyncio.ensure_future(self._extend())
            await asyncio.wait(self._running, timeout=grace_s)
            extending.cancel()
            for task in tuple(self._running):
                task.cancel()

    def watch(self, request_id: str) -> asyncio.Future[RequestRecord]:
        """The record once the request has ended, if it ends here; whoever waits cancels it."""
        watched: asyncio.Future[RequestRecord] = asyncio.get_running_loop().create_future()
        self._watched[request_id] = watched
        watched.add_done_callback(lambda _: self._watched.pop(request_id, None))
        return watched

    # --- pulling ---

    async def _pull(self) -> None:
        while True:
            self._room.clear()
            free = RUNNING_MAX - len(self._running)
            if not free:
                await self._room.wait()
                continue
            try:
                messages = await self._store.receive(free, wait_s=POLL_S)
            except HeadraceError as error:
                _log.warning("durable requests wait: %s", error, extra={"action": "web.durable.broker"})
                await asyncio.sleep(PAUSE_S)
                continue
            for message in messages:
                self._begin(message)

    def _begin(self, message: AsyncReceivedMessage) -> None:
        task = asyncio.ensure_future(self._run_guarded(message))
        self._running.add(task)
        self._held.add(message)
        task.add_done_callback(partial(self._ended, message))

    def _ended(self, message: AsyncReceivedMessage, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._held.discard(message)
        self._room.set()

    async def _extend(self) -> None:
        while True:
            await asyncio.sleep(EXTEND_EACH_S)
            if self._held:
                try:
                    await self._store.extend(list(self._held))
                except HeadraceError as error:
                    _log.warning("leases were not extended: %s", error, extra={"action": "web.durable.lease"})

    async def _sweep(self) -> None:
        while True:
            try:
                while await self._store.sweep():
                    pass
            except HeadraceError as error:
                _log.warning("expired results stay for now: %s", error, extra={"action": "web.durable.sweep"})
            await asyncio.sleep(SWEEP_EACH_S)

    # --- running ---

    async def _run_guarded(self, message: AsyncReceivedMessage) -> None:
        """Run a message. After any error the message is still in its queue: its lease ends, and it is delivered again."""
        try:
            await self._run(message)
        except ReceiptExpired:
            _log.warning("a lease was lost: the request runs again", extra={"action": "web.durable.lease"})
        except HeadraceError as error:
            _log.warning("a durable request runs again: %s", error, extra={"action": "web.durable.broker"})
        except Exception:  # noqa: BLE001  # a bug of ours costs this attempt only
            _log.exception("a durable request could not be run", extra={"action": "web.durable.bug"})

    async def _run(self, message: AsyncReceivedMessage) -> None:
        request = records.decode_request(message.body)
        record = await self._store.start(message, request)
        if record.attempts > request.attempts_max:
            await self._give_up(message, request, record, record.error or "no attempt has come to an end")
            return
        body = await self._store.body(request)
        if body is None:
            await self._give_up(message, request, record, "its body has expired")
            return
        exchange = ReplayedExchange(request, body, record.attempts)
        try:
            self._target(exchange)
        except Exception:  # noqa: BLE001  # the target's contract
            _log.exception("a target failed", extra={"action": "web.durable.bug", "path": exchange.path})
            exchange.abort()
        response = await exchange.outcome
        if exchange.refused:
            await self._postpone(message, record)
        elif response is None or response.status >= 500:
            await self._retry(message, request, record, response)
        else:
            self._resolve_watched(await self._store.finish(message, request, record, response=response))

    async def _postpone(self, message: AsyncReceivedMessage, record: RequestRecord) -> None:
        await self._put_off(message, records.not_run(record, now_ms=self._store.now_ms()), PAUSE_S)

    async def _put_off(self, message: AsyncReceivedMessage, record: RequestRecord, delay_s: float) -> None:
        self._held.discard(message)  # an extension would bring its lease back
        await self._store.put(message, record)
        await message.release(delay_s)

    async def _retry(
        self, message: AsyncReceivedMessage, request: StoredRequest, record: RequestRecord, response: Response | None
    ) -> None:
        error = f"attempt {record.attempts} was answered {response.status}" if response else "the answer was cut"
        if record.attempts >= request.attempts_max:
            await self._give_up(message, request, record, error, response)
            return
        delay_s = records.retry_delay_s(record.attempts, request.retry_s)
        await self._put_off(message, records.to_retry(record, error, now_ms=self._store.now_ms()), delay_s)

    async def _give_up(
        self,
        message: AsyncReceivedMessage,
        request: StoredRequest,
        record: RequestRecord,
        error: str,
        response: Response | None = None,
    ) -> None:
        _log.error(
            "durable request %s failed for good: %s", request.id, error,
            extra={"action": "web.durable.failed", "request": request.id, "attempts": record.attempts},
        )  # fmt: skip
        self._resolve_watched(await self._store.finish(message, request, record, response=response, error=error))

    def _resolve_watched(self, record: RequestRecord) -> None:
        watched = self._watched.get(record.id)
        if watched is not None and not watched.done():
            watched.set_result(record)


async def _restart_forever(work: Callable[[], Awaitable[None]]) -> None:
    """A bug of ours costs a pause: without these loops nothing stored would run until the next start."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  # whatever it is
            _log.exception("durable requests pause", extra={"action": "web.durable.bug"})
            await asyncio.sleep(PAUSE_S)


PRIORITY_LAST = 2
"""Durable requests have time: clients that wait go first."""
_FILE_PIECE_BYTES = 1_048_576
_ID, _ATTEMPT = OWN_HEADERS = (b"headrace-request-id", b"headrace-attempt")
"""They identify a stored request to the application: the server removes them from clients' requests."""


class ReplayedExchange(Exchange):
    """Invariant: `outcome` is set once, to the answer if it is whole, else to None."""

    __slots__ = ("_answer", "_answer_bytes", "_body", "_fields", "outcome")

    def __init__(self, request: StoredRequest, body: bytes, attempt: int) -> None:
        """Args: attempt: 1 for the first; the application reads it as `Headrace-Attempt`, and the id beside it."""
        super().__init__()
        self.method = request.method
        self.target = request.target
        self.path, _, self.query = request.target.partition("?")
        self.headers = {
            **request.headers,
            _ID: request.id.encode(),
            _ATTEMPT: b"%d" % attempt,
        }
        if body or b"content-type" in request.headers:
            self.headers[b"content-length"] = b"%d" % len(body)
        self.version = request.version
        self.secure = request.secure
        self.peer = request.peer
        self.peer_port = request.peer_port
        self.server = request.server
        self.upgrade = b""
        self.length = len(body)
        self.expects = False
        self.began_s = time.monotonic()
        self.priority = PRIORITY_LAST
        self._body = body
        self._fields = Fields()
        self._answer = bytearray()
        self._answer_bytes = 0
        self.outcome: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

    def take(self) -> bytes:
        body, self._body = self._body, b""
        return body

    @property
    def ended(self) -> bool:
        return True

    @property
    def writable(self) -> bool:
        return True

    def _respond(self, status: int, fields: Fields, body: bytes, length: int) -> None:
        del status, length
        self._fields = fields
        self._send(body)
        self._finish()

    def _start(self, status: int, fields: Fields) -> None:
        del status
        self._fields = fields

    def _send(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        if self._answer_bytes <= RESPONSE_BYTES_MAX:
            self._answer += data
        else:
            self._answer.clear()  # a partial answer is useless

    def _send_file(self, fd: int, offset: int, count: int) -> None:
        with os.fdopen(fd, "rb", buffering=0):
            if self._answer_bytes + count > RESPONSE_BYTES_MAX:
                self._answer_bytes += count
                self._answer.clear()
                return
            while count and (piece := os.pread(fd, min(count, _FILE_PIECE_BYTES), offset)):
                self._send(piece)
                offset += len(piece)
                count -= len(piece)
        if count:
            self.abort()

    def _finish(self) -> None:
        self._settle(Response(self.status, self._fields.block, bytes(self._answer), self._answer_bytes))

    def _abort(self) -> None:
        self._settle(None)

    def _tunnel(self, fields: Fields) -> None:  # noqa: ARG002  # never called
        raise AssertionError("a stored request asks for no upgrade")

    def _inform(self, status: int, fields: Fields) -> None: ...

    def _settle(self, response: Response | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(response)
