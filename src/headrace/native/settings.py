"""A queue's settings as users write them: seconds and plain queue names, where the queue has milliseconds and ARNs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from headrace.errors import InvalidParameter, UnknownSetting
from headrace.queue.model import QueueSettings, RedriveAllow, arn_of, short_name

_MS_MAX: Final = 2**53  # what every number on the wire holds exactly; all limits are far below


class SettingValues(TypedDict, total=False):
    """The keyword arguments that set a queue up. Those left out keep their value (or take the default when created).

    Attributes:
        fifo: a FIFO queue; its name must end in `.fifo`. Fixed when the queue is created. Default False.
        visibility_timeout: seconds that a received message stays hidden, 0 to 43,200. Default 30.
        delay: seconds that a sent message stays hidden at first, 0 to 900. Default 0.
        retention: seconds after which an unconsumed message is dropped, 60 to 1,209,600. Default 345,600 (four days).
        wait: seconds that an SQS receive waits if it does not say, 0 to 20. Default 0.
        max_message_bytes: the longest message, attributes included, 1,024 to 1,048,576. Default 1,048,576.
        dead_letter: the queue (name or ARN) that takes a message received too often; None for none. With `max_receives`.
        max_receives: how often a message is received before it goes there, 1 to 1,000.
        dead_letter_sources: which queues may name this one as theirs: None any, a list those (at most 10, [] none).
        content_dedup: FIFO: a send without a dedup id takes the SHA-256 of its body. Default False.
        dedup_scope: FIFO: "queue" or "messageGroup". Default "queue".
        throughput_limit: FIFO: "perQueue" or "perMessageGroupId"; kept for SQS, it limits nothing here.
    """

    fifo: bool
    visibility_timeout: float
    delay: float
    retention: float
    wait: float
    max_message_bytes: int
    dead_letter: str | None
    max_receives: int
    dead_letter_sources: list[str] | None
    content_dedup: bool
    dedup_scope: str
    throughput_limit: str


@dataclass(frozen=True, slots=True)
class Settings:
    """A queue's settings; units and meanings as in SettingValues."""

    fifo: bool
    visibility_timeout: float
    delay: float
    retention: float
    wait: float
    max_message_bytes: int
    dead_letter: str | None
    max_receives: int | None
    dead_letter_sources: list[str] | None
    content_dedup: bool
    dedup_scope: str
    throughput_limit: str


_SECONDS: Final = {
    "visibility_timeout": "visibility_ms",
    "delay": "delay_ms",
    "retention": "retention_ms",
    "wait": "wait_ms",
}
_SAME: Final = ("fifo", "max_message_bytes", "content_dedup", "dedup_scope", "throughput_limit")


def to_ms(parameter: str, seconds: float) -> int:
    """Whole milliseconds. Raises InvalidParameter for what is not a finite number, or longer than any time can be."""
    try:
        found = round(seconds * 1000)
    except (TypeError, ValueError, OverflowError):
        raise InvalidParameter(parameter, repr(seconds), "it is a number of seconds") from None
    if abs(found) > _MS_MAX:
        raise InvalidParameter(parameter, repr(seconds), "it is longer than any time limit")
    return found


def to_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """SettingValues as fields of QueueSettings, in plain data, as CreateQueue and ChangeSettings take them.

    Raises:
        UnknownSetting: there is no such setting.
        InvalidParameter: a time is no number; one of dead_letter and max_receives without the other.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name in _SECONDS:
            fields[_SECONDS[name]] = to_ms(name, value)
        elif name in _SAME:
            fields[name] = value
        elif name == "dead_letter_sources":
            fields["redrive_allow"] = _redrive_allow(value)
        elif name not in ("dead_letter", "max_receives"):
            raise UnknownSetting(name)
    if "dead_letter" in values or "max_receives" in values:
        fields["redrive"] = _redrive(values.get("dead_letter"), values.get("max_receives"))
    return fields


def from_stored(stored: QueueSettings) -> Settings:
    return Settings(
        fifo=stored.fifo,
        visibility_timeout=stored.visibility_ms / 1000,
        delay=stored.delay_ms / 1000,
        retention=stored.retention_ms / 1000,
        wait=stored.wait_ms / 1000,
        max_message_bytes=stored.max_message_bytes,
        dead_letter=short_name(stored.redrive.target) if stored.redrive is not None else None,
        max_receives=stored.redrive.receives_max if stored.redrive is not None else None,
        dead_letter_sources=_sources(stored.redrive_allow),
        content_dedup=stored.content_dedup,
        dedup_scope=stored.dedup_scope,
        throughput_limit=stored.throughput_limit,
    )


def _redrive(target: str | None, receives_max: int | None) -> dict[str, Any] | None:
    if target is None and receives_max is None:
        return None
    if target is None or receives_max is None:
        raise InvalidParameter("dead_letter", str(target), "dead_letter and max_receives are given together")
    return {"target": arn_of(target), "receives_max": receives_max}


def _redrive_allow(sources: list[str] | None) -> dict[str, Any]:
    if sources is None:
        return {"permission": "allowAll", "sources": []}
    if not sources:
        return {"permission": "denyAll", "sources": []}
    return {"permission": "byQueue", "sources": [arn_of(source) for source in sources]}


def _sources(allow: RedriveAllow) -> list[str] | None:
    return None if allow.permission == "allowAll" else [short_name(source) for source in allow.sources]
