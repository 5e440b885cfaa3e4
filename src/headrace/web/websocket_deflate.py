"""permessage-deflate (RFC 7692), bounded: what a client may make us inflate is known before it is inflated.

On wsproto's frame layer. Its own extension inflates whatever comes, and forgets that a message is compressed when a ping
comes between two of its frames.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

NAME: Final = "permessage-deflate"
_LEVEL: Final = 1  # the loop waits meanwhile: 3x faster than 6, for answers a tenth longer
_MEMORY_LEVEL: Final = 5
_WINDOW_BITS_OUT_MAX: Final = 12  # with the memory level 32 KiB a connection instead of 256
_TAIL: Final = b"\x00\x00\xff\xff"

_PARAMETER: Final = re.compile(
    r"(server_no_context_takeover|client_no_context_takeover)"
    r"|(server_max_window_bits)=\"?(9|1[0-5])\"?|(client_max_window_bits)(?:=\"?([89]|1[0-5])\"?)?"
)


class Deflate(Extension):
    """One connection's compression, both ways."""

    name = NAME

    def __init__(self, parameters: dict[str, int], message_bytes_max: int) -> None:
        self._out_bits = min(parameters.get("server_max_window_bits", 15), _WINDOW_BITS_OUT_MAX)
        self._out_fresh = "server_no_context_takeover" in parameters
        self._in_fresh = "client_no_context_takeover" in parameters
        self._max = message_bytes_max
        self._deflater: Any = None
        self._inflater: Any = None
        self._data_frame = False
        """Whether the current frame carries data."""
        self._compressed: bool | None = None
        """Whether the current message is; None between messages."""
        self._inflated = 0
        """Bytes of the current message so far."""
        self._final_seen = False

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # a server offers nothing

    # From the client. The signatures are wsproto's: ARG002

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,  # noqa: ARG002
    ) -> CloseReason | RsvBits:
        self._data_frame = not opcode.iscontrol()
        if rsv.rsv1 and (not self._data_frame or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if self._data_frame and self._compressed is None:
            self._compressed = rsv.rsv1
            self._inflated = 0
            self._final_seen = False
            if rsv.rsv1 and self._inflater is None:
                self._inflater = zlib.decompressobj(-15)  # reads what any smaller window wrote
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes | CloseReason:
        return self._inflate(data) if self._data_frame and self._compressed else data

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,
    ) -> bytes | CloseReason | None:
        if not fin or not self._data_frame:
            return None
        compressed, self._compressed = self._compressed, None
        if not compressed:
            return None
        rest = self._inflate(_TAIL)
        if self._in_fresh:
            self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        try:
            found: bytes = self._inflater.decompress(data, self._max - self._inflated + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inflated += len(found)
        if self._inflated > self._max:
            return CloseReason.MESSAGE_TOO_BIG
        return found if not self._inflater.eof else self._inflate_behind_final(found)

    def _inflate_behind_final(self, found: bytes) -> bytes | CloseReason:
        """A message may have a final block (RFC 7692 7.2.3.5). One: each costs a new inflater, and nobody sends two."""
        rest = self._inflater.unused_data
        self._inflater = zlib.decompressobj(-15)
        if self._final_seen:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._final_seen = True
        more = self._inflate(rest)
        return more if isinstance(more, CloseReason) else found + more

    # To the client: always whole messages in one frame

    def frame_outbound(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        data: bytes,
        fin: bool,  # noqa: ARG002
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol():
            return rsv, data
        deflater = self._deflater or zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._out_bits, _MEMORY_LEVEL)
        self._deflater = None if self._out_fresh else deflater
        return RsvBits(True, rsv.rsv2, rsv.rsv3), (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def negotiate(offers: bytes, message_bytes_max: int) -> tuple[Deflate, bytes] | None:
    """The first acceptable offer of a Sec-WebSocket-Extensions header, and the answer to it; None if there is none."""
    for offer in offers.decode("latin-1").split(","):
        name, *rest = (part.strip() for part in offer.split(";"))
        parameters = _read_parameters(rest) if name == NAME else None
        if parameters is not None:
            return Deflate(parameters, message_bytes_max), _render(parameters).encode()
    return None


def _read_parameters(parts: list[str]) -> dict[str, int] | None:
    """An unknown, repeated or invalid one declines the offer (RFC 7692 5.1); client_max_window_bits without value is 15."""
    found: dict[str, int] = {}
    for part in parts:
        match = _PARAMETER.fullmatch(part)
        if match is None:
            return None
        flag, server, server_bits, client, client_bits = match.groups()
        name = flag or server or client
        if name in found:
            return None
        found[name] = int(server_bits or client_bits or 15)
    return found


def _render(parameters: dict[str, int]) -> str:
    """What was asked for is granted. The client's window may be as large as it likes: nothing to answer to that."""
    granted = [
        f"{name}={value}" if name == "server_max_window_bits" else name
        for name, value in parameters.items()
        if name != "client_max_window_bits"
    ]
    return "; ".join([NAME, *granted])
