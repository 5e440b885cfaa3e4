"""Frames of HTTP/2 written by hand, right or wrong. RFC = RFC 9113."""

from __future__ import annotations

from struct import Struct
from typing import Final

from headrace.http.h2_frames import Code

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
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
