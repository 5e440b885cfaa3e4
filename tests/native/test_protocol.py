from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import errors
from headrace.errors import HeadraceError, InvalidParameter, UnknownError
from headrace.native import protocol
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Message, QueueCounts, QueueDescription, QueueInfo, QueueSettings, Sent

ARN = "arn:aws:sqs:us-east-1:000000000000:orders"
MESSAGE = Message(7, b"i" * 16, b"body", b"", 1_700_000_000_000)


def example(kind: type[HeadraceError]) -> HeadraceError:
    values: dict[str, Any] = {"int": 7, "str": "x", "str | None": "x", "bool": True}
    return kind(**{field.name: values[str(field.type)] for field in fields(kind)})  # type: ignore[arg-type]


LEAVES = [
    kind
    for kind in HeadraceError.registry.values()
    if kind.__module__ == "headrace.errors" and hasattr(kind, "__dataclass_fields__")
]


def test_every_operation_has_an_outcome_on_the_wire() -> None:
    assert set(get_args(ops.AnyOperation)) == set(protocol._OUTCOMES)


@pytest.mark.parametrize("json", [False, True])
def test_operation_survives_the_wire(json: bool) -> None:
    operation = ops.Send(ARN, [Entry(b"\x00\xff", delay_ms=5), Entry(b"b", group="g", dedup_id="d")])
    body = msgspec.json.encode(operation) if json else protocol.encode_operation(operation)

    assert protocol.decode_operation(body, json=json) == operation


@pytest.mark.parametrize(
    ("operation", "outcome"),
    [
        (ops.Send(ARN, []), [Sent(b"1" * 16, 1), Sent(b"2" * 16, 2, duplicate=True)]),
        (ops.Receive(ARN), [Delivery(MESSAGE, b"receipt", 2, 5)]),
        (ops.Delete(ARN, []), [None, None]),
        (ops.Transact(), ops.TransactOutcome([[Sent(b"1" * 16, 1)], []])),
        (ops.Fence("n"), 3),
        (ops.GetState("n"), [(b"k", b"v")]),
        (ops.DeleteQueue(ARN), None),
        (
            ops.GetQueue(ARN),
            QueueDescription(QueueInfo(ARN, QueueSettings(), {"a": "b"}, 1, 2), QueueCounts(visible=3)),
        ),
    ],
)
def test_outcome_over_the_wire_equals_the_embedded_one(operation: ops.Operation, outcome: Any) -> None:
    body = protocol.encode_outcome(operation, outcome)

    assert protocol.decode_outcome(operation, 200, body) == outcome


def test_batch_errors_stay_in_their_place() -> None:
    operation = ops.Send(ARN, [])
    outcome = [Sent(b"1" * 16, 1), errors.MessageTooLong(9, 5), Sent(b"3" * 16, 3)]

    first, second, third = protocol.decode_outcome(operation, 200, protocol.encode_outcome(operation, outcome))

    assert (first, third) == (outcome[0], outcome[2])
    assert isinstance(second, errors.MessageTooLong)
    assert (second.size_bytes, second.bound_bytes) == (9, 5)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_wire_with_its_data_and_a_status(kind: type[HeadraceError]) -> None:
    error = example(kind)
    status = protocol.status_of(error)

    with pytest.raises(kind) as raised:
        protocol.decode_outcome(ops.Fence("n"), status, protocol.encode_error(error))

    assert 400 <= status <= 599
    assert isinstance(error, errors.CallerError) == (status < 500)
    assert raised.value.to_wire() == error.to_wire()


def test_an_error_of_a_newer_server_is_an_unknown_error_with_its_text() -> None:
    body = msgspec.msgpack.encode({"error": "FromTheFuture", "message": "what it says", "detail": 5})

    with pytest.raises(UnknownError, match="what it says"):
        protocol.decode_outcome(ops.Fence("n"), 400, body)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b""),
        (404, b"<html>Nothing here</html>"),
        (418, b'{"__type": "X", "message": "a teapot"}'),
    ],
)
def test_an_answer_of_something_else_is_an_unknown_error(status: int, body: bytes) -> None:
    with pytest.raises(UnknownError, match=str(status)):
        protocol.decode_outcome(ops.GetQueue(ARN), status, body)


@pytest.mark.parametrize("body", [b'{"__type": "X", "message": "at most 8"}', b"<html>at most 8</html>"])
def test_a_request_that_the_listener_or_a_proxy_finds_too_long_is_known_not_to_be_done(body: bytes) -> None:
    with pytest.raises(errors.RequestTooLong, match="413"):
        protocol.decode_outcome(ops.GetQueue(ARN), 413, body)


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b'{"message": "InternalFailure"}', b"{", b""])
def test_a_failure_of_something_in_between_leaves_the_outcome_open(body: bytes) -> None:
    with pytest.raises(errors.OutcomeUnknown, match="502"):
        protocol.decode_outcome(ops.GetQueue(ARN), 502, body)


def test_a_refusal_in_json_is_understood() -> None:
    body = protocol.encode_error(errors.AccessDenied("not from here"), json=True)

    with pytest.raises(errors.AccessDenied, match="not from here"):
        protocol.decode_outcome(ops.GetQueue(ARN), 403, body)


@given(st.binary(max_size=200), st.booleans())
def test_only_invalid_parameter_escapes_from_any_bytes(body: bytes, json: bool) -> None:
    with contextlib.suppress(InvalidParameter):
        assert isinstance(protocol.decode_operation(body, json=json), ops.Operation)


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from([kind.__name__ for kind in get_args(ops.AnyOperation)]),
    st.dictionaries(st.sampled_from(["queue", "entries", "limit", "receipts", "settings", "state", "name"]), WRONG),
)
def test_wrong_types_in_a_call_are_refused_or_read_as_declared(tag: str, values: dict[str, Any]) -> None:
    body = msgspec.msgpack.encode({"type": tag, **values})
    try:
        operation = protocol.decode_operation(body)
    except InvalidParameter:
        return
    assert protocol.decode_operation(protocol.encode_operation(operation)) == operation
