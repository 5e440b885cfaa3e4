"""What a queue's settings may be: names, ranges, combinations. Pure.

Source: SQS, CreateQueue and SetQueueAttributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace.errors import InvalidParameter, InvalidSetting, QueueExists, UnknownSetting
from headrace.formatting import setting_value
from headrace.queue import limits
from headrace.queue.model import QueueInfo, QueueSettings, RedriveAllow, name_of

RANGES: Final[dict[str, tuple[int, int]]] = {
    "delay_ms": (0, limits.DELAY_MAX_MS),
    "max_message_bytes": (limits.MESSAGE_BYTES_MIN, limits.MESSAGE_BYTES_MAX),
    "retention_ms": (limits.RETENTION_MIN_MS, limits.RETENTION_MAX_MS),
    "wait_ms": (0, limits.WAIT_MAX_MS),
    "visibility_ms": (0, limits.VISIBILITY_MAX_MS),
}
"""Setting -> (least, most), both allowed."""

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "dedup_scope": ("queue", "messageGroup"),
    "throughput_limit": ("perQueue", "perMessageGroupId"),
}
FIFO_ONLY: Final = ("content_dedup", "dedup_scope", "throughput_limit")
PERMISSIONS: Final = ("allowAll", "denyAll", "byQueue")

_ARN = re.compile(r"arn:aws(?:-[a-z-]+)?:sqs:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_-]{1,80}(?:\.fifo)?", re.ASCII)


def check_arn(arn: str, *, fifo: bool) -> None:
    """Raise InvalidParameter unless `arn` may name a new queue of that kind."""
    name = name_of(arn)
    if len(name) > limits.NAME_CHARACTERS_MAX or not _ARN.fullmatch(arn):
        raise InvalidParameter(
            "QueueName", name, "1 to 80 characters of A-Z, a-z, 0-9, - and _ (and .fifo at the end of a FIFO queue's)"
        )
    if name.endswith(".fifo") != fifo:
        raise InvalidParameter("QueueName", name, "the name of a FIFO queue, and of no other, ends in .fifo")


def change(settings: QueueSettings, given: Mapping[str, Any], stored: Mapping[str, str | None]) -> QueueSettings:
    """`settings` with the fields in `given` changed, checked as a whole.

    Raises:
        UnknownSetting: a name that is no setting, or not one of this kind of queue.
        InvalidSetting: a value out of its range, or that does not fit the others.
    """
    for name in given:
        if name not in QueueSettings.__struct_fields__ or name == "stored":
            raise UnknownSetting(name)
        if name in FIFO_ONLY and not settings.fifo and not given.get("fifo"):
            raise UnknownSetting(name)
    if "fifo" in given and given["fifo"] != settings.fifo:
        raise InvalidSetting("fifo", str(given["fifo"]), "it is fixed when the queue is created")
    values = {name: getattr(settings, name) for name in QueueSettings.__struct_fields__}
    kept = {name: value for name, value in {**settings.stored, **stored}.items() if value is not None}
    changed = _typed({**msgspec.to_builtins(values), **given, "stored": kept}, given)
    _check(changed)
    return changed


def create(given: Mapping[str, Any], stored: Mapping[str, str]) -> QueueSettings:
    """The settings of a new queue; as `change`."""
    return change(QueueSettings(fifo=given.get("fifo") is True), given, stored)


def check_same(info: QueueInfo, given: Mapping[str, Any], stored: Mapping[str, str]) -> None:
    """Raise QueueExists unless every setting given is what the existing queue has. Settings left out do not matter."""
    wanted = change(info.settings, {**given, "fifo": info.settings.fifo}, stored)
    if given.get("fifo", info.settings.fifo) != info.settings.fifo:
        raise QueueExists(info.arn, "fifo")
    for name in given:
        if getattr(wanted, name) != getattr(info.settings, name):
            raise QueueExists(info.arn, name)
    for name, value in stored.items():
        if info.settings.stored.get(name) != value:
            raise QueueExists(info.arn, name)


def _typed(values: dict[str, Any], given: Mapping[str, Any]) -> QueueSettings:
    try:
        return msgspec.convert(values, QueueSettings)
    except msgspec.ValidationError as error:
        path = re.search(r"\$\.([a-z_]+)", str(error))
        name = path[1] if path is not None else next(iter(given), "settings")
        raise InvalidSetting(name, str(given.get(name)), str(error)) from None


def _check(settings: QueueSettings) -> None:
    for name, (least, most) in RANGES.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise InvalidSetting(
                name,
                str(value),
                f"it must be from {setting_value(name, str(least))} to {setting_value(name, str(most))}",
            )
    for name, choices in CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            raise InvalidSetting(name, str(value), f"it must be {' or '.join(choices)}")
    if settings.throughput_limit == "perMessageGroupId" and settings.dedup_scope != "messageGroup":
        raise InvalidSetting(
            "throughput_limit", settings.throughput_limit, "perMessageGroupId needs DeduplicationScope messageGroup"
        )
    if settings.redrive is not None and not 1 <= settings.redrive.receives_max <= limits.RECEIVES_MAX:
        raise InvalidSetting(
            "redrive", str(settings.redrive.receives_max), f"maxReceiveCount must be from 1 to {limits.RECEIVES_MAX}"
        )
    _check_allow(settings.redrive_allow)


def _check_allow(allow: RedriveAllow) -> None:
    if allow.permission not in PERMISSIONS:
        raise InvalidSetting("redrive_allow", allow.permission, f"redrivePermission is one of {', '.join(PERMISSIONS)}")
    by_queue = allow.permission == "byQueue"
    if by_queue and not 1 <= len(allow.sources) <= limits.REDRIVE_SOURCES_MAX:
        raise InvalidSetting("redrive_allow", str(len(allow.sources)), "byQueue takes 1 to 10 sourceQueueArns")
    if allow.sources and not by_queue:
        raise InvalidSetting("redrive_allow", allow.permission, "sourceQueueArns go with byQueue only")
