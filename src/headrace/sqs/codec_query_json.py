"""Answers of the Query protocol in JSON, for requests whose `Accept` header asks for it.

The layout is that of the XML, with the members of the service model instead of elements: a map is a list of its entries,
an empty member is null. API Gateway integrations and HTTP clients that accept JSON by default read these answers.

Source: answers of AWS in the documentation of API Gateway integrations
(`{"ReceiveMessageResponse":{"ReceiveMessageResult":{"messages":null},"ResponseMetadata":{…}}}`).
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

import msgspec

from headrace.sqs.codec import Headers
from headrace.sqs.codec_query import MAPS, query_message
from headrace.sqs.errors import Fault
from headrace.sqs.shapes import Shape

_NAMES: Final = {"Messages": "messages", "QueueUrls": "queueUrls"}
"""Members that start with a small letter here."""

_encoder: Final = msgspec.json.Encoder()


def accepts_json(accept: bytes) -> bool:
    """Whether an `Accept` header names JSON, and before XML if it names both. Quality values are not read."""
    types = (part.partition(b";")[0].strip().lower() for part in accept.split(b","))
    named = (kind for kind in types if kind in (b"application/json", b"application/xml", b"text/xml"))
    return next(named, None) == b"application/json"


class QueryJsonCodec:
    content_type = b"application/json"

    def answer(self, operation: str, result: Shape | None, request_id: str) -> bytes:
        members: dict[str, Any] = {} if result is None else {f"{operation}Result": _members(result)}
        members["ResponseMetadata"] = {"RequestId": request_id}
        return _encoder.encode({f"{operation}Response": members})

    def fault(self, fault: Fault, request_id: str) -> tuple[bytes, Headers]:
        error = {
            "Code": fault.kind.code,
            "Message": query_message(fault),
            "Type": "Sender" if fault.kind.sender else "Receiver",
            "Detail": None,
        }
        return _encoder.encode({"Error": error, "RequestId": request_id}), ()


def _members(shape: Shape) -> dict[str, Any]:
    return {
        _NAMES.get(field.encode_name, field.encode_name): _value(field.encode_name, getattr(shape, field.name))
        for field in msgspec.structs.fields(type(shape))
    }


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        _, key_name, value_name = MAPS[name]
        return [{key_name: key, value_name: _value("", item)} for key, item in value.items()] or None
    if isinstance(value, list):
        return [_value("", item) for item in value] or None
    if isinstance(value, Shape):
        return _members(value)
    return b64encode(value).decode() if isinstance(value, bytes) else value


QUERY_JSON: Final = QueryJsonCodec()
