"""Receiving: ReceiveMessage, the long poll among them, and what an answer shows of each message."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from headrace.errors import InFlightLimit
from headrace.queue.attributes import Attributes, decode
from headrace.queue.dedup import content_id
from headrace.queue.limits import SECOND_MS
from headrace.queue.model import Delivery, Message, QueueInfo, uuid_text
from headrace.queue.operations import Receive
from headrace.sqs import limits, receipts
from headrace.sqs.attribute_names import ALL, SYSTEM
from headrace.sqs.call import Call
from headrace.sqs.errors import invalid
from headrace.sqs.messages import allowed, attributes_md5, check_id, md5, sequence_number
from headrace.sqs.shapes import AttributeValue, ReceivedMessage, ReceiveMessage, ReceiveMessageResult

_NOTHING: Final = ReceiveMessageResult()
_VISIBILITY_RULE: Final = f"Must be >= 0 and <= {limits.VISIBILITY_MAX_S}, if provided."
_EVERY: Final = frozenset((ALL, "*", ".*"))
"""Each of these names selects all message attributes."""


class _View(NamedTuple):
    """What a request wants to see of each message: system attributes, and which message attributes."""

    system: frozenset[str]
    every: bool
    exact: frozenset[str]
    prefixes: tuple[str, ...]

    def choose(self, attributes: Attributes) -> Attributes:
        if self.every:
            return attributes
        return {
            name: value
            for name, value in attributes.items()
            if name in self.exact or (self.prefixes and name.startswith(self.prefixes))
        }


def receive_message(call: Call, request: ReceiveMessage) -> None:
    info = call.queue(request.queue_url)
    _check(request)
    wait_s, visibility_s = request.wait_time_seconds, request.visibility_timeout
    wait_ms = info.settings.wait_ms if wait_s is None else wait_s * SECOND_MS
    operation = Receive(
        info.arn,
        request.max_number_of_messages or 1,
        None if visibility_s is None else visibility_s * SECOND_MS,
        request.receive_request_attempt_id if info.settings.fifo else None,  # AWS takes it and does not heed it
    )
    done = call.guarded(partial(_received, call, _view_of(call, request), info))
    if wait_ms:
        done = partial(_hide_limit, done)
    poll = call.context.broker.receive(operation, done, wait_ms=wait_ms, connected=call.request.connected)
    if poll is not None:
        call.request.on_disconnect = poll.cancel


def _check(request: ReceiveMessage) -> None:
    limit, wait_s = request.max_number_of_messages, request.wait_time_seconds
    if limit is not None and not 1 <= limit <= limits.RECEIVE_MESSAGES_MAX:
        rule = f"Must be between 1 and {limits.RECEIVE_MESSAGES_MAX}, if provided."
        raise invalid("MaxNumberOfMessages", limit, rule)
    if wait_s is not None and not 0 <= wait_s <= limits.WAIT_MAX_S:
        raise invalid("WaitTimeSeconds", wait_s, f"Must be >= 0 and <= {limits.WAIT_MAX_S}, if provided.")
    if request.visibility_timeout is not None:
        receipts.check_visibility(request.visibility_timeout, _VISIBILITY_RULE)
    attempt_id = request.receive_request_attempt_id
    if attempt_id is not None:
        check_id("ReceiveRequestAttemptId", attempt_id)


def _hide_limit(done: Callable[[Any], None], outcome: Any) -> None:
    """On a long poll AWS keeps silent about the in-flight limit: the answer is empty."""
    done([] if isinstance(outcome, InFlightLimit) else outcome)


def _view_of(call: Call, request: ReceiveMessage) -> _View:
    system = request.message_system_attribute_names
    if request.attribute_names:  # the old name of the same parameter; both count
        system = [*request.attribute_names, *(system or ())]
    make = _kept_view if len(call.request.body) <= limits.VIEW_REQUEST_BYTES_MAX else _view
    return make(tuple(system or ()), tuple(request.message_attribute_names or ()))


def _view(system: tuple[str, ...], names: tuple[str, ...]) -> _View:
    """What the names of a request select. Unknown names are ignored; `prefix.*` is every name that starts with `prefix`."""
    wanted = SYSTEM if ALL in system else SYSTEM.intersection(system)
    prefixes = tuple(name.removesuffix(".*") for name in names if name.endswith(".*"))
    every = not _EVERY.isdisjoint(names)
    return _View(wanted, every, frozenset(names), prefixes)


_kept_view: Final = lru_cache(maxsize=limits.VIEWS_MAX)(_view)


def _received(call: Call, view: _View, info: QueueInfo, deliveries: list[Delivery]) -> None:
    if not deliveries:
        call.answer(_NOTHING)
        return
    call.answer(ReceiveMessageResult([_show(delivery, view, info) for delivery in deliveries]))


def _show(delivery: Delivery, view: _View, info: QueueInfo) -> ReceivedMessage:
    message = delivery.message
    body, text = _text_of(message.body)
    system = _system(delivery, view.system, info) if view.system else {}
    digest: str | None = None
    shown: dict[str, AttributeValue] = {}
    if message.attributes and (view.every or view.exact):
        chosen = view.choose(decode(message.attributes))
        if chosen:  # the digest is that of the attributes shown, so that an SDK can check it
            digest, shown = attributes_md5(sorted(chosen.items())), _values(chosen.items())
    return ReceivedMessage(
        uuid_text(message.id), receipts.encode(delivery.receipt), md5(body), text, system, digest, shown
    )


def _text_of(body: bytes) -> tuple[bytes, str]:
    """A body as text, and the bytes that its digest is taken of.

    The native API takes any bytes. What SQS could not have sent is shown in base64: a client that sees the message at
    all is better off than one whose XML parser stops.
    """
    if allowed(body):
        try:
            return body, body.decode()
        except UnicodeDecodeError:
            pass
    encoded = b64encode(body)
    return encoded, encoded.decode()


def _system(delivery: Delivery, wanted: frozenset[str], info: QueueInfo) -> dict[str, str]:
    """The system attributes that are wanted and that the message has."""
    message = delivery.message
    fifo = info.settings.fifo
    having: dict[str, str | None] = {
        "ApproximateReceiveCount": str(delivery.receives),
        "SentTimestamp": str(message.sent_ms),
        "SenderId": message.sender or info.arn.split(":", 5)[4],
        "ApproximateFirstReceiveTimestamp": str(delivery.first_received_ms),
        "MessageGroupId": message.group,
        "MessageDeduplicationId": _dedup_id(message) if fifo and "MessageDeduplicationId" in wanted else None,
        "SequenceNumber": sequence_number(message.seq) if fifo else None,
        "AWSTraceHeader": message.trace,
        "DeadLetterQueueSourceArn": message.source,
    }
    return {name: value for name, value in having.items() if value is not None and name in wanted}


def _dedup_id(message: Message) -> str:
    """The deduplication id of a message, or the one that its queue made of its content."""
    return content_id(message.body) if message.dedup_id is None else message.dedup_id


def _values(attributes: Iterable[tuple[str, tuple[str, str | bytes]]]) -> dict[str, AttributeValue]:
    return {
        name: AttributeValue(data_type=data_type, binary_value=value)
        if isinstance(value, bytes)
        else AttributeValue(data_type=data_type, string_value=value)
        for name, (data_type, value) in attributes
    }
