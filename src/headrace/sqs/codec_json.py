"""The JSON 1.0 protocol of current SDKs: a target header names the operation, the body is its request.

It is read as AWS does: a number or a boolean where a string belongs is taken for its text, since SDKs of JavaScript send
them; a string where a number belongs is an error. Unknown members are ignored, null is the same as left out. Source: AWS
JSON 1.0 protocol with query compatibility (Smithy), and answers of AWS.
"""

from __future__ import annotations

from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

from headrace.sqs.codec import Headers
from headrace.sqs.errors import SERIALIZATION, Fault, Kind
from headrace.sqs.shapes import Shape

CONTENT_TYPE: Final = b"application/x-amz-json-1.0"
TARGET_PREFIX: Final = b"AmazonSQS."

T = TypeVar("T", bound=Shape)
_encoder: Final = msgspec.json.Encoder()


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The request in `body`.

    Raises:
        Fault: SerializationException: it is no JSON, not UTF-8, or a member has another type.
    """
    try:
        try:
            return decoder.decode(body or b"{}")
        except msgspec.ValidationError:
            return _decode_leniently(decoder.type, body)
    except msgspec.ValidationError as error:
        raise Fault(SERIALIZATION, f"The request has a member of the wrong type: {error}.") from None
    except msgspec.DecodeError as error:
        raise Fault(SERIALIZATION, f"The request is not JSON: {error}.") from None
    except UnicodeDecodeError:
        raise Fault(SERIALIZATION, "The request is not UTF-8.") from None
    except RecursionError:
        raise Fault(SERIALIZATION, "The request is nested too deeply.") from None


def _decode_leniently(shape: type[T], body: bytes) -> T:
    """As `decode`, of a request that has members of other types than it should: few have, so that it may take longer."""
    return msgspec.convert(_as_typed(shape, msgspec.json.decode(body)), shape)


def _as_typed(expected: Any, value: Any) -> Any:
    """`value` with what stands where text belongs made text.

    Raises:
        Fault: SerializationException, in AWS's words where they are known.
    """
    if value is None:
        return None
    args = [arg for arg in get_args(expected) if arg is not NoneType]
    if isinstance(expected, UnionType):
        return _as_typed(args[0], value)
    if get_origin(expected) is list and isinstance(value, list):
        return [_as_typed(args[0], item) for item in value]
    if get_origin(expected) is dict and isinstance(value, dict):
        return {name: _as_typed(args[1], item) for name, item in value.items() if item is not None}
    if isinstance(value, dict) and isinstance(expected, type) and issubclass(expected, Shape):
        types = {field.encode_name: field.type for field in msgspec.structs.fields(expected)}
        return {name: _as_typed(types[name], item) for name, item in value.items() if name in types}
    if expected in (str, int) and isinstance(value, dict | list):
        what = "structure or map" if isinstance(value, dict) else "list"
        raise Fault(SERIALIZATION, f"Start of {what} found where not expected.")
    if expected is str and not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if expected is int and isinstance(value, str):
        raise Fault(SERIALIZATION, "STRING_VALUE can not be converted to an Integer")
    return value


class JsonCodec:
    content_type = CONTENT_TYPE

    def answer(self, operation: str, result: Shape | None, request_id: str) -> bytes:
        del operation, request_id
        return b"" if result is None else _encoder.encode(result)

    def fault(self, fault: Fault, request_id: str) -> tuple[bytes, Headers]:
        del request_id
        kind, headers = fault.kind, _error_headers(fault.kind)
        return _encoder.encode({"__type": f"{kind.namespace}#{kind.shape}", "message": fault.message}), headers


@lru_cache(maxsize=128)
def _error_headers(kind: Kind) -> Headers:
    """boto3 takes `Error.Code` from the query error, other SDKs the class from the error type."""
    fault = "Sender" if kind.sender else "Receiver"
    return (
        (b"x-amzn-errortype", f"{kind.namespace}#{kind.shape}".encode()),
        (b"x-amzn-query-error", f"{kind.code};{fault}".encode()),
    )


JSON: Final = JsonCodec()
