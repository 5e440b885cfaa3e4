"""What is asked for, as one Transact; and what it answers. The same for threads and event loops."""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from headrace.errors import ReceiptInvalid
from headrace.native.bodies import Body
from headrace.native.messages import Outgoing, SentMessage, entries_of
from headrace.queue.model import arn_of
from headrace.queue.operations import Transact, TransactOutcome


class HasArn(Protocol):
    """A queue's or topic's handle."""

    @property
    def arn(self) -> str: ...


Place: TypeAlias = HasArn | str
"""A queue (a handle, a name or an ARN) or a topic (a handle or an ARN)."""


def sending(queue: Place, messages: Iterable[Body | Outgoing], *, delay: float | None, group: str | None) -> Transact:
    """Raises InvalidMessage, InvalidParameter."""
    return Transact(sends=[(_arn(queue), list(entries_of(messages, delay=delay, group=group)))])


def acknowledging(queue: Place, receipts: Iterable[bytes | str]) -> Transact:
    """Raises ReceiptInvalid."""
    return Transact(acknowledge=[(_arn(queue), [_receipt(one) for one in receipts])])


def sent(outcome: TransactOutcome) -> list[SentMessage]:
    return [SentMessage(one) for batch in outcome.sent for one in batch]


def _arn(place: Place) -> str:
    return arn_of(place) if isinstance(place, str) else place.arn


def _receipt(given: bytes | str) -> bytes:
    """A receipt as the native client has it, or a ReceiptHandle of SQS: URL-safe base64 of the same."""
    if isinstance(given, bytes):
        return given
    try:
        return binascii.a2b_base64(given.replace("-", "+").replace("_", "/").encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ReceiptInvalid from None
