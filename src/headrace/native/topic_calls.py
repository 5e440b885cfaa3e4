"""What a client asks of topics, without I/O: arguments to operations, outcomes to what users get. Sync and async share it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypedDict

from headrace.errors import InvalidParameter, UnknownSetting
from headrace.native import calls
from headrace.native.messages import StoredMessage
from headrace.native.settings import to_ms
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import (
    SubscriptionState,
    TopicCounts,
    TopicDescription,
    arn_of,
    short_name,
    topic_arn_of,
)

Span: TypeAlias = float | str
"""A time span: seconds, or text with a unit (`7 days`, `12h`)."""

Start: TypeAlias = str | datetime | int
"""Where a subscription begins: "now", "beginning", a moment (aware, or local time), or behind a sequence number."""

LOG_PAGE: Final = limits.NATIVE_BATCH_MAX
"""Logged messages that are asked for at a time."""

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(
    r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w|seconds?|minutes?|hours?|days?|weeks?)\s*", re.ASCII
)


class TopicValues(TypedDict, total=False):
    """The keyword arguments that set a topic up. Those left out keep their value (or take the default when created).

    Attributes:
        fifo: a FIFO topic; its name must end in `.fifo`. Fixed when the topic is created. Default False.
        content_dedup: FIFO: a message without a dedup id takes the SHA-256 of its body. Default False.
        retention: how long its log keeps a message, seconds or text (`7 days`); 0: not bounded by age. Default 0.
        retention_bytes: how many bytes its log keeps; 0: not bounded by size. Default 0. Both 0: it has no log.
        inbox: the queue (name or ARN) whose messages are published instead of stored; None for none.
    """

    fifo: bool
    content_dedup: bool
    retention: Span
    retention_bytes: int
    inbox: str | None


@dataclass(frozen=True, slots=True)
class SubscriptionSummary:
    """A subscription. `lag`: about how many logged messages the queue still has to be given; `waiting`: what is in it."""

    queue: str
    filter: dict[str, Any] | None
    scope: str
    catching_up: bool
    lag: int
    waiting: int


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """A topic: settings as in TopicValues (`retention` in seconds), counts, subscriptions by queue."""

    name: str
    arn: str
    fifo: bool
    content_dedup: bool
    retention: float
    retention_bytes: int
    inbox: str | None
    counts: TopicCounts
    subscriptions: list[SubscriptionSummary]
    created_ms: int


def span_ms(parameter: str, span: Span) -> int:
    """Milliseconds. Raises InvalidParameter."""
    if not isinstance(span, str):
        return to_ms(parameter, span)
    match = _SPAN.fullmatch(span)
    if match is None:
        raise InvalidParameter(parameter, span[:100], "a number of seconds, or text such as '7 days', '12h', '90 s'")
    unit = match[2] if match[2] == "ms" else match[2][0]
    return round(float(match[1]) * _UNITS[unit] * 1_000)


def to_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """TopicValues as fields of TopicSettings. Raises UnknownSetting, InvalidParameter."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name == "retention":
            fields["retention_ms"] = span_ms(name, value)
        elif name == "inbox":
            fields[name] = arn_of(value) if value is not None else None
        elif name in ("fifo", "content_dedup", "retention_bytes"):
            fields[name] = value
        else:
            raise UnknownSetting(name)
    return fields


def subscribe(
    topic: str,
    queue: str,
    *,
    filter_: Mapping[str, Any] | None,
    scope: str,
    start: Start,
    purge: bool,
    if_absent: bool,
) -> ops.Subscribe:
    policy = dict(filter_) if filter_ is not None else None
    after, since_ms = _start(start)
    return ops.Subscribe(topic, arn_of(queue), policy, scope, after, since_ms, purge, if_absent)


def _start(start: Start) -> tuple[int | None, int | None]:
    """(after, since_ms) of the operation."""
    if start == "now":
        return None, None
    if start == "beginning":
        return 0, None
    if isinstance(start, datetime):
        return None, round(start.timestamp() * 1_000)
    if isinstance(start, bool) or not isinstance(start, int):
        raise InvalidParameter("start", repr(start)[:100], "'now', 'beginning', a datetime or a sequence number")
    return start, None


def stored(messages: Sequence[Any]) -> list[StoredMessage]:
    return [StoredMessage(message) for message in messages]


def list_topics(prefix: str, found: Sequence[TopicSummary]) -> ops.ListTopics:
    """The next page behind those found so far; an empty prefix finds those of every region and account."""
    return ops.ListTopics(topic_arn_of(prefix) if prefix else "", found[-1].arn if found else "", calls.PAGE)


def summary_of(description: TopicDescription) -> TopicSummary:
    info = description.info
    settings = info.settings
    return TopicSummary(
        short_name(info.arn),
        info.arn,
        settings.fifo,
        settings.content_dedup,
        settings.retention_ms / 1_000,
        settings.retention_bytes,
        short_name(settings.inbox) if settings.inbox is not None else None,
        description.counts,
        [_subscription(one) for one in description.subscriptions],
        info.created_ms,
    )


def _subscription(state: SubscriptionState) -> SubscriptionSummary:
    one = state.subscription
    return SubscriptionSummary(
        short_name(one.queue), one.filter, one.scope, one.position is not None, state.lag, state.waiting
    )
