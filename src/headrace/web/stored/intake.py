"""Accepts durable requests: collects the whole request, commits it to the broker, and answers 202. A cut body is dropped."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from headrace.errors import IN_DOUBT, HeadraceError
from headrace.http import problem
from headrace.http.exchange import Exchange
from headrace.web.settings import DurableSettings
from headrace.web.stored import records, status_pages
from headrace.web.stored.limits import BODY_BYTES_MAX, COLLECTED_BYTES_MAX
from headrace.web.stored.records import RequestRecord, StoredRequest
from headrace.web.stored.request_store import DuplicateRequest, RequestStore

_log: Final = logging.getLogger("headrace.web")


class _BodyBudget:
    """The memory of all bodies that are being collected. Invariant: at most COLLECTED_BYTES_MAX."""

    __slots__ = ("taken_bytes",)

    def __init__(self) -> None:
        self.taken_bytes = 0


class _BodyReservation:
    """The share of one body, from its start until its request is committed."""

    __slots__ = ("_budget", "_bytes")

    def __init__(self, budget: _BodyBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def grow(self, size_bytes: int) -> bool:
        """Reserve at least `size_bytes`; False if the budget is exhausted."""
        more = max(0, size_bytes - self._bytes)
        if self._budget.taken_bytes + more > COLLECTED_BYTES_MAX:
            return False
        self._bytes += more
        self._budget.taken_bytes += more
        return True

    def release(self) -> None:
        self._budget.taken_bytes -= self._bytes
        self._bytes = 0


Watch = Callable[[str], "asyncio.Future[RequestRecord]"]
"""The record once the request of this id has ended, if it ends in this process."""


class Intake:
    """Accepts the durable requests of a process. `begin` is called on the loop, once per request."""

    def __init__(self, store: RequestStore, watch: Watch) -> None:
        self._store = store
        self._watch = watch
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget = _BodyBudget()

    def begin(self, exchange: Exchange, rule: DurableSettings, *, asked: bool) -> None:
        try:
            key = records.read_idempotency_key(exchange.headers.get(b"idempotency-key"))
        except ValueError as error:
            problem.respond(exchange, 400, str(error), kind="idempotency-key-invalid")
            return
        if key is None and rule.key_required:
            problem.respond(exchange, 400, "this resource requires an Idempotency-Key", kind="idempotency-key-missing")
        elif exchange.length > BODY_BYTES_MAX:
            _refuse_length(exchange)
        else:
            self._spawn(self._run(exchange, rule, key, asked=asked))

    def show(self, exchange: Exchange, request_id: str, *, response: bool) -> None:
        """Answer a status URL."""
        self._spawn(self._show(exchange, request_id, response=response))

    async def close(self, grace_s: float) -> None:
        """Wait for requests that are being accepted; those that take longer than the grace are not accepted."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in tuple(self._tasks):
            task.cancel()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange, rule: DurableSettings, key: bytes | None, *, asked: bool) -> None:
        reservation = _BodyReservation(self._budget)
        try:
            body = await _collect(exchange, reservation)
            if body is not None:
                await self._accept(exchange, rule, key, body, asked=asked)
        except IN_DOUBT as error:
            advice = "repeat it with the same Idempotency-Key" if key else "an Idempotency-Key makes a repeat safe"
            _unavailable(exchange, f"it is unknown whether the request was accepted; {advice}", error)
        except HeadraceError as error:
            _unavailable(exchange, "the request was not accepted: the broker cannot be used now", error)
        except Exception:  # noqa: BLE001  # a bug of ours costs this request only
            _log.exception("a durable request failed", extra={"action": "web.durable.bug", "path": exchange.path})
            problem.respond(exchange, 500, "internal error; see the server's log")
        finally:
            reservation.release()

    async def _accept(
        self, exchange: Exchange, rule: DurableSettings, key: bytes | None, body: bytes, *, asked: bool
    ) -> None:
        request = _stored(exchange, rule, key, body)
        content_type = exchange.headers.get(b"content-type", b"")
        fingerprint = records.fingerprint_of(
            target=exchange.target, content_type=content_type, caller=_caller(exchange), body=body
        )
        wait_s = records.preferred_wait_s(exchange.headers.get(b"prefer"))
        watched = self._watch(request.id) if wait_s else None  # before it may have ended
        try:
            accepted = await self._store.accept(request, fingerprint)
            if isinstance(accepted, DuplicateRequest):
                status_pages.repeated(exchange, accepted.record, same=accepted.same)
                return
            ended = await _within(watched, wait_s) if watched else None
        finally:
            if watched:
                watched.cancel()
        if ended is not None and ended.response is not None and ended.response.whole:
            status_pages.replay(exchange, ended.response, ())
        else:
            status_pages.accepted(exchange, ended or accepted, asked=asked)

    async def _show(self, exchange: Exchange, request_id: str, *, response: bool) -> None:
        try:
            record = await self._store.find(request_id)
            if record is None:
                problem.respond(exchange, 404, f"there is no request {request_id}, or it has expired")
            elif response:
                status_pages.show_response(exchange, record)
            else:
                status_pages.show(exchange, record)
        except HeadraceError as error:
            _unavailable(exchange, "the broker cannot be asked now", error)
        except Exception:  # noqa: BLE001  # as in _run
            _log.exception("a status was not shown", extra={"action": "web.durable.bug", "request": request_id})
            problem.respond(exchange, 500, "internal error; see the server's log")


async def _within(watched: asyncio.Future[RequestRecord], seconds: float) -> RequestRecord | None:
    try:
        return await asyncio.wait_for(watched, seconds)
    except TimeoutError:
        return None


async def _collect(exchange: Exchange, reservation: _BodyReservation) -> bytes | None:
    """The whole body; None if it was cut or refused, and so answered or gone."""
    body = bytearray()
    changed = asyncio.Event()
    exchange.notify = changed.set
    expected = max(exchange.length, 0)
    while True:
        changed.clear()
        whole = exchange.ended
        piece = exchange.take()
        body += piece
        if exchange.gone or exchange.answered:
            return None
        if len(body) > BODY_BYTES_MAX:
            _refuse_length(exchange)
            return None
        if not reservation.grow(max(expected, len(body))):
            problem.respond(
                exchange, 503, "too many request bodies are in transit", headers=(status_pages.RETRY_AFTER,)
            )
            return None
        if whole and not piece:
            return bytes(body)
        if not piece:
            await changed.wait()


def _stored(exchange: Exchange, rule: DurableSettings, key: bytes | None, body: bytes) -> StoredRequest:
    scope = ""
    if key is not None:
        authorization = exchange.headers.get(b"authorization", b"")
        host = exchange.headers.get(b"host", b"").lower()
        scope = records.scope_of(
            key, method=exchange.method, host=host, path=exchange.path, authorization=authorization
        )
    return StoredRequest(
        id=secrets.token_urlsafe(18),  # who knows it may read the answer
        method=exchange.method,
        target=exchange.target,
        headers=records.kept_headers(exchange.headers),
        version=exchange.version,
        secure=exchange.secure,
        peer=exchange.peer,
        peer_port=exchange.peer_port,
        server=exchange.server,
        body=body,
        key=scope,
        attempts_max=rule.attempts_max,
        retry_s=rule.retry_s,
        keep_s=rule.keep_s,
    )


def _caller(exchange: Exchange) -> bytes:
    """By what applications know their callers, beside Authorization. Not in the key's scope: a session that is renewed
    between two tries must not make two requests of them; but no caller gets another caller's answer."""
    get = exchange.headers.get
    return b"\0".join((get(b"cookie", b""), get(b"x-api-key", b"")))


def _refuse_length(exchange: Exchange) -> None:
    detail = f"the body of a durable request has at most {BODY_BYTES_MAX} bytes"
    problem.respond(exchange, 413, detail, kind="payload-too-large")


def _unavailable(exchange: Exchange, detail: str, error: HeadraceError) -> None:
    _log.warning("%s: %s", detail, error, extra={"action": "web.durable.unavailable", "path": exchange.path})
    problem.respond(exchange, 503, detail, kind="broker-unavailable", headers=(status_pages.RETRY_AFTER,))
