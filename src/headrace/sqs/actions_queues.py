"""The operations on queues: create, delete, purge, find, list."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import partial
from typing import Any, Final

from headrace.errors import HeadraceError, RedriveRefused
from headrace.queue.model import QueueDescription, QueueInfo, arn_of
from headrace.queue.operations import CreateQueue, DeleteQueue, ListQueues, Purge
from headrace.sqs import attributes, limits, policy, shapes
from headrace.sqs.attributes import Changes
from headrace.sqs.call import Call
from headrace.sqs.errors import (
    FIFO_NAME_RULE,
    INVALID_PARAMETER_VALUE,
    NAME_RULE,
    Fault,
    invalid,
    invalid_attribute,
    no_queue,
    unknown_attribute,
)
from headrace.sqs.tags import check_tags
from headrace.sqs.urls import valid_account, valid_arn, valid_name


def create_queue(call: Call, request: shapes.CreateQueue) -> None:
    name, given = request.queue_name or "", request.attributes or {}
    _check_given(request.queue_name)
    _check_name(name, given)
    arn = arn_of(name, region=call.region, account=call.account)
    call.authorize(arn)
    changes = attributes.parse(given)
    check_policy(changes)
    check_dead_letter_owner(arn, changes, given.get("RedrivePolicy", ""))
    tags = request.tags or {}
    check_tags(name, tags)
    existing = call.broker.find(arn)
    if existing is not None:
        changes = attributes.drop_same(changes, existing)
    stored = {key: value for key, value in changes.stored.items() if value is not None}
    done = partial(_created, call, given.get("RedrivePolicy", ""))
    call.context.broker.submit(CreateQueue(arn, changes.settings, stored, tags), call.guarded(done, errors=True))


def _check_given(name: str | None) -> None:
    """Refuse a request without a name, which AWS does not answer with MissingParameter."""
    if name is None:
        text = "Value for parameter QueueName is invalid. Reason: Must specify a queue name."
        raise Fault(INVALID_PARAMETER_VALUE, text)
    if not name:
        raise Fault(INVALID_PARAMETER_VALUE, "Queue name cannot be empty")


def _check_name(name: str, given: dict[str, str]) -> None:
    """Refuse an invalid name. A FIFO queue has both the suffix `.fifo` and FifoQueue, a standard queue neither."""
    fifo = given.get("FifoQueue")
    is_fifo = fifo is not None and fifo.lower() == "true"
    if is_fifo and not name.endswith(".fifo"):
        raise Fault(INVALID_PARAMETER_VALUE, FIFO_NAME_RULE)
    if name.endswith(".fifo") and not is_fifo:
        raise Fault(INVALID_PARAMETER_VALUE, NAME_RULE)
    if fifo is not None and not is_fifo:
        raise unknown_attribute("FifoQueue")
    if not valid_name(name) or len(name) > 80:
        raise Fault(INVALID_PARAMETER_VALUE, FIFO_NAME_RULE if fifo else NAME_RULE)


def check_policy(changes: Changes) -> None:
    """Refuse an invalid Policy before it is stored."""
    text = changes.stored.get("Policy")
    if text:
        try:
            policy.validate(text)
        except HeadraceError:
            raise invalid_attribute("Policy") from None


def check_dead_letter_owner(arn: str, changes: Changes, text: str) -> None:
    """Refuse a dead-letter queue of another account or region, whose owner could not stop the dead letters."""
    redrive = changes.settings.get("redrive")
    if redrive is None:
        return
    target, source = redrive["target"].split(":"), arn.split(":")
    if target[3] != source[3]:
        raise invalid("RedrivePolicy", text, "Dead-letter target must be in same region as the source.")
    if target[4] != source[4]:
        raise invalid("RedrivePolicy", text, "Dead letter target owner should be same as the source.")


def _created(call: Call, redrive_policy: str, outcome: Any) -> None:
    if isinstance(outcome, HeadraceError):
        raise redrive_fault(call, redrive_policy, outcome)
    info: QueueInfo = outcome
    call.answer(shapes.QueueUrlResult(call.url(info.arn)))


def redrive_fault(call: Call, text: str, error: HeadraceError) -> Exception:
    """AWS's words for a dead-letter queue that cannot be one; any other error as it is."""
    if not isinstance(error, RedriveRefused):
        return error
    target = call.broker.find(error.target)
    if target is None:
        return invalid("RedrivePolicy", text, "Dead letter target does not exist.")
    if target.settings.fifo != error.source.endswith(".fifo"):
        return invalid("RedrivePolicy", text, "Dead-letter queue must be same type of queue as the source.")
    return invalid("RedrivePolicy", text, f"{error.reason.removesuffix('.')}.")


def delete_queue(call: Call, request: shapes.DeleteQueue) -> None:
    info = call.queue(request.queue_url)
    call.submit(DeleteQueue(info.arn), lambda _: call.answer(None))


def purge_queue(call: Call, request: shapes.PurgeQueue) -> None:
    info = call.queue(request.queue_url)
    call.submit(Purge(info.arn), lambda _: call.answer(None))


def get_queue_url(call: Call, request: shapes.GetQueueUrl) -> None:
    name, owner = request.queue_name or "", request.owner or call.account
    _check_given(request.queue_name)
    if not valid_name(name) or not valid_account(owner):
        raise no_queue()
    info = call.queue_by_arn(arn_of(name, region=call.region, account=owner))
    call.answer(shapes.QueueUrlResult(call.url(info.arn)))


# ---------------------------------------------------------------------------------------------------------- the lists

_PAGE_RULE: Final = (
    f"Value for parameter MaxResults is invalid. Reason: MaxResults must be an integer between 1 and {limits.PAGE_MAX}."
)


def list_queues(call: Call, request: shapes.ListQueues) -> None:
    call.authorize("")
    start = arn_of("", region=call.region, account=call.account)
    page = _page(request.max_results)
    operation = ListQueues(
        prefix=start + (request.queue_name_prefix or ""), after=_after(request.next_token), limit=page + 1
    )
    call.submit(operation, partial(_listed, call, page, request.max_results is not None))


def _listed(call: Call, page: int, paged: bool, found: list[QueueDescription]) -> None:
    urls, token = _page_of(call, page, found)
    call.answer(shapes.QueueUrlsResult(urls, token if paged else None))


def list_dead_letter_source_queues(call: Call, request: shapes.ListDeadLetterSourceQueues) -> None:
    info = call.queue(request.queue_url)
    page = _page(request.max_results)
    operation = ListQueues(after=_after(request.next_token), limit=page + 1, target=info.arn)
    call.submit(operation, partial(_sources_listed, call, page, request.max_results is not None))


def _sources_listed(call: Call, page: int, paged: bool, found: list[QueueDescription]) -> None:
    urls, token = _page_of(call, page, found)
    call.answer(shapes.SourceQueueUrlsResult(urls, token if paged else None))


def _page(max_results: int | None) -> int:
    if max_results is None:
        return limits.PAGE_MAX
    if not 1 <= max_results <= limits.PAGE_MAX:
        raise Fault(INVALID_PARAMETER_VALUE, _PAGE_RULE)
    return max_results


def _page_of(call: Call, page: int, found: list[QueueDescription]) -> tuple[list[str], str | None]:
    """The URLs of a page, and the token of the next page if `found` has one queue more than the page."""
    arns = [description.info.arn for description in found[:page]]
    return [call.url(arn) for arn in arns], _token(arns[-1]) if len(found) > page else None


def _token(last_arn: str) -> str:
    """The token of the next page. It is the whole state: the server keeps none, and a restart does not invalidate it."""
    return urlsafe_b64encode(last_arn.encode()).decode()


def _after(token: str | None) -> str:
    if not token:
        return ""
    try:
        arn = urlsafe_b64decode(token.encode("ascii")).decode("ascii")
    except (UnicodeError, binascii.Error):
        arn = ""
    if not valid_arn(arn) or _token(arn) != token:
        raise Fault(INVALID_PARAMETER_VALUE, "Invalid or expired next token.")
    return arn
