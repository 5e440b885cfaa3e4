"""Message attributes as the queue stores them: opaque to its rules, one blob a message.

Shape: msgpack of `{name: [data type, value]}`, sorted by name; value is str for String and Number, bytes for Binary.
No attributes are the empty bytes, not an empty map: most messages have none, and nothing is decoded for them.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

Attributes: TypeAlias = dict[str, tuple[str, str | bytes]]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Attributes)


def encode(attributes: Attributes) -> bytes:
    return _encoder.encode(dict(sorted(attributes.items()))) if attributes else b""


def decode(blob: bytes) -> Attributes:
    return _decoder.decode(blob) if blob else {}
