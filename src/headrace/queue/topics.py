"""What a topic's settings may be, and which of its logged messages may go. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from headrace.errors import InvalidParameter, InvalidSetting, TopicExists, UnknownSetting
from headrace.formatting import setting_value
from headrace.queue import limits
from headrace.queue.model import TopicInfo, TopicSettings, name_of

RANGES: Final[dict[str, tuple[int, int]]] = {
    "retention_ms": (0, limits.LOG_RETENTION_MAX_MS),
    "retention_bytes": (0, 1 << 50),
}
"""Setting -> (least, most), both allowed."""

Logged: TypeAlias = tuple[int, int, int]
"""A message of the log: (seq, sent_ms, bytes)."""

_ARN = re.compile(r"arn:aws(?:-[a-z-]+)?:sns:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?", re.ASCII)


def is_topic(arn: str) -> bool:
    """Whether the ARN is a topic's, not a queue's."""
    return arn.split(":", 3)[2:3] == ["sns"]


def check_arn(arn: str, *, fifo: bool) -> None:
    """Raise InvalidParameter unless `arn` may name a new topic of that kind. Source: SNS, CreateTopic."""
    name = name_of(arn)
    if len(name) > limits.TOPIC_NAME_CHARACTERS_MAX or not _ARN.fullmatch(arn):
        raise InvalidParameter(
            "topic",
            name[:300],
            "1 to 256 characters of A-Z, a-z, 0-9, - and _ (and .fifo at the end of a FIFO topic's)",
        )
    if name.endswith(".fifo") != fifo:
        raise InvalidParameter("topic", name, "the name of a FIFO topic, and of no other, ends in .fifo")


def change(settings: TopicSettings, given: Mapping[str, Any]) -> TopicSettings:
    """`settings` with the fields in `given` changed, checked as a whole. Raises UnknownSetting, InvalidSetting."""
    for name in given:
        if name not in TopicSettings.__struct_fields__:
            raise UnknownSetting(name)
    if given.get("fifo", settings.fifo) != settings.fifo:
        raise InvalidSetting("fifo", str(given["fifo"]), "it is fixed when the topic is created")
    try:
        changed = msgspec.convert({**msgspec.to_builtins(settings), **given}, TopicSettings)
    except msgspec.ValidationError as error:
        raise InvalidSetting(", ".join(given), str(dict(given))[:200], str(error)) from None
    _check(changed)
    return changed


def create(given: Mapping[str, Any]) -> TopicSettings:
    """The settings of a new topic; as `change`."""
    return change(TopicSettings(fifo=given.get("fifo") is True), given)


def check_same(info: TopicInfo, given: Mapping[str, Any]) -> None:
    """Raise TopicExists unless every setting given is what the existing topic has."""
    if given.get("fifo", info.settings.fifo) != info.settings.fifo:
        raise TopicExists(info.arn, "fifo")
    wanted = change(info.settings, given)
    for name in given:
        if getattr(wanted, name) != getattr(info.settings, name):
            raise TopicExists(info.arn, name)


def _check(settings: TopicSettings) -> None:
    for name, (least, most) in RANGES.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise InvalidSetting(
                name,
                str(value),
                f"it must be from {setting_value(name, str(least))} to {setting_value(name, str(most))}",
            )
    if settings.content_dedup and not settings.fifo:
        raise InvalidSetting("content_dedup", "True", "only a FIFO topic deduplicates")


def droppable(front: Sequence[Logged], settings: TopicSettings, *, log_bytes: int, held: int | None, now: int) -> int:
    """How many of the log's oldest messages its retention is over for.

    Args:
        front: the oldest messages, oldest first.
        log_bytes: the size of the whole log.
        held: messages behind this seq are still to be given to a queue that is catching up; None: none are.
    """
    count = 0
    for seq, sent_ms, size in front:
        if (held is not None and seq > held) or not _over(settings, sent_ms, log_bytes, now):
            break
        count += 1
        log_bytes -= size
    return count


def _over(settings: TopicSettings, sent_ms: int, log_bytes: int, now: int) -> bool:
    if not settings.logs:
        return True
    too_old = settings.retention_ms > 0 and sent_ms + settings.retention_ms <= now
    return too_old or 0 < settings.retention_bytes < log_bytes


def due_ms(settings: TopicSettings, *, oldest_ms: int, log_bytes: int, held: bool, now: int) -> int | None:
    """When to look at the log's retention again: once a second at most, None while nothing can be over."""
    again_ms = now + limits.SECOND_MS
    if held or not settings.logs or 0 < settings.retention_bytes < log_bytes:
        return again_ms
    return max(again_ms, oldest_ms + settings.retention_ms) if settings.retention_ms else None
