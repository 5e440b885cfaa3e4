"""What a topic's settings may be, and when its log lets messages go."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidSetting
from headrace.queue import limits, topics
from headrace.queue.model import TopicSettings, arn_of, topic_arn_of

NOW = 1_000_000
FRONT = [(1, NOW - 300, 10), (2, NOW - 200, 10), (5, NOW - 100, 10)]


def droppable(*, log_bytes: int = 30, held: int | None = None, **settings: Any) -> int:
    return topics.droppable(FRONT, TopicSettings(**settings), log_bytes=log_bytes, held=held, now=NOW)


def test_arns_are_told_apart() -> None:
    assert topics.is_topic(topic_arn_of("t"))
    assert not topics.is_topic(arn_of("q"))
    assert not topics.is_topic("t")
    assert not topics.is_topic("")


def test_age_ends_on_the_millisecond() -> None:
    assert [droppable(retention_ms=age) for age in (301, 300, 200, 100, 99)] == [0, 1, 2, 3, 3]


def test_bytes_end_the_oldest_first() -> None:
    assert [droppable(retention_bytes=size) for size in (30, 29, 20, 19, 1)] == [0, 1, 1, 2, 3]
    assert droppable(retention_bytes=1_000, log_bytes=1_000) == 0


def test_either_bound_is_enough_and_without_any_nothing_stays() -> None:
    assert droppable(retention_ms=10_000, retention_bytes=15) == 2
    assert droppable(retention_ms=150, retention_bytes=10_000) == 2
    assert droppable() == 3


def test_what_a_queue_is_still_to_be_given_is_held() -> None:
    assert [droppable(held=seq) for seq in (0, 1, 2, 4, 5)] == [0, 1, 2, 2, 3]


def test_retention_is_looked_at_again_when_it_may_be_over() -> None:
    def due(*, log_bytes: int = 0, held: bool = False, **settings: Any) -> int | None:
        return topics.due_ms(TopicSettings(**settings), oldest_ms=NOW, log_bytes=log_bytes, held=held, now=NOW)

    assert due(retention_ms=60_000) == NOW + 60_000
    assert due(retention_ms=60_000, held=True) == due() == NOW + limits.SECOND_MS
    assert due(retention_bytes=10, log_bytes=11) == NOW + limits.SECOND_MS
    assert due(retention_bytes=10, log_bytes=10) is None


def test_settings_are_checked() -> None:
    assert topics.create({"fifo": True, "content_dedup": True}) == TopicSettings(fifo=True, content_dedup=True)
    for given in ({"retention_bytes": -1}, {"retention_ms": limits.LOG_RETENTION_MAX_MS + 1}, {"fifo": "yes"}):
        with pytest.raises(InvalidSetting):
            topics.create(given)
