"""Sending: SendMessage and SendMessageBatch.

No rules here: a request becomes an operation of the queue, its outcome an answer. Only what the queue cannot know is
checked: the form of the request, and what AWS refuses for a whole batch at once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from headrace.errors import HeadraceError
from headrace.queue.attributes import encode
from headrace.queue.limits import SECOND_MS
from headrace.queue.model import Entry, QueueSettings, uuid_text
from headrace.queue.operations import Send
from headrace.sqs import limits
from headrace.sqs.batches import check_batch, failure
from headrace.sqs.call import Call
from headrace.sqs.errors import (
    BATCH_REQUEST_TOO_LONG,
    EMPTY_VALUE,
    INVALID_PARAMETER_VALUE,
    WRONG_QUEUE_TYPE,
    Fault,
    invalid,
    missing,
    no_dedup_id,
    translate,
)
from headrace.sqs.messages import (
    allowed,
    attributes_md5,
    attributes_size,
    check_id,
    encode_body,
    md5,
    read_attributes,
    read_trace,
    sequence_number,
)
from headrace.sqs.shapes import (
    BatchResult,
    BatchResultErrorEntry,
    SendMessage,
    SendMessageBatch,
    SendMessageBatchResultEntry,
    SendMessageEntry,
    SendMessageResult,
)


class _Draft(msgspec.Struct, frozen=True, gc=False):
    """A message as it goes to the queue, and the digests that its answer repeats."""

    entry: Entry
    body_md5: str
    attributes_md5: str | None
    trace_md5: str | None
    size_bytes: int


def send_message(call: Call, request: SendMessage) -> None:
    info = call.queue(request.queue_url)
    draft = _draft(call, request, info.settings)
    _check_fifo(request, info.settings)
    call.submit(Send(info.arn, [draft.entry]), partial(_sent, call, draft, info.settings.fifo))


def _sent(call: Call, draft: _Draft, fifo: bool, outcome: list[Any]) -> None:
    sent = outcome[0]
    if isinstance(sent, HeadraceError):
        raise sent
    sequence = sequence_number(sent.seq) if fifo else None
    call.answer(SendMessageResult(draft.body_md5, uuid_text(sent.id), draft.attributes_md5, draft.trace_md5, sequence))


def send_message_batch(call: Call, request: SendMessageBatch) -> None:
    info = call.queue(request.queue_url)
    entries = check_batch(call.operation, request.entries)
    drafts: list[tuple[str, _Draft]] = []
    failed: list[BatchResultErrorEntry] = []
    size_bytes = 0
    for number, entry in enumerate(entries, 1):
        try:
            _check_body(entry, number)
            draft = _draft(call, entry, info.settings)
        except Fault as fault:
            failed.append(failure(entry.id, fault))
            size_bytes += _raw_size(entry)
        else:
            drafts.append((str(entry.id), draft))
            size_bytes += draft.size_bytes
    if size_bytes > limits.BATCH_BYTES_MAX:
        text = f"Batch requests cannot be longer than {limits.BATCH_BYTES_MAX} bytes. You have sent {size_bytes} bytes."
        raise Fault(BATCH_REQUEST_TOO_LONG, text)
    for entry in entries:
        _check_fifo_batch(entry, info.settings)
    if not drafts:
        call.answer(BatchResult(failed=failed))
        return
    operation = Send(info.arn, [draft.entry for _, draft in drafts])
    call.submit(operation, partial(_batch_sent, call, drafts, failed, info.settings.fifo))


def _check_body(entry: SendMessageEntry, number: int) -> None:
    """In a batch AWS names the entry whose body is missing, and has another error for one that is empty."""
    if entry.message_body is None:
        raise missing(f"SendMessageBatchRequestEntry.{number}.MessageBody")
    if not entry.message_body:
        raise Fault(EMPTY_VALUE, f"No Value Found for SendMessageBatchRequestEntry.{number}.MessageBody.")


def _batch_sent(
    call: Call,
    drafts: list[tuple[str, _Draft]],
    failed: list[BatchResultErrorEntry],
    fifo: bool,
    outcome: list[Any],
) -> None:
    successful = []
    for (entry_id, draft), sent in zip(drafts, outcome, strict=True):
        if isinstance(sent, HeadraceError):
            failed.append(failure(entry_id, translate(sent)))
            continue
        sequence = sequence_number(sent.seq) if fifo else None
        successful.append(
            SendMessageBatchResultEntry(
                entry_id, uuid_text(sent.id), draft.body_md5, draft.attributes_md5, draft.trace_md5, sequence
            )
        )
    call.answer(BatchResult(successful, failed))


def _draft(call: Call, given: SendMessage | SendMessageEntry, settings: QueueSettings) -> _Draft:
    """The message that a request asks to send, checked by itself."""
    body = encode_body(given.message_body)
    if _plain(given) and b"x-amzn-trace-id" not in call.request.headers:
        return _Draft(Entry(body, sender=call.sender()), md5(body), None, None, len(body))
    blob, digest, size_bytes = b"", None, len(body)
    if given.message_attributes:
        attributes = read_attributes(given.message_attributes)
        blob, digest = encode(attributes), attributes_md5(sorted(attributes.items()))
        size_bytes += attributes_size(attributes)
    trace, trace_md5 = _trace(call, given)
    if given.message_group_id or not settings.fifo:  # an empty group of a FIFO queue is as good as none
        check_id("MessageGroupId", given.message_group_id)
    check_id("MessageDeduplicationId", given.message_deduplication_id)
    if given.message_deduplication_id is not None and not settings.fifo:
        raise invalid("MessageDeduplicationId", given.message_deduplication_id, WRONG_QUEUE_TYPE)
    entry = Entry(
        body,
        blob,
        _delay_ms(given.delay_seconds, fifo=settings.fifo),
        given.message_group_id,
        given.message_deduplication_id,
        trace,
        call.sender(),
    )
    return _Draft(entry, md5(body), digest, trace_md5, size_bytes)


def _plain(given: SendMessage | SendMessageEntry) -> bool:
    """Whether a message is a body and nothing else, as most are."""
    return (
        given.message_attributes is None
        and given.message_system_attributes is None
        and given.delay_seconds is None
        and given.message_group_id is None
        and given.message_deduplication_id is None
    )


def _trace(call: Call, given: SendMessage | SendMessageEntry) -> tuple[str | None, str | None]:
    """The trace header of a message and its digest: from the system attributes, else from the HTTP request."""
    if given.message_system_attributes:
        trace = read_trace(given.message_system_attributes)
        return trace, trace and attributes_md5((("AWSTraceHeader", ("String", trace)),))
    header = call.request.headers.get(b"x-amzn-trace-id")
    return (None if header is None or not allowed(header) else header.decode("latin-1")), None


def _delay_ms(delay_s: int | None, *, fifo: bool) -> int | None:
    if delay_s is None:
        return None
    if not 0 <= delay_s <= limits.DELAY_MAX_S:
        raise invalid("DelaySeconds", delay_s, f"DelaySeconds must be >= 0 and <= {limits.DELAY_MAX_S}.")
    if fifo and delay_s:  # 0 is taken, and means the queue's own delay
        raise invalid("DelaySeconds", delay_s, WRONG_QUEUE_TYPE)
    return delay_s * SECOND_MS


def _check_fifo(given: SendMessage | SendMessageEntry, settings: QueueSettings) -> None:
    if not settings.fifo:
        return
    if not given.message_group_id:
        raise missing("MessageGroupId")
    if given.message_deduplication_id is None and not settings.content_dedup:
        raise no_dedup_id()


def _check_fifo_batch(entry: SendMessageEntry, settings: QueueSettings) -> None:
    """On AWS an entry without group or deduplication id fails its whole batch, as an invalid value."""
    try:
        _check_fifo(entry, settings)
    except Fault as fault:
        raise Fault(INVALID_PARAMETER_VALUE, fault.message) from None


def _raw_size(entry: SendMessageEntry) -> int:
    """What an entry that is refused anyway counts in its batch."""
    return len((entry.message_body or "").encode())
