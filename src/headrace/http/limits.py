"""Every limit of the HTTP engine, with unit and reason. RFC = RFC 9112 (HTTP/1.1) unless said."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from headrace.errors import InvalidParameter

CHUNK_SIZE_DIGITS_MAX: Final = 16  # 64 bits; longer ones only serve to overflow somebody's integer
CONTENT_LENGTH_DIGITS_MAX: Final = 18  # fits 63 bits; far beyond every body limit
CHUNK_LINE_BYTES_MAX: Final = 256  # size and extensions of one chunk; nobody uses extensions, attacks do
CHUNK_OVERHEAD_FREE_BYTES: Final = 65_536  # framing beyond this may not outweigh the body: one-byte chunks burn CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client, and all together, may ask of a listener. Times in seconds, sizes in bytes."""

    header_bytes: int = 32_768
    """Request line, headers and the empty line. SigV4 with a session token takes about 3 KiB; beyond: 431."""
    headers_max: int = 100
    """Header lines; the SDKs send about 15, browsers 25; beyond: 431."""
    target_bytes: int = 16_384
    """The request target. A presigned SQS GET carries its message in the query; beyond: 414."""
    trailer_bytes: int = 4_096
    """The trailer section of a chunked body, read and dropped; beyond: 431."""
    body_bytes: int = 1_048_576
    """A whole body, after chunks are joined; beyond: 413."""

    pipeline_max: int = 32
    """Requests of one connection that wait for their answer, and that one loop turn takes from it: 32 cost about
    0.5 ms, so that a pipelining client does not starve the others. Beyond: not read until answers are out."""
    pipeline_body_bytes: int = 1_048_576
    """Bodies of one connection's waiting requests; beyond: not read. A single request may exceed it."""
    connections_max: int = 10_000
    """Open connections of a listener, about 3 KiB each when idle; beyond: they wait in the kernel's backlog."""
    backlog: int = 1_024
    """Connections that the kernel holds before accept (it may cap this at `somaxconn`)."""
    write_buffer_bytes: int = 65_536
    """Answer bytes that the client has not taken; beyond: its next requests are not read."""

    headers_s: float = 10.0
    """From connecting, or from a request's first byte, to the end of its headers; else 408 (slowloris)."""
    idle_s: float = 60.0
    """A kept connection without a request. SDK pools reconnect silently; most proxies use 60 s."""
    rate_bytes_s: int = 500
    """The slowest that a body may arrive, or an answer be taken, over `rate_window_s`."""
    rate_window_s: float = 10.0
    linger_s: float = 3.0
    """After an answer that closes: how long input is read and dropped, so that a reset does not destroy the answer."""
    tls_handshake_s: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise InvalidParameter(field.name, str(getattr(self, field.name)), "it must be positive")
