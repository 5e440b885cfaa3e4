"""The operations on a queue's attributes, tags and permissions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from headrace.errors import HeadraceError
from headrace.queue.model import QueueDescription, QueueInfo, name_of
from headrace.queue.operations import ChangeSettings, GetQueue, TagQueue
from headrace.sqs import attributes, policy, shapes
from headrace.sqs.actions_queues import check_dead_letter_owner, check_policy, redrive_fault
from headrace.sqs.call import Call
from headrace.sqs.errors import (
    OVER_LIMIT,
    Fault,
    invalid,
    invalid_attribute,
    missing,
    unknown_attribute,
)
from headrace.sqs.tags import check_tag_key, check_tags


def get_queue_attributes(call: Call, request: shapes.GetQueueAttributes) -> None:
    info = call.queue(request.queue_url)
    names = request.attribute_names or []
    attributes.check_names(names)
    if not names:
        call.answer(shapes.AttributesResult())
        return

    def got(description: QueueDescription) -> None:
        call.answer(shapes.AttributesResult(attributes.render(description.info, description.counts, names)))

    call.submit(GetQueue(info.arn), got)


def set_queue_attributes(call: Call, request: shapes.SetQueueAttributes) -> None:
    info = call.queue(request.queue_url)
    given = request.attributes
    if not given:
        raise missing("Attribute.Name")  # as AWS, in both protocols
    changes = attributes.parse(given)
    check_policy(changes)
    check_dead_letter_owner(info.arn, changes, given.get("RedrivePolicy", ""))
    _check_type_unchanged(info, changes.settings)

    def done(outcome: Any) -> None:
        if isinstance(outcome, HeadraceError):
            raise redrive_fault(call, given.get("RedrivePolicy", ""), outcome)
        call.answer(None)

    operation = ChangeSettings(info.arn, changes.settings, changes.stored)
    if "Policy" in changes.stored:
        _change_policy(call, operation, done)
    else:
        call.context.broker.submit(operation, call.guarded(done, errors=True))


def _check_type_unchanged(info: QueueInfo, settings: dict[str, Any]) -> None:
    """Refuse a change of the queue's type: FifoQueue may only be repeated, on a FIFO queue."""
    if "fifo" not in settings:
        return
    if not info.settings.fifo:
        raise unknown_attribute("FifoQueue")
    if not settings["fifo"]:
        raise invalid_attribute("FifoQueue", "Modifying queue type is not supported.")


# --------------------------------------------------------------------------------------------------------------- tags


def list_queue_tags(call: Call, request: shapes.ListQueueTags) -> None:
    info = call.queue(request.queue_url)
    call.submit(GetQueue(info.arn), lambda description: call.answer(shapes.TagsResult(description.info.tags)))


def tag_queue(call: Call, request: shapes.TagQueue) -> None:
    info = call.queue(request.queue_url)
    if not request.tags:
        raise missing("Tags")
    others = len(info.tags.keys() - request.tags.keys())
    check_tags(name_of(info.arn), request.tags, present=others)
    call.submit(TagQueue(info.arn, tags=request.tags), lambda _: call.answer(None))


def untag_queue(call: Call, request: shapes.UntagQueue) -> None:
    info = call.queue(request.queue_url)
    keys = request.tag_keys or [""]  # AWS checks the first key, also where there is none
    for key in keys:
        check_tag_key(key)
    call.submit(TagQueue(info.arn, remove=keys), lambda _: call.answer(None))


# -------------------------------------------------------------------------------------------------------- permissions


def add_permission(call: Call, request: shapes.AddPermission) -> None:
    info = call.queue(request.queue_url)
    label, accounts, actions = request.label, request.account_ids, request.actions
    if not label:
        raise missing("Label")
    if not actions:
        raise missing("Actions")
    if not accounts:
        raise invalid("PrincipalId", "[]", "Unable to verify.")
    try:
        changed = policy.add_statement(
            _policy_of(call, info), arn=info.arn, label=label, accounts=accounts, actions=actions
        )
    except policy.TooMany as error:
        raise Fault(OVER_LIMIT, str(error)) from None
    _change_policy(call, ChangeSettings(info.arn, stored={"Policy": changed}), partial(_changed, call))


def remove_permission(call: Call, request: shapes.RemovePermission) -> None:
    info = call.queue(request.queue_url)
    if not request.label:
        raise missing("Label")
    changed = policy.remove_statement(_policy_of(call, info), request.label)
    _change_policy(call, ChangeSettings(info.arn, stored={"Policy": changed}), partial(_changed, call))


def _changed(call: Call, outcome: Any) -> None:
    if isinstance(outcome, HeadraceError):
        raise outcome
    call.answer(None)


def _policy_of(call: Call, info: QueueInfo) -> str | None:
    """The policy to change: the one that is being committed, else the stored one.

    Of two permissions that are added at the same time both must be stored, though neither is committed when the policy
    for the other is read.
    """
    uncommitted = call.context.policies
    return uncommitted[info.arn] if info.arn in uncommitted else info.settings.stored.get("Policy")


def _change_policy(call: Call, operation: ChangeSettings, finish: Callable[[Any], None]) -> None:
    uncommitted, arn = call.context.policies, operation.queue
    text = operation.stored["Policy"]
    uncommitted[arn] = text

    def done(outcome: Any) -> None:
        if uncommitted.get(arn) is text:  # a later change stays
            uncommitted.pop(arn, None)
        finish(outcome)

    call.context.broker.submit(operation, call.guarded(done, errors=True))
