"""What users give and get for bodies and attributes, as the queue keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from headrace import tracing
from headrace.errors import InvalidMessage, InvalidParameter
from headrace.queue import attributes as stored_attributes

Body: TypeAlias = Any
"""bytes as they are, str as UTF-8, anything else (dict, list, number, dataclass, msgspec.Struct, …) as JSON."""

AttributeValue: TypeAlias = str | int | float | Decimal | bytes
"""SQS's String, Number and Binary."""

_json = msgspec.json.Encoder()
_TRACE = tracing.NAME.encode()


def body_bytes(body: Body) -> bytes:
    """Raises InvalidMessage when the body cannot be written as JSON."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return _utf8(body)
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    try:
        return _json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidMessage(f"the body is neither bytes nor str, and no JSON: {error}") from None


def body_text(body: bytes) -> str:
    """Raises InvalidMessage when the body is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidMessage("the body is not UTF-8 text; read it as bytes with .body") from None


def body_json(body: bytes, kind: Any) -> Any:
    """Raises InvalidMessage when the body is not JSON, or not of that type."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"the body is not the JSON that was asked for: {error}") from None


def attributes_blob(attributes: Mapping[str, AttributeValue] | None) -> bytes:
    if not attributes:
        return b""
    return stored_attributes.encode({name: _typed(name, value) for name, value in attributes.items()})


def attributes_values(blob: bytes) -> dict[str, str | int | float | bytes]:
    """Attributes by name: String as str, Binary as bytes, Number as int, or float if it has a fraction or exponent."""
    return {name: _value(kind, value) for name, (kind, value) in stored_attributes.decode(blob).items()}


def trace_of(blob: bytes) -> str | None:
    """The `traceparent` among attributes, if there is a valid one."""
    if _TRACE not in blob:
        return None
    value = attributes_values(blob).get(tracing.NAME)
    return tracing.valid(value) if isinstance(value, str) else None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"the body is not Unicode text: {error}") from None


def _typed(name: str, value: AttributeValue) -> tuple[str, str | bytes]:
    if isinstance(value, str):
        return "String", value
    if isinstance(value, bytes):
        return "Binary", value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidParameter(f"attributes[{name!r}]", repr(value), "it must be str, int, float, Decimal or bytes")
    return "Number", str(value)


def _value(kind: str, value: str | bytes) -> str | int | float | bytes:
    if isinstance(value, bytes) or kind.partition(".")[0] != "Number":
        return value
    try:
        return int(value) if value.lstrip("-").isdecimal() else float(value)
    except ValueError:
        return value
