"""Message attributes as the queue stores them: opaque to its rules, one blob a message.

Shape: msgpack of `{name: [data type, value]}`, sorted by name; value is str for String and Number, bytes for Binary.
No attributes are the empty bytes, not an empty map: most messages have none, and nothing is decoded for them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from headrace.errors import InvalidMessage

Attributes: TypeAlias = dict[str, tuple[str, str | bytes]]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, tuple[str, Any]])  # msgspec takes no union of str and bytes


def encode(attributes: Attributes) -> bytes:
    return _encoder.encode(dict(sorted(attributes.items()))) if attributes else b""


def decode(blob: bytes) -> Attributes:
    return _decoder.decode(blob) if blob else {}


def size_bytes(blob: bytes) -> int:
    """What attributes count in a message's size: names, types and values, in UTF-8 bytes. Source: SQS, quotas.

    Raises:
        InvalidMessage: the blob is not what `encode` writes.
    """
    size = 0
    try:
        for name, (kind, value) in decode(blob).items():
            if not isinstance(value, str | bytes):
                raise InvalidMessage(f"attribute {name!r} has a value that is neither text nor bytes")
            size += len(name.encode()) + len(kind.encode()) + len(value.encode() if isinstance(value, str) else value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # msgspec raises all three
        raise InvalidMessage(f"its attributes are not msgpack of {{name: [type, value]}}: {error}") from None
    return size
