"""Messages as users see them: what is sent, what was stored, what is looked at. Views over the queue's records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, overload

import msgspec

from headrace import tracing
from headrace.errors import CallerError, HeadraceError
from headrace.native import bodies
from headrace.native.bodies import AttributeValue, Body
from headrace.native.settings import to_ms
from headrace.queue.limits import ATTRIBUTES_MAX
from headrace.queue.model import Delivery, Entry, Message, Peeked, Sent, arn_of, short_name, uuid_text

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message to be sent, where a body alone does not say enough.

    Attributes:
        body: bytes, str (as UTF-8), or anything that JSON can carry.
        attributes: at most 10: str, number or bytes by name. Their names and values count in the message's size. While a
            trace is current, `traceparent` is added, if there are fewer (`headrace.tracing`).
        delay: seconds until it can be received, at most 14 days and less than the queue's retention (SQS clients: 900 s);
            None takes the queue's. Not on a FIFO queue.
        group: on a FIFO queue required: messages of a group are received in order, one batch at a time. On a standard
            queue the tenant: no tenant with much traffic makes the others wait.
        dedup_id: FIFO only: a second message with it within five minutes is not stored.
        dead_letter_of: the queue (name or ARN) that gives the message up: `redrive` brings it back there.
    """

    body: Body
    attributes: Mapping[str, AttributeValue] | None = None
    delay: float | None = None
    group: str | None = None
    dedup_id: str | None = None
    dead_letter_of: str | None = None

    def entry(self) -> Entry:
        """As the queue takes it. Raises InvalidMessage, InvalidParameter."""
        return Entry(
            bodies.body_bytes(self.body),
            bodies.attributes_blob(_traced(self.attributes)),
            to_ms("delay", self.delay) if self.delay is not None else None,
            self.group,
            self.dedup_id,
            source=arn_of(self.dead_letter_of) if self.dead_letter_of is not None else None,
        )


def entries_of(messages: Iterable[Body | Outgoing], *, delay: float | None, group: str | None) -> Iterable[Entry]:
    """Entries, one by one; `delay` and `group` are for the messages that are bodies alone."""
    delay_ms = to_ms("delay", delay) if delay is not None else None
    attributes = bodies.attributes_blob(_traced(None))
    for message in messages:
        if isinstance(message, Outgoing):
            yield message.entry()
        else:
            body = message if type(message) is bytes else bodies.body_bytes(message)
            yield Entry(body, attributes, delay_ms, group)


def _traced(attributes: Mapping[str, AttributeValue] | None) -> Mapping[str, AttributeValue] | None:
    """With the current `traceparent`, if there is one, and room; one that is given stays."""
    trace = tracing.current()
    if trace is None or (attributes is not None and len(attributes) >= ATTRIBUTES_MAX):
        return attributes
    return {tracing.NAME: trace, **(attributes or {})}


class SentMessage:
    """A send's answer: the message is on the disk.

    Attributes:
        id: the message's id, a UUID as text.
        sequence: its number in the queue; rises, also within each group.
        duplicate: it was not stored: its dedup id was seen within five minutes; id and sequence are the first one's.
    """

    __slots__ = ("_sent",)

    def __init__(self, sent: Sent) -> None:
        self._sent = sent

    @property
    def id(self) -> str:
        return uuid_text(self._sent.id)

    @property
    def sequence(self) -> int:
        return self._sent.seq

    @property
    def duplicate(self) -> bool:
        return self._sent.duplicate

    def __repr__(self) -> str:
        return f"SentMessage(id={self.id!r}, sequence={self.sequence}, duplicate={self.duplicate})"


class StoredMessage:
    """What a message is, however one came by it. Everything but the body is read when it is asked for."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def body(self) -> bytes:
        """The body as it was sent."""
        return self._message.body

    @property
    def text(self) -> str:
        """The body as text. Raises InvalidMessage if it is not UTF-8."""
        return bodies.body_text(self._message.body)

    @overload
    def json(self) -> Any: ...

    @overload
    def json(self, kind: type[T]) -> T: ...

    def json(self, kind: Any = Any) -> Any:
        """The body read as JSON.

        Args:
            kind: the type that it must have (a dataclass, a msgspec.Struct, `list[int]`, …); the value is built as it.

        Raises:
            InvalidMessage: it is not JSON, or not of that type.
        """
        return bodies.body_json(self._message.body, kind)

    @property
    def id(self) -> str:
        """A UUID as text; kept when the message moves to a dead-letter queue."""
        return uuid_text(self._message.id)

    @property
    def sequence(self) -> int:
        """Its number in the queue; rises in the order of sending."""
        return self._message.seq

    @property
    def attributes(self) -> dict[str, str | int | float | bytes]:
        """Message attributes by name: String as str, Number as int or float, Binary as bytes."""
        return bodies.attributes_values(self._message.attributes)

    @property
    def group(self) -> str | None:
        return self._message.group

    @property
    def dedup_id(self) -> str | None:
        return self._message.dedup_id

    @property
    def sent_at(self) -> datetime:
        """When it was first sent, in UTC, by the broker's clock."""
        return _EPOCH + timedelta(milliseconds=self._message.sent_ms)

    @property
    def dead_letter_of(self) -> str | None:
        """The queue that gave it up (name, or ARN if of another region or account); None if none did."""
        return short_name(self._message.source) if self._message.source is not None else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, {len(self.body)} bytes)"


class PeekedMessage(StoredMessage):
    """A message looked at: it was not received, and nothing about it changed."""

    __slots__ = ("_peeked",)

    def __init__(self, peeked: Peeked) -> None:
        super().__init__(peeked.message)
        self._peeked = peeked

    @property
    def state(self) -> str:
        """`visible`, `in_flight`, `delayed` or `claimed`."""
        return self._peeked.state

    @property
    def receives(self) -> int:
        """How often it has been received so far."""
        return self._peeked.receives


class Received(StoredMessage):
    """What the received messages of both clients have in common."""

    __slots__ = ("_delivery", "_settled")

    def __init__(self, delivery: Delivery) -> None:
        self._message = delivery.message
        self._delivery = delivery
        self._settled = False
        """Whether it was deleted or released: then the end of a `with` block has nothing to do."""

    @property
    def receives(self) -> int:
        """How often it has been received, this time included."""
        return self._delivery.receives

    @property
    def first_received_at(self) -> datetime:
        """When it was first received, in UTC, by the broker's clock."""
        return _EPOCH + timedelta(milliseconds=self._delivery.first_received_ms)

    @property
    def receipt(self) -> bytes:
        """What deletes, extends or releases this very delivery; opaque."""
        return self._delivery.receipt


class PartlyRefused(CallerError):
    """Some entries of a batch were refused; the others were done.

    Attributes:
        errors: the error of each refused entry, by its place in the batch.
        outcomes: what the call would have returned; None in the place of a refused entry.
    """

    def __init__(self, errors: dict[int, HeadraceError], outcomes: list[Any]) -> None:
        super().__init__(errors, outcomes)
        self.errors = errors
        self.outcomes = outcomes

    def __str__(self) -> str:
        place, error = next(iter(self.errors.items()))
        return (
            f"{len(self.errors)} of {len(self.outcomes)} entries were refused, the others done; entry {place}: {error}"
        )
