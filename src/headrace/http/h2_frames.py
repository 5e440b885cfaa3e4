"""What of HTTP/2's framing is needed beside the `h2` library: frame heads, to count before it reads, and GOAWAY. Pure."""

from __future__ import annotations

from struct import Struct
from typing import Final

from h2.errors import ErrorCodes as Code
from hyperframe.frame import GoAwayFrame

from headrace.errors import CallerError

__all__ = ["Code", "ConnectionFault", "StreamFault", "goaway"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = Struct(">HBBBI")
"""Of a frame: 24 bits of length as 16 and 8, type, flags, stream."""
HEAD_BYTES: Final = 9
FRAME_BYTES_MAX: Final = 16_384  # what we take, and the least that everybody takes (RFC 9113 4.2)
STREAM_ID_MAX: Final = 2**31 - 1

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_HEADERS: Final = 0x4


class ConnectionFault(CallerError):
    """The connection cannot go on: GOAWAY with `code` (RFC 9113 5.4.1)."""

    def __init__(self, code: Code, reason: str, *, told: bool = False) -> None:
        """
        Args:
            told: the GOAWAY has been put already.
        """
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.told = told


class StreamFault(CallerError):
    """One stream ends with `code`; the others go on (RFC 9113 5.4.2)."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def goaway(last_stream: int, code: Code, reason: str = "") -> bytes:
    """Past the library, for which a connection is closed once either side has said GOAWAY; for the RFC, its streams go on."""
    frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=code, additional_data=reason.encode()[:256])
    return bytes(frame.serialize())
