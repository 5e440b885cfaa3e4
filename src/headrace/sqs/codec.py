"""What a protocol must do: the plug point of the two codecs.

Reading is not part of it, because a protocol is told by how it is read (`service.py`).
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
        """The body of a success. `result` is None for an operation that answers nothing."""

    def fault(self, fault: Fault, request_id: str) -> tuple[bytes, Headers]:
        """The body of an error, and the headers that go with it."""


def request_id_header(request_id: str) -> tuple[bytes, bytes]:
    return b"x-amzn-requestid", request_id.encode()
