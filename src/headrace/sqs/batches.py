"""The parts that the three batch operations share: faults of the whole batch, failures of an entry.

Source: SQS API Reference, SendMessageBatch, DeleteMessageBatch, ChangeMessageVisibilityBatch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from headrace.errors import HeadraceError
from headrace.sqs import limits
from headrace.sqs.errors import (
    BATCH_ENTRY_IDS_NOT_DISTINCT,
    EMPTY_BATCH_REQUEST,
    INVALID_BATCH_ENTRY_ID,
    TOO_MANY_ENTRIES,
    Fault,
    missing,
    translate,
)
from headrace.sqs.shapes import BatchResult, BatchResultEntry, BatchResultErrorEntry

_ID: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{limits.BATCH_ID_CHARACTERS_MAX}}}", re.ASCII)
_ID_RULE: Final = (
    "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most "
    f"{limits.BATCH_ID_CHARACTERS_MAX} letters long."
)


class BatchEntry(Protocol):
    @property
    def id(self) -> str | None: ...


E = TypeVar("E", bound=BatchEntry)


def check_batch(operation: str, entries: Sequence[E] | None) -> Sequence[E]:
    """The entries of a batch that is valid as a whole.

    Raises:
        Fault: the batch is missing, empty or too large, or its ids are not 1 to 80 characters or not distinct.
    """
    if entries is None:
        raise missing("Entries")
    if not entries:
        text = f"There should be at least one {operation}RequestEntry in the request."
        raise Fault(EMPTY_BATCH_REQUEST, text)
    if len(entries) > limits.BATCH_ENTRIES_MAX:
        text = f"Maximum number of entries per request are {limits.BATCH_ENTRIES_MAX}. You have sent {len(entries)}."
        raise Fault(TOO_MANY_ENTRIES, text)
    seen: set[str] = set()
    for number, entry in enumerate(entries, 1):
        if entry.id is None:
            raise missing(f"{operation}RequestEntry.{number}.Id")
        if _ID.fullmatch(entry.id) is None:
            raise Fault(INVALID_BATCH_ENTRY_ID, _ID_RULE)
        if entry.id in seen:
            raise Fault(BATCH_ENTRY_IDS_NOT_DISTINCT, f"Id {entry.id} repeated.")
        seen.add(entry.id)
    return entries


# In batches AWS gives only the reason why one of these cannot be, and no full stop.
_ID_FAULT: Final = re.compile(
    r"Value .* for parameter Message(?:GroupId|DeduplicationId) is invalid\. Reason: (.*?)\.?", re.DOTALL
)


def failure(entry_id: str | None, fault: Fault) -> BatchResultErrorEntry:
    """An entry's failure: in batches AWS words some of the rules another way."""
    text = fault.message.replace("One or more parameters are invalid.", "One or more parameters cannot be validated.")
    about_id = _ID_FAULT.fullmatch(text)
    if about_id is not None:
        text = about_id[1]
    return BatchResultErrorEntry(str(entry_id), fault.kind.sender, fault.kind.code, text)


def sort_receipts(
    entries: Sequence[E], read: Callable[[E, int], Any]
) -> tuple[list[tuple[E, Any]], list[BatchResultErrorEntry]]:
    """Each entry with the result of `read` for it and its number, and the failures of the entries that `read` refuses."""
    good, failed = [], []
    for number, entry in enumerate(entries, 1):
        try:
            good.append((entry, read(entry, number)))
        except Fault as fault:
            failed.append(failure(entry.id, fault))
    return good, failed


def receipt_result(
    entries: Sequence[tuple[str, str]], outcome: Sequence[Any], failed: list[BatchResultErrorEntry]
) -> BatchResult:
    """The answer to a batch of receipts: `entries` are (id, handle), `outcome` an item for each."""
    successful = []
    for (entry_id, handle), item in zip(entries, outcome, strict=True):
        if isinstance(item, HeadraceError):
            failed.append(failure(entry_id, translate(item, receipt=handle)))
        else:
            successful.append(BatchResultEntry(entry_id))
    return BatchResult(successful, failed)
