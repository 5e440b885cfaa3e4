"""Queue attributes: SQS's strings on one side, the queue's settings on the other.

What is checked here is the syntax of the strings. Whether a value is in its range, and goes with the others, is the
queue's rule (`queue/settings.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.queue.limits import REDRIVE_SOURCES_MAX, SECOND_MS
from headrace.queue.model import QueueCounts, QueueInfo, QueueSettings, RedriveAllow
from headrace.queue.settings import PERMISSIONS
from headrace.sqs import limits
from headrace.sqs.attribute_names import ALL, KNOWN, SETTING_OF, STORED
from headrace.sqs.errors import INVALID_ATTRIBUTE_NAME, Fault, invalid, invalid_attribute, unknown_attribute
from headrace.sqs.urls import valid_arn

_INTEGER: Final = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_ALLOW: Final = "Amazon SQS can't create the redrive allow policy"
_ALLOW_FORMAT: Final = f"{_ALLOW}, as it’s in an unsupported format."
_ONE_ENCRYPTION: Final = (
    "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE."
)
_ALLOW_ALL: Final = '{"redrivePermission":"allowAll"}'
"""Kept as text: it is the default, and shown only where it was set. Terraform waits until it reads back what it set."""
_STORED_DEFAULTS: Final = {"SqsManagedSseEnabled": "true"}


@dataclass(frozen=True, slots=True)
class Changes:
    """Attributes of a request, as the queue takes them: settings by field, stored ones by SQS name (None removes)."""

    settings: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, str | None] = field(default_factory=dict)


def parse(attributes: Mapping[str, str]) -> Changes:
    """The settings that `attributes` ask for.

    Raises:
        Fault: InvalidAttributeName, InvalidAttributeValue, or InvalidParameterValue for a redrive policy.
    """
    changes = Changes()
    for name, text in attributes.items():
        if name in SETTING_OF:
            changes.settings[SETTING_OF[name]] = _PARSERS[name](name, text)
            if name == "RedriveAllowPolicy":
                changes.stored[name] = _ALLOW_ALL if _json_object(text) == {"redrivePermission": "allowAll"} else None
        elif name in STORED:
            changes.stored[name] = _stored(name, text)
        else:
            raise unknown_attribute(name)
    _settle_encryption(changes.stored)
    return changes


def _boolean(name: str, text: str) -> bool:
    """A boolean in any case: Python programs send `str(True)`."""
    if text.lower() not in ("true", "false"):
        raise invalid_attribute(name)
    return text.lower() == "true"


def _integer(name: str, text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise invalid_attribute(name)
    return int(text)


def _seconds(name: str, text: str) -> int:
    return _integer(name, text) * SECOND_MS


def _text(_: str, text: str) -> str:
    return text


def _redrive(name: str, text: str) -> dict[str, Any] | None:
    """RedrivePolicy; the empty text removes it. `maxReceiveCount` may be a number or its digits."""
    if not text:
        return None
    policy = _json_object(text)
    if policy is None:
        raise invalid_attribute(name, "Redrive policy is not a valid JSON map.")
    for key in ("maxReceiveCount", "deadLetterTargetArn"):
        if key not in policy:
            raise invalid(name, text, f"Redrive policy does not contain mandatory attribute: {key}.")
    if len(policy) > 2:
        rule = "Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount]."
        raise invalid(name, text, rule)
    target, receives = policy["deadLetterTargetArn"], policy["maxReceiveCount"]
    if isinstance(target, str) and target.startswith("arn:") and ":sqs:" not in target:
        raise invalid(name, text, "Only SQS queues are valid resources for deadLetterTargetArn.")
    if not isinstance(target, str) or not valid_arn(target):
        raise invalid(name, text, "Invalid value for deadLetterTargetArn.")
    digits = str(receives) if type(receives) in (int, str) else ""
    if _INTEGER.fullmatch(digits) is None or not 1 <= int(digits) <= 1_000:
        rule = f"Invalid value for maxReceiveCount: {receives}, valid values are from 1 to 1000 both inclusive."
        raise invalid(name, text, rule)
    return {"target": target, "receives_max": int(digits)}


def _redrive_allow(name: str, text: str) -> dict[str, Any]:
    """RedriveAllowPolicy; the empty text is the default again."""
    policy: dict[str, Any] | None = _json_object(text) if text else {"redrivePermission": "allowAll"}
    if policy is None or not policy.keys() <= {"redrivePermission", "sourceQueueArns"}:
        raise invalid_attribute(name, _ALLOW_FORMAT)
    permission, sources = policy.get("redrivePermission"), policy.get("sourceQueueArns", [])
    if permission not in PERMISSIONS or not isinstance(sources, list):
        raise invalid_attribute(name, _ALLOW_FORMAT)
    if not all(isinstance(source, str) and valid_arn(source) for source in sources):
        raise invalid_attribute(name, _ALLOW_FORMAT)
    rule = _allow_rule(permission, len(sources))
    if rule:
        raise invalid(name, text, f"{_ALLOW}. {rule}")
    return {"permission": permission, "sources": sources}


def _allow_rule(permission: str, sources: int) -> str:
    """The rule that a redrive allow policy with this number of sources breaks, or the empty text."""
    if permission != "byQueue":
        only = "To specify one or more source queue ARNs, you must set redrivePermission to byQueue."
        return only if sources else ""
    if not sources:
        return "When you specify the byQueue permission type, you must also specify one or more sourceQueueArns values."
    if sources > REDRIVE_SOURCES_MAX:
        return f"The maximum number of source queue ARNs you can specify is {REDRIVE_SOURCES_MAX}."
    return ""


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_PARSERS: Final[dict[str, Callable[[str, str], Any]]] = {
    "ContentBasedDeduplication": _boolean,
    "DeduplicationScope": _text,
    "DelaySeconds": _seconds,
    "FifoQueue": _boolean,
    "FifoThroughputLimit": _text,
    "MaximumMessageSize": _integer,
    "MessageRetentionPeriod": _seconds,
    "ReceiveMessageWaitTimeSeconds": _seconds,
    "RedriveAllowPolicy": _redrive_allow,
    "RedrivePolicy": _redrive,
    "VisibilityTimeout": _seconds,
}


def _stored(name: str, text: str) -> str | None:
    """The value to keep, or None to remove it, which the empty text asks for."""
    if name == "SqsManagedSseEnabled":
        return "true" if _boolean(name, text) else "false"
    if not text:
        return None
    if name == "KmsDataKeyReusePeriodSeconds":
        if not limits.KMS_REUSE_MIN_S <= _integer(name, text) <= limits.KMS_REUSE_MAX_S:
            raise invalid_attribute(name)
        return str(int(text))
    return text


def _settle_encryption(stored: dict[str, str | None]) -> None:
    """Each kind of encryption turns the other off, both at once are refused; without a key its period is nothing."""
    managed, key = stored.get("SqsManagedSseEnabled") == "true", stored.get("KmsMasterKeyId")
    if managed and key is not None:
        raise Fault(INVALID_ATTRIBUTE_NAME, _ONE_ENCRYPTION)
    if key is not None:
        stored["SqsManagedSseEnabled"] = "false"
    elif managed or "KmsMasterKeyId" in stored:
        stored["KmsMasterKeyId"] = stored["KmsDataKeyReusePeriodSeconds"] = None


def drop_same(changes: Changes, info: QueueInfo) -> Changes:
    """`changes` without the stored attributes that the queue already has, by default or in another spelling.

    CreateQueue compares the given attributes with an existing queue. Defaults are not stored, and the same JSON may be
    written in several ways.
    """
    present = _with_defaults(info.settings)
    stored = {name: value for name, value in changes.stored.items() if not _same(name, value, present.get(name))}
    return Changes(changes.settings, stored)


def _same(name: str, one: str | None, other: str | None) -> bool:
    if name == "Policy" and one and other:
        return _json_object(one) == _json_object(other)
    return one == other


def check_names(names: Iterable[str]) -> None:
    """Refuse what GetQueueAttributes cannot be asked for."""
    for name in names:
        if name not in KNOWN:
            raise unknown_attribute(name)


def render(info: QueueInfo, counts: QueueCounts, names: Iterable[str]) -> dict[str, str]:
    """The attributes of a queue that `names` ask for and that it has, in the order of their names."""
    wanted = set(names)
    everything = _render_all(info, counts)
    return {name: value for name, value in sorted(everything.items()) if ALL in wanted or name in wanted}


def _render_all(info: QueueInfo, counts: QueueCounts) -> dict[str, str]:
    settings = info.settings
    attributes = {
        "ApproximateNumberOfMessages": str(counts.visible),
        "ApproximateNumberOfMessagesDelayed": str(counts.delayed),
        "ApproximateNumberOfMessagesNotVisible": str(counts.in_flight),
        "CreatedTimestamp": str(info.created_ms // SECOND_MS),
        "DelaySeconds": str(settings.delay_ms // SECOND_MS),
        "LastModifiedTimestamp": str(info.modified_ms // SECOND_MS),
        "MaximumMessageSize": str(settings.max_message_bytes),
        "MessageRetentionPeriod": str(settings.retention_ms // SECOND_MS),
        "QueueArn": info.arn,
        "ReceiveMessageWaitTimeSeconds": str(settings.wait_ms // SECOND_MS),
        "VisibilityTimeout": str(settings.visibility_ms // SECOND_MS),
        **_with_defaults(settings),
    }
    if settings.fifo:
        attributes |= _render_fifo(settings)
    return attributes | _render_redrive(settings)


def _with_defaults(settings: QueueSettings) -> dict[str, str]:
    """The stored attributes of a queue and the defaults of those that it does not store."""
    shown = {**_STORED_DEFAULTS, **settings.stored}
    if "KmsMasterKeyId" in shown:
        shown.setdefault("KmsDataKeyReusePeriodSeconds", str(limits.KMS_REUSE_DEFAULT_S))
    return shown


def _render_fifo(settings: QueueSettings) -> dict[str, str]:
    return {
        "ContentBasedDeduplication": "true" if settings.content_dedup else "false",
        "DeduplicationScope": settings.dedup_scope,
        "FifoQueue": "true",
        "FifoThroughputLimit": settings.throughput_limit,
    }


def _render_redrive(settings: QueueSettings) -> dict[str, str]:
    rendered = {}
    if settings.redrive is not None:
        policy: dict[str, Any] = {
            "deadLetterTargetArn": settings.redrive.target,
            "maxReceiveCount": settings.redrive.receives_max,
        }
        rendered["RedrivePolicy"] = msgspec.json.encode(policy).decode()
    if settings.redrive_allow != RedriveAllow():
        policy = {"redrivePermission": settings.redrive_allow.permission}
        if settings.redrive_allow.sources:
            policy["sourceQueueArns"] = list(settings.redrive_allow.sources)
        rendered["RedriveAllowPolicy"] = msgspec.json.encode(policy).decode()
    return rendered
