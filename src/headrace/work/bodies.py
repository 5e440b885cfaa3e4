"""Bodies of any queue's messages, as a consumer's parameter wants them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.native.bodies import attributes_values, body_json, body_text
from headrace.queue.model import Delivery
from headrace.work.errors import InvalidOption


class Message(msgspec.Struct, frozen=True):
    """A message as a whole, for a consumer that wants more than its body.

    Attributes:
        body: its bytes.
        attributes: message attributes: String as str, Number as int or float, Binary as bytes.
        id: message id, 32 hex digits.
        group: its message group.
        sent_ms: when it was sent.
        receives: how often it was received, this time included.
    """

    body: bytes
    attributes: dict[str, str | int | float | bytes]
    id: str
    group: str | None
    sent_ms: int
    receives: int

    def json(self, kind: Any = Any) -> Any:
        """The body's JSON. Raises InvalidMessage."""
        return body_json(self.body, kind)


class BodyReader:
    """What a consumer's function takes.

    Raises:
        InvalidOption: the function has not exactly one parameter, or, with `batch`, it is no list.
    """

    def __init__(self, function: Callable[..., Any], *, batch: bool) -> None:
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != 1:
            raise InvalidOption(
                "consumer", function.__qualname__, "it takes one parameter: the body, or a list of bodies"
            )
        hint = typing.get_type_hints(function).get(parameters[0].name, Any)
        self._kind = _item(function, hint) if batch else hint

    def read(self, delivery: Delivery) -> Any:
        """Raises InvalidMessage: the body is not what the parameter asks for."""
        body = delivery.message.body
        if self._kind is Message:
            return whole(delivery)
        if self._kind is bytes:
            return body
        if self._kind is str:
            return body_text(body)
        return body_json(body, self._kind)


def whole(delivery: Delivery) -> Message:
    message = delivery.message
    values = attributes_values(message.attributes)
    return Message(message.body, values, message.id.hex(), message.group, message.sent_ms, delivery.receives)


def _item(function: Callable[..., Any], hint: Any) -> Any:
    if hint is Any or hint is list:
        return Any
    if typing.get_origin(hint) is not list:
        raise InvalidOption(
            "batch", function.__qualname__, "its parameter is a list: list[dict], list[Order], list[bytes], …"
        )
    return typing.get_args(hint)[0]
