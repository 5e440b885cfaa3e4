"""What a consumer does with a message that it has: DeleteMessage, ChangeMessageVisibility, and their batches."""

from __future__ import annotations

from functools import partial
from typing import Any

from headrace.errors import HeadraceError
from headrace.queue.limits import SECOND_MS
from headrace.queue.operations import ChangeVisibility, Delete
from headrace.sqs import receipts
from headrace.sqs.batches import check_batch, receipt_result, sort_receipts
from headrace.sqs.call import Call
from headrace.sqs.errors import missing, translate
from headrace.sqs.limits import VISIBILITY_MAX_S
from headrace.sqs.shapes import (
    BatchResult,
    BatchResultErrorEntry,
    ChangeMessageVisibility,
    ChangeMessageVisibilityBatch,
    ChangeMessageVisibilityEntry,
    DeleteMessage,
    DeleteMessageBatch,
    DeleteMessageEntry,
)


def delete_message(call: Call, request: DeleteMessage) -> None:
    info = call.queue(request.queue_url)
    receipt = receipts.decode(request.receipt_handle)
    call.submit(Delete(info.arn, [receipt]), partial(_finish_one, call, str(request.receipt_handle)))


def change_message_visibility(call: Call, request: ChangeMessageVisibility) -> None:
    info = call.queue(request.queue_url)
    change = _change(request)
    call.submit(ChangeVisibility(info.arn, [change]), partial(_finish_one, call, str(request.receipt_handle)))


def delete_message_batch(call: Call, request: DeleteMessageBatch) -> None:
    info = call.queue(request.queue_url)
    entries = check_batch(call.operation, request.entries)
    good, failed = sort_receipts(entries, _receipt)
    if not good:
        call.answer(BatchResult(failed=failed))
        return
    operation = Delete(info.arn, [receipt for _, receipt in good])
    call.submit(operation, partial(_finish_batch, call, [_named(entry) for entry, _ in good], failed))


def change_message_visibility_batch(call: Call, request: ChangeMessageVisibilityBatch) -> None:
    info = call.queue(request.queue_url)
    entries = check_batch(call.operation, request.entries)
    good, failed = sort_receipts(entries, _change_entry)
    if not good:
        call.answer(BatchResult(failed=failed))
        return
    operation = ChangeVisibility(info.arn, [change for _, change in good])
    call.submit(operation, partial(_finish_batch, call, [_named(entry) for entry, _ in good], failed))


def _receipt(entry: DeleteMessageEntry, _: int) -> bytes:
    return receipts.decode(entry.receipt_handle)


def _change(given: ChangeMessageVisibility) -> tuple[bytes, int]:
    receipt, timeout_s = receipts.decode(given.receipt_handle), given.visibility_timeout
    if timeout_s is None:
        raise missing("VisibilityTimeout")
    receipts.check_visibility(timeout_s, f"Must be between 0 and {VISIBILITY_MAX_S}.")
    return receipt, timeout_s * SECOND_MS


def _change_entry(entry: ChangeMessageVisibilityEntry, number: int) -> tuple[bytes, int]:
    receipt, timeout_s = receipts.decode(entry.receipt_handle), entry.visibility_timeout
    if timeout_s is None:
        raise missing(f"ChangeMessageVisibilityBatchRequestEntry.{number}.VisibilityTimeout")
    receipts.check_visibility(timeout_s, f"VisibilityTimeout must be an integer between 0 and {VISIBILITY_MAX_S}.")
    return receipt, timeout_s * SECOND_MS


def _named(entry: DeleteMessageEntry | ChangeMessageVisibilityEntry) -> tuple[str, str]:
    return str(entry.id), str(entry.receipt_handle)


def _finish_one(call: Call, handle: str, outcome: list[Any]) -> None:
    if isinstance(outcome[0], HeadraceError):
        raise translate(outcome[0], receipt=handle)
    call.answer(None)


def _finish_batch(
    call: Call, entries: list[tuple[str, str]], failed: list[BatchResultErrorEntry], outcome: list[Any]
) -> None:
    call.answer(receipt_result(entries, outcome, failed))
