"""The native wire: how an operation, its outcome and its errors stand in an HTTP exchange.

    POST /headrace/v1/call        the body is one operation (`queue/operations.py`), a tagged map:
                                  {"type": "Receive", "queue": "arn:aws:sqs:us-east-1:000000000000:orders", "limit": 100}
    headrace-wait-ms: 20000       Receive, ReceiveAny, Claim, GetState: how long to wait for the first message (or
                                  value); Hold: how long to stay; absent: a Receive as long as the queue is set to, the
                                  others not at all

    GET /headrace/v1/statistics   the broker's steady time and what its store has done

    200                           the outcome that the operation's docstring names. In the list that a batch answers, an
                                  entry's own error is a map {"error": …} where the others are arrays or nil
    4xx, 5xx                      nothing of the call was done (but 500: unknown): a map {"error": …, "message": …, fields}

Bodies are msgpack (`application/msgpack`), both ways; or JSON (`application/json`, bytes as base64) for people with
curl. Records are written as the model declares them: Entry, Message, Delivery, Sent are arrays, the rest are maps. An
array may grow at its end and a map anywhere: a reader ignores what it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from headrace import errors
from headrace.errors import HeadraceError
from headrace.queue import operations as ops
from headrace.queue.model import (
    ClaimState,
    Delivery,
    HolderState,
    Message,
    MoveTask,
    Peeked,
    QueueDescription,
    QueueInfo,
    Sent,
    Subscription,
    TopicDescription,
    TopicInfo,
)
from headrace.queue.store.base import StoreStatistics

CALL_PATH: Final = "/headrace/v1/call"
STATISTICS_PATH: Final = "/headrace/v1/statistics"
MSGPACK: Final = b"application/msgpack"
JSON: Final = b"application/json"
WAIT_HEADER: Final = b"headrace-wait-ms"
INTEGER_MAX: Final = 2**62
"""More than any count, number or time can be; less than what SQLite takes. JSON integers have no bound of their own."""

_Refusal = dict[str, Any]


class SettingFacts(msgspec.Struct, frozen=True):
    """A setting in force: `origin` is where it was written (a flag, a variable, a file), `default`, or `set`: nobody knows where."""

    name: str
    value: str
    origin: str


class BrokerAbout(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's process. `started_ms`: wall clock; `data`: its folder; `disk_bytes`, `disk_free_bytes`: of the disk below it."""

    version: str
    host: str
    pid: int
    started_ms: int
    data: str
    disk_bytes: int
    disk_free_bytes: int
    request_bytes_max: int
    settings: list[SettingFacts]


class BrokerStatistics(msgspec.Struct, frozen=True):
    """A broker as a whole.

    `now_ms` is its steady time; `store` what its store has done since it opened; `about` its process, None where the store
    was opened by the client itself.
    """

    now_ms: int
    store: StoreStatistics
    about: BrokerAbout | None = None


class _TransactAnswer(msgspec.Struct, frozen=True):
    sent: list[list[Sent]]


_OUTCOMES: Final[dict[type[ops.Operation], Any]] = {
    ops.Send: list[Sent | _Refusal],
    ops.Receive: list[Delivery],
    ops.ReceiveAny: list[tuple[str, list[Delivery]]],
    ops.Take: list[Delivery | _Refusal],
    ops.Hold: bool,
    ops.ListHolders: list[HolderState],
    ops.Delete: list[_Refusal | None],
    ops.ChangeVisibility: list[_Refusal | None],
    ops.Transact: _TransactAnswer,
    ops.Fence: int,
    ops.GetState: list[tuple[bytes, bytes]],
    ops.Claim: list[Message],
    ops.AcknowledgeClaims: ClaimState,
    ops.ReleaseClaims: None,
    ops.GetClaims: ClaimState,
    ops.Peek: list[Peeked],
    ops.Purge: int,
    ops.CreateQueue: QueueInfo,
    ops.ChangeSettings: QueueInfo,
    ops.TagQueue: QueueInfo,
    ops.DeleteQueue: None,
    ops.GetQueue: QueueDescription,
    ops.ListQueues: list[QueueDescription],
    ops.StartMove: MoveTask,
    ops.CancelMove: MoveTask,
    ops.ListMoves: list[MoveTask],
    ops.CreateTopic: TopicInfo,
    ops.ChangeTopic: TopicInfo,
    ops.DeleteTopic: None,
    ops.GetTopic: TopicDescription,
    ops.ListTopics: list[TopicDescription],
    ops.Subscribe: Subscription,
    ops.Unsubscribe: None,
    ops.ReadLog: list[Message],
}
"""Operation -> the type of its outcome on the wire. The one table to extend for a new operation."""

_BATCHES: Final = frozenset({ops.Send, ops.Take, ops.Delete, ops.ChangeVisibility})
"""Operations whose outcome may hold errors in place."""

_STATUSES: Final[tuple[tuple[type[HeadraceError], int], ...]] = (
    (errors.QueueNotFound, 404),
    (errors.MessageNotFound, 404),
    (errors.MoveTaskNotFound, 404),
    (errors.TopicNotFound, 404),
    (errors.AccessDenied, 403),
    (errors.QueueExists, 409),
    (errors.TopicExists, 409),
    (errors.SubscriptionRefused, 409),
    (errors.ReceiptExpired, 409),
    (errors.MessageNotInFlight, 409),
    (errors.MessageNotVisible, 409),
    (errors.Fenced, 409),
    (errors.StateChanged, 409),
    (errors.ClaimRefused, 409),
    (errors.MessageTooLong, 413),
    (errors.BatchTooLong, 413),
    (errors.RequestTooLong, 413),
    (errors.InFlightLimit, 429),
    (errors.PurgeInProgress, 429),
    (errors.QueueDeletedRecently, 429),
    (errors.CallerError, 400),
    (errors.Unavailable, 503),
    (errors.StoreFull, 507),
    (errors.HeadraceError, 500),
)
"""The HTTP status of each error; the first line that fits. Our client goes by the body, proxies and people by this."""

_encoder = msgspec.msgpack.Encoder()
_operation = msgspec.msgpack.Decoder(ops.AnyOperation)
_operation_json = msgspec.json.Decoder(ops.AnyOperation)
_error = msgspec.msgpack.Decoder(_Refusal)
_statistics = msgspec.msgpack.Decoder(BrokerStatistics)
_outcomes = {kind: msgspec.msgpack.Decoder(outcome) for kind, outcome in _OUTCOMES.items()}


def encode_operation(operation: ops.Operation) -> bytes:
    return _encoder.encode(operation)


def decode_operation(body: bytes, *, json: bool = False) -> ops.Operation:
    """The operation in a request's body.

    Raises:
        InvalidParameter: it is not msgpack (or JSON), no operation of this version, or a field is of a wrong type.
    """
    try:
        operation: ops.Operation = _operation_json.decode(body) if json else _operation.decode(body)
        return operation
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidParameter("body", f"{len(body)} bytes", str(error)) from None


def encode_outcome(operation: ops.Operation, outcome: Any, *, json: bool = False) -> bytes:
    """An outcome that is a value; a batch may hold errors."""
    if type(operation) in _BATCHES:
        outcome = _plain(outcome)
    return msgspec.json.encode(outcome) if json else _encoder.encode(outcome)


def encode_error(error: HeadraceError, *, json: bool = False) -> bytes:
    return msgspec.json.encode(error.to_wire()) if json else _encoder.encode(error.to_wire())


def status_of(error: HeadraceError) -> int:
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def decode_outcome(operation: ops.Operation, status: int, body: bytes) -> Any:
    """What a broker embedded in this process would have answered: a value, or a raised HeadraceError.

    Raises:
        HeadraceError: the error in the answer.
        UnknownError: the answer is not of this protocol (a proxy's page, another server).
    """
    outcome = _decode(_outcomes[type(operation)], status, body)
    if type(operation) in _BATCHES:
        return _errors_in_place(outcome)
    if isinstance(outcome, _TransactAnswer):
        return ops.TransactOutcome(outcome.sent)
    return outcome


def encode_statistics(statistics: BrokerStatistics, *, json: bool = False) -> bytes:
    return msgspec.json.encode(statistics) if json else _encoder.encode(statistics)


def decode_statistics(status: int, body: bytes) -> BrokerStatistics:
    """As `decode_outcome`."""
    statistics: BrokerStatistics = _decode(_statistics, status, body)
    return statistics


def _decode(decoder: msgspec.msgpack.Decoder[Any], status: int, body: bytes) -> Any:
    if status != 200:
        raise _error_of(status, body)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise errors.UnknownError("the server answered 200 with something that is not headrace's") from None


def _error_of(status: int, body: bytes) -> HeadraceError:
    """The error in an answer. What stands before the service (engine, guard, proxies) answers in JSON, or anyhow.

    A 5xx of somebody in between leaves open whether the broker did what was asked.
    """
    try:
        data = msgspec.json.decode(body, type=_Refusal) if body[:1] == b"{" else _error.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = {}
    if "error" in data:
        return HeadraceError.from_wire(data)
    text = f"the server answered {status} {data.get('message', 'with something that is not a headrace error')}"
    if status == 413:
        return errors.RequestTooLong(text)
    return errors.OutcomeUnknown(text) if status >= 500 else errors.UnknownError(text)


def _plain(outcomes: Sequence[Any]) -> Sequence[Any]:
    """Errors as plain data. They are dataclasses: msgspec would write their fields without their name."""
    return [outcome.to_wire() if isinstance(outcome, HeadraceError) else outcome for outcome in outcomes]


def _errors_in_place(outcomes: list[Any]) -> list[Any]:
    return [HeadraceError.from_wire(outcome) if type(outcome) is dict else outcome for outcome in outcomes]
