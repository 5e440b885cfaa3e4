"""The JSON 1.0 protocol of current SDKs: a target header names the operation, the body is its request.

It is read strictly, as AWS does: a number where a string belongs is an error. Unknown members are ignored, null is the
same as left out. Source: AWS JSON 1.0 protocol with query compatibility (Smithy).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeVar

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
        return decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        raise Fault(SERIALIZATION, f"The request has a member of the wrong type: {error}.") from None
    except msgspec.DecodeError as error:
        raise Fault(SERIALIZATION, f"The request is not JSON: {error}.") from None
    except UnicodeDecodeError:
        raise Fault(SERIALIZATION, "The request is not UTF-8.") from None
    except RecursionError:
        raise Fault(SERIALIZATION, "The request is nested too deeply.") from None


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
