"""What people are told: names as they say them, times in seconds."""

from __future__ import annotations

import pytest

from headrace.errors import QueueNotFound, TopicNotFound
from headrace.formatting import seconds_text, setting_name, setting_value
from headrace.queue.model import arn_of, topic_arn_of


def test_errors_name_queues_and_topics_as_people_do() -> None:
    assert str(QueueNotFound(arn_of("orders"))) == "there is no queue 'orders'; create it first"
    assert str(TopicNotFound(topic_arn_of("flights"))) == "there is no topic 'flights'; create it first"
    elsewhere = arn_of("orders", region="eu-west-1")
    assert elsewhere in str(QueueNotFound(elsewhere))


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0"), (250, "0.25"), (1_000, "1"), (600_000, "600"), (12_345_678_000, "12345678")]
)
def test_seconds_are_exact_and_without_an_exponent(ms: int, text: str) -> None:
    assert seconds_text(ms) == text


def test_settings_are_named_and_measured_as_they_are_set() -> None:
    assert (
        setting_name("visibility_ms") == "visibility_timeout"
        and setting_value("visibility_ms", "46800000") == "46800 s"
    )
    assert setting_name("max_message_bytes") == "max_message_bytes" and setting_value("max_message_bytes", "5") == "5"
    assert setting_value("delay_ms", "soon") == "soon"
