"""The frames of HTTP/2 as bytes, and what their numbers mean. Pure. RFC = RFC 9113.

The frame layer is our own, on top of `hpack`. The `h2` library was measured and left out: 78 µs a small request against
20 here, and it cannot do what a server in front of workers must: finish streams after a GOAWAY in either direction (its
state machine is then closed), answer a stream's error with the end of that stream alone (8.1.1), stop in the middle of
a flood, since it reads a whole chunk before it says what was in it.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, iter_unpack
from typing import Final

from headrace.errors import CallerError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
FRAME_BYTES_MAX: Final = (
    16_384  # what we take, and the least that everybody takes (RFC 4.2); bigger ones only add delay
)
WINDOW_MAX: Final = 2**31 - 1
WINDOW_DEFAULT: Final = 65_535  # of a peer that has not said otherwise (RFC 6.9.2)
STREAM_ID_MAX: Final = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

SETTING_HEADER_TABLE_SIZE: Final = 1
SETTING_ENABLE_PUSH: Final = 2
SETTING_MAX_CONCURRENT_STREAMS: Final = 3
SETTING_INITIAL_WINDOW_SIZE: Final = 4
SETTING_MAX_FRAME_SIZE: Final = 5
SETTING_MAX_HEADER_LIST_SIZE: Final = 6
SETTING_ENABLE_CONNECT_PROTOCOL: Final = 8  # RFC 8441

HEAD: Final = Struct(">HBBBI")  # 24 bits of length as 16 and 8
_SETTING: Final = Struct(">HI")
_U32: Final = Struct(">I")
_TWO_U32: Final = Struct(">II")


class Code(IntEnum):
    """Error codes (RFC 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(CallerError):
    """The connection cannot go on: GOAWAY with `code` (RFC 5.4.1)."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(CallerError):
    """One stream ends with `code`; the others go on (RFC 5.4.2)."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def header_frames(block: bytes, *, stream: int, size_max: int, end_stream: bool) -> bytes:
    """HEADERS, and CONTINUATION for what does not fit."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= size_max:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    frames = [frame(HEADERS, flags, stream, block[:size_max])]
    for at in range(size_max, len(block), size_max):
        last = END_HEADERS if at + size_max >= len(block) else 0
        frames.append(frame(CONTINUATION, last, stream, block[at : at + size_max]))
    return b"".join(frames)


def reset(stream: int, code: Code) -> bytes:
    return frame(RST_STREAM, 0, stream, _U32.pack(code))


def goaway(last_stream: int, code: Code, reason: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _TWO_U32.pack(last_stream, code) + reason.encode()[:256])


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(increment))


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*pair) for pair in values.items()]))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def read_u32(payload: bytes) -> int:
    """Raises: ConnectionFault, unless `payload` is four bytes long."""
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where there are four")
    return int.from_bytes(payload, "big")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Raises: ConnectionFault."""
    if len(payload) % 6:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS whose length is no multiple of six")
    pairs = list(iter_unpack(">HI", payload))
    for name, value in pairs:
        _check_setting(name, value)
    return pairs


def _check_setting(name: int, value: int) -> None:
    if name == SETTING_ENABLE_PUSH and value > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
    if name == SETTING_INITIAL_WINDOW_SIZE and value > WINDOW_MAX:
        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
    if name == SETTING_MAX_FRAME_SIZE and not FRAME_BYTES_MAX <= value < 2**24:
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
    if name == SETTING_ENABLE_CONNECT_PROTOCOL and value > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL is {value}")


def unpad(payload: bytes, flags: int) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding.

    Raises: ConnectionFault.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame with more padding than payload")
    return payload[1 : len(payload) - padding]


def skip_priority(payload: bytes) -> bytes:
    """The header block of HEADERS with the PRIORITY flag; priorities are obsolete and ignored (RFC 5.3.2).

    Raises: ConnectionFault.
    """
    if len(payload) < 5:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS too short for the priority that it announces")
    return payload[5:]
