"""The broker's side of the native protocol: an HTTP handler that turns a call into an operation and back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.clock import Clock
from headrace.errors import HeadraceError, InvalidParameter, StoreFailed
from headrace.http.messages import Request
from headrace.native import protocol
from headrace.queue import attributes, limits
from headrace.queue.broker import Broker
from headrace.queue.operations import Operation, Receive, Send, Transact, Waiting

Authorize = Callable[[Request, Operation | None], None]
"""Raises AccessDenied unless the request's sender may do the operation (None: read the statistics)."""

_log = logging.getLogger(__name__)


def allow_all(request: Request, operation: Operation | None) -> None:
    """The authorisation of a broker without keys: its listeners are the loopback and a Unix socket."""


class NativeService:
    """Answers `/headrace/v1/…`. Stateless: everything it knows is in the broker.

    Args:
        broker: whose queues.
        clock: the store's steady time.
        authorize: asked once a call, before anything is done.
    """

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        *,
        authorize: Authorize = allow_all,
        about: Callable[[], protocol.BrokerAbout | None] = lambda: None,
    ) -> None:
        """Args: about: what the broker tells of itself beside its statistics."""
        self._about = about
        self._broker = broker
        self._clock = clock
        self._authorize = authorize

    def handle(self, request: Request) -> None:
        if request.path == protocol.CALL_PATH:
            self._handle_call(request)
        elif request.path == protocol.STATISTICS_PATH:
            self._handle_statistics(request)
        else:
            _refuse(request, 404, "path", request.path, f"the native protocol is at {protocol.CALL_PATH}")

    def _handle_call(self, request: Request) -> None:
        if request.method != "POST":
            return _refuse(request, 405, "method", request.method, "a call is a POST", ((b"allow", b"POST"),))
        json = _speaks_json(request)
        if json is None:
            content_type = request.headers.get(b"content-type", b"").decode("latin-1")
            return _refuse(request, 415, "content-type", content_type, "application/msgpack or application/json")
        try:
            operation = protocol.decode_operation(request.body, json=json)
            _check_integers(operation)
            _check_attributes(operation)
            wait_ms = self._wait_ms(request, operation)
            self._authorize(request, operation)
        except HeadraceError as error:
            return _answer_error(request, error, json=json)
        return self._submit(request, operation, wait_ms, json=json)

    def _submit(self, request: Request, operation: Operation, wait_ms: int, *, json: bool) -> None:
        def done(outcome: Any) -> None:
            request.on_disconnect = None
            _answer(request, operation, outcome, json=json)

        waits = self._broker.ask(operation, done, wait_ms=wait_ms, connected=request.connected)
        if waits is not None:
            request.on_disconnect = waits.cancel

    def _wait_ms(self, request: Request, operation: Operation) -> int:
        """How long to wait: as the header says, else a receive as the queue is set, the others not at all."""
        if not isinstance(operation, Waiting):
            return 0
        text = request.headers.get(protocol.WAIT_HEADER)
        if text is None:
            if not isinstance(operation, Receive):
                return 0
            info = self._broker.find(operation.queue)
            return info.settings.wait_ms if info is not None else 0
        wait_ms = int(text) if text.isdigit() and len(text) <= 6 else -1
        if not 0 <= wait_ms <= limits.WAIT_MAX_MS:
            raise InvalidParameter(
                protocol.WAIT_HEADER.decode(), text.decode("latin-1"), f"it is 0 to {limits.WAIT_MAX_MS} milliseconds"
            )
        return wait_ms

    def _handle_statistics(self, request: Request) -> None:
        json = _speaks_json(request) is not False
        try:
            self._authorize(request, None)
        except HeadraceError as error:
            return _answer_error(request, error, json=json)
        statistics = protocol.BrokerStatistics(self._clock(), self._broker.store.statistics(), self._about())
        return request.respond(200, protocol.encode_statistics(statistics, json=json), _content_type(json=json))


def _speaks_json(request: Request) -> bool | None:
    """Whether the body is JSON (True) or msgpack (False); None for neither. Parameters (`; charset=`) do not matter."""
    content_type = request.headers.get(b"content-type", b"")
    if content_type == protocol.MSGPACK:
        return False
    kind = content_type.partition(b";")[0].strip().lower()
    return {protocol.MSGPACK: False, protocol.JSON: True}.get(kind)


def _content_type(*, json: bool) -> bytes:
    return protocol.JSON if json else protocol.MSGPACK


def _check_integers(operation: Operation) -> None:
    for name in operation.__struct_fields__:
        value = getattr(operation, name)
        if type(value) is int and not -protocol.INTEGER_MAX <= value <= protocol.INTEGER_MAX:
            raise InvalidParameter(name, str(value), "it is out of any range")


def _check_attributes(operation: Operation) -> None:
    """The queue keeps attributes unread; SQS consumers read them: what they could not read must not get in."""
    batches = [operation.entries] if isinstance(operation, Send) else []
    if isinstance(operation, Transact):
        batches = [entries for _, entries in operation.sends]
    for entries in batches:
        for entry in entries:
            if entry.attributes and not _readable(entry.attributes):
                reason = f"at most {limits.ATTRIBUTES_MAX} by name, as [type, str], or [Binary type, bytes]"
                raise InvalidParameter("attributes", f"{len(entry.attributes)} bytes", reason)


def _readable(blob: bytes) -> bool:
    try:
        decoded = attributes.decode(blob)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return len(decoded) <= limits.ATTRIBUTES_MAX and all(
        name and isinstance(value, bytes) == (kind.partition(".")[0] == "Binary")
        for name, (kind, value) in decoded.items()
    )


def _answer(request: Request, operation: Operation, outcome: Any, *, json: bool) -> None:
    """Answer with an outcome. A failure of the encoding is our bug: it is logged, and the client is told."""
    if isinstance(outcome, HeadraceError):
        return _answer_error(request, outcome, json=json)
    try:
        body = protocol.encode_outcome(operation, outcome, json=json)
    except (TypeError, ValueError, OverflowError):
        _log.exception("an outcome could not be encoded", extra={"action": "native.encode_failed"})
        return _answer_error(request, StoreFailed("the answer could not be encoded"), json=json)
    return request.respond(200, body, _content_type(json=json))


def _answer_error(request: Request, error: HeadraceError, *, json: bool) -> None:
    request.respond(protocol.status_of(error), protocol.encode_error(error, json=json), _content_type(json=json))


def _refuse(
    request: Request,
    status: int,
    parameter: str,
    value: str,
    reason: str,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Answer what is not a call at all. In JSON unless msgpack was spoken: a person may be reading."""
    json = _speaks_json(request) is not False
    body = protocol.encode_error(InvalidParameter(parameter, value, reason), json=json)
    request.respond(status, body, _content_type(json=json), headers)
