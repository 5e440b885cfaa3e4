"""Who may do what with a queue: the queue's `Policy` attribute, read as IAM reads it.

The order of the decision:

1. What the keys file does not let a principal do, nothing else lets it.
2. A statement that denies wins over everything.
3. The owner account's principals may do everything else.
4. Others may do what a statement allows, but never what AWS keeps for owners (`OWNER_ONLY`).

While authentication is off, nobody is told apart: policies are kept and checked for form, and not applied.

Whatever is not understood errs on the safe side: an unknown condition makes an Allow void and a Deny apply, and a policy
that cannot be read leaves only the owner's way to replace it.

Source: SQS Developer Guide, "Custom policies", "Amazon SQS API permissions"; IAM User Guide, "Policy evaluation logic".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from headrace.errors import CallerError, InvalidParameter, InvalidSetting, MissingParameter
from headrace.sqs.conditions import context, like, wildcard
from headrace.sqs.keys import Principal
from headrace.sqs.policy_document import ACCOUNT, STATEMENTS_MAX, compile_policy, decode, statements_of

ACTIONS_MAX: Final = 7  # of one AddPermission

OWNER_ONLY: Final = frozenset(
    {
        "AddPermission", "CancelMessageMoveTask", "CreateQueue", "DeleteQueue", "ListMessageMoveTasks", "ListQueues",
        "ListQueueTags", "RemovePermission", "SetQueueAttributes", "StartMessageMoveTask", "TagQueue", "UntagQueue",
    }
)  # fmt: skip
"""Actions that no policy gives to another account (SQS Developer Guide, "cross-account permissions don't apply")."""

GRANTABLE: Final = frozenset(
    {
        "ChangeMessageVisibility", "ChangeMessageVisibilityBatch", "DeleteMessage", "DeleteMessageBatch",
        "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues", "PurgeQueue", "ReceiveMessage",
        "SendMessage", "SendMessageBatch",
    }
)  # fmt: skip
"""The other actions: what AddPermission may grant, besides `*`."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)


@dataclass(eq=False)
class TooMany(CallerError):
    """More than a policy may hold; SQS calls it OverLimit."""

    what: str
    count: int
    bound: int

    def __str__(self) -> str:
        return f"{self.count} {self.what} were found, maximum allowed is {self.bound}."


def allows(
    policy_json: str | None,
    principal: Principal,
    action: str,
    queue_arn: str,
    owner_account: str,
    source_ip: str,
    *,
    secure: bool = False,
    source_arn: str | None = None,
) -> bool:
    """Whether `principal` may do `action` with a queue.

    Args:
        policy_json: the queue's `Policy` attribute; None or empty if it has none.
        principal: who asks, as `signature.Verifier` says.
        action: the operation's name, `SendMessageBatch`; no prefix.
        queue_arn: which queue; empty for an operation that names none (ListQueues): the keys file's bound on queues
            and the policy do not count then.
        owner_account: twelve digits of the queue's ARN.
        source_ip: the client's address, as the HTTP engine gives it.
        secure: whether the request came over TLS.
        source_arn: on behalf of which resource, if any.
    """
    if principal.access_key is None:
        return True
    if not _within_bounds(principal, action, queue_arn):
        return False
    owner = principal.account == owner_account
    if not policy_json or not queue_arn:
        return owner
    try:
        statements = compile_policy(policy_json)
    except InvalidSetting:
        return owner and action == "SetQueueAttributes"
    known = context(
        account=principal.account,
        name=principal.name,
        arn=principal.arn,
        source_ip=source_ip,
        secure=secure,
        source_arn=source_arn,
    )
    names = _names_of(action)
    verdicts = {s.allow for s in statements if s.applies(principal, names, queue_arn, known)}
    return False not in verdicts and (owner or (True in verdicts and action not in OWNER_ONLY))


def _within_bounds(principal: Principal, action: str, queue_arn: str) -> bool:
    """What the keys file says: a bound, which nothing in a queue's policy widens."""
    if principal.unrestricted:
        return True
    forms = [form for name in _names_of(action) for form in (name, name.removeprefix("SQS:"))]
    if not any(wildcard(p, ignore_case=True).fullmatch(form) for p in principal.actions for form in forms):
        return False
    name = queue_arn.rpartition(":")[2]
    return not queue_arn or any(like(queue_arn, p) or like(name, p) for p in principal.queues)


@lru_cache(maxsize=64)
def _names_of(action: str) -> tuple[str, ...]:
    """How policies name an action; granting (or denying) the single form of a batch covers the batch."""
    single = action.removesuffix("Batch")
    return tuple(f"SQS:{name}" for name in dict.fromkeys((action, single)))


def validate(policy_json: str) -> None:
    """Check a policy before it is stored.

    Raises:
        InvalidSetting: it is not a policy, or says what is not supported; `setting` is `Policy`.
    """
    compile_policy(policy_json)


# ------------------------------------------------------------------------------------------------ AddPermission


def add_statement(
    policy_json: str | None, *, arn: str, label: str, accounts: Sequence[str], actions: Sequence[str]
) -> str:
    """The policy with one more statement: `accounts` may do `actions` (names without prefix, or `*`) with queue `arn`.

    Raises:
        TooMany: more than 7 actions, or 20 statements.
        InvalidParameter: label, account or action is not one, or the label is taken.
        MissingParameter: no accounts or no actions.
        InvalidSetting: the policy there is cannot be read, or would become too long.
    """
    _check_permission(label, accounts, actions)
    policy = decode(policy_json) if policy_json else _empty_policy(arn)
    statements = statements_of(policy)
    if any(isinstance(s, dict) and s.get("Sid") == label for s in statements):
        raise InvalidParameter("Label", label, "Already exists.")
    if len(statements) >= STATEMENTS_MAX:
        raise TooMany("Statements", len(statements) + 1, STATEMENTS_MAX)
    roots = [f"arn:aws:iam::{account}:root" for account in dict.fromkeys(accounts)]
    names = [f"SQS:{action}" for action in dict.fromkeys(actions)]
    granted = {"Sid": label, "Effect": "Allow", "Principal": {"AWS": _one_or_list(roots)}}
    granted |= {"Action": _one_or_list(names), "Resource": arn}
    return _encode({**policy, "Statement": [*statements, granted]})


def remove_statement(policy_json: str | None, label: str) -> str | None:
    """The policy without the statement `label`; None if nothing is left.

    Raises:
        InvalidParameter: there is no such statement.
        InvalidSetting: the policy there is cannot be read.
    """
    policy = decode(policy_json) if policy_json else {}
    statements = statements_of(policy)
    kept = [s for s in statements if not (isinstance(s, dict) and s.get("Sid") == label)]
    if len(kept) == len(statements):
        raise InvalidParameter("Label", label, "can't find label")
    return _encode({**policy, "Statement": kept}) if kept else None


def _check_permission(label: str, accounts: Sequence[str], actions: Sequence[str]) -> None:
    if _LABEL.fullmatch(label) is None:
        raise InvalidParameter("Label", label, "Must be 1 to 80 letters, digits, hyphens and underscores.")
    if not accounts or not actions:
        raise MissingParameter("Actions" if accounts else "AWSAccountIds")
    if len(actions) > ACTIONS_MAX:
        raise TooMany("Actions", len(actions), ACTIONS_MAX)
    if not all(ACCOUNT.fullmatch(account) for account in accounts):
        raise InvalidParameter("PrincipalId", json.dumps(list(accounts)), "Unable to verify.")
    for action in actions:
        if action in OWNER_ONLY:
            reason = "Only the queue owner is allowed to invoke this action."
            raise InvalidParameter("ActionName", f"SQS:{action}", reason)
        if action != "*" and action not in GRANTABLE:
            reason = "Please refer to the appropriate WSDL for a list of valid actions."
            raise InvalidParameter("ActionName", f"SQS:{action}", reason)


def _empty_policy(arn: str) -> dict[str, Any]:
    return {"Version": "2008-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []}


def _one_or_list(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _encode(policy: dict[str, Any]) -> str:
    text = msgspec.json.encode(policy).decode()
    validate(text)
    return text
