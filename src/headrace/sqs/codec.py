"""The interface of the codecs, which write the answers of a protocol.

Reading requests is not part of it: `service.py` reads each protocol in its own way.
"""

from __future__ import annotations

from typing import Protocol

from headrace.sqs.errors import Fault
from headrace.sqs.shapes import Shape

Headers = tuple[tuple[bytes, bytes], ...]


class Codec(Protocol):
    """Writes answers and faults in the form of one protocol."""

    content_type: bytes

    def answer(self, operation: str, result: Shape | None, request_id: str) -> bytes:
        """The body of a success. `result` is None for an operation without a result."""

    def fault(self, fault: Fault, request_id: str) -> tuple[bytes, Headers]:
        """The body of an error, and its headers."""


def request_id_header(request_id: str) -> tuple[bytes, bytes]:
    return b"x-amzn-requestid", request_id.encode()
