"""Errors in one line, for people: what is wrong, and what to do next."""

from __future__ import annotations

from typing import Final

from headrace import errors
from headrace.errors import HeadraceError
from headrace.queue.model import arn_of

_NEXT_STEPS: Final[tuple[tuple[type[HeadraceError], str], ...]] = (
    (errors.Unavailable, "start one with `headrace broker --data DIR`, or name another with --broker"),
    (errors.QueueNotFound, "`headrace queue ls` lists what is there, `headrace queue create NAME` makes one"),
    (errors.QueueExists, "`headrace queue show NAME` tells how it is set, `headrace queue set NAME` changes it"),
    (errors.TopicNotFound, "`headrace topic ls` lists what is there, `headrace topic create NAME` makes one"),
    (errors.TopicExists, "`headrace topic show NAME` tells how it is set, `headrace topic set NAME` changes it"),
    (errors.ReceiptExpired, "receive the message again for a new receipt"),
    (errors.ReceiptInvalid, "use the receipt that `headrace queue receive NAME` printed"),
    (errors.OutcomeUnknown, "look before you repeat it: `headrace queue peek NAME`"),
    (errors.MoveTaskRefused, "`headrace queue ls` tells which is whose dead-letter queue"),
    (errors.UnknownError, "is it a headrace broker, and of this version? `headrace --version`"),
)
"""Error -> what to try next; the first line that fits."""

_KEY_FAULTS: Final = ("MissingAuthenticationToken", "InvalidClientTokenId", "SignatureDoesNotMatch")
_DEFAULT_ARN: Final = arn_of("")


def explain(error: HeadraceError) -> str:
    """The message, with plain names for queues of the default region and account, and the next step if we know one."""
    text = "; ".join([str(error), *getattr(error, "__notes__", [])])
    text = text.replace(_DEFAULT_ARN, "").replace("; create it first", "")
    step = next((step for kind, step in _NEXT_STEPS if isinstance(error, kind)), None)
    if isinstance(error, errors.AccessDenied) and text.startswith(_KEY_FAULTS):
        step = "HEADRACE_ACCESS_KEY and HEADRACE_SECRET_KEY say with which key to ask"
    if isinstance(error, errors.Unavailable) and not text.startswith("no broker at"):
        step = None  # it is there, and says itself what is amiss
    return f"{text.removesuffix('.')}; {step}" if step is not None else text
