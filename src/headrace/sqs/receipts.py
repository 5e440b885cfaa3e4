"""Receipt handles: the queue's receipts as text, and what may be asked of a lease."""

from __future__ import annotations

import binascii
from typing import Final

from headrace.queue.receipts import SIZE_BYTES
from headrace.sqs import limits
from headrace.sqs.errors import bad_receipt, invalid, missing

# URL-safe, because handles get into query strings without being encoded.
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/\0\0\0")  # and nothing else, so that each handle has one spelling
_HANDLE_CHARACTERS: Final = len(binascii.b2a_base64(bytes(SIZE_BYTES), newline=False))


def encode(receipt: bytes) -> str:
    return binascii.b2a_base64(receipt, newline=False).translate(_TO_URL).decode()


def decode(handle: str | None) -> bytes:
    """The receipt in a handle.

    Raises:
        Fault: MissingParameter, or ReceiptHandleIsInvalid for what `encode` cannot have written.
    """
    if not handle:
        raise missing("ReceiptHandle")
    if len(handle) != _HANDLE_CHARACTERS:
        raise bad_receipt(handle)
    try:
        return binascii.a2b_base64(handle.encode("ascii").translate(_FROM_URL), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise bad_receipt(handle) from None


def check_visibility(timeout_s: int, rule: str) -> None:
    """`rule`: AWS words it in three ways, one for each kind of call."""
    if not 0 <= timeout_s <= limits.VISIBILITY_MAX_S:
        raise invalid("VisibilityTimeout", timeout_s, rule)
