from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidParameter, UnknownSetting
from headrace.native.settings import Settings, SettingValues, from_stored, to_fields
from headrace.queue import settings as rules

EVERY: dict[str, Any] = {
    "fifo": True,
    "visibility_timeout": 0.5,
    "delay": 3,
    "retention": 3_600,
    "wait": 20,
    "max_message_bytes": 2_048,
    "dead_letter": "dead.fifo",
    "max_receives": 5,
    "dead_letter_sources": ["a.fifo", "b.fifo"],
    "content_dedup": True,
    "dedup_scope": "messageGroup",
    "throughput_limit": "perMessageGroupId",
}


def test_every_setting_survives_the_way_to_the_queue_and_back() -> None:
    assert set(EVERY) == set(SettingValues.__annotations__)

    assert from_stored(rules.create(to_fields(EVERY), {})) == Settings(**EVERY)


@pytest.mark.parametrize("sources", [None, [], ["a.fifo"]])
def test_who_may_send_dead_letters_here_survives(sources: list[str] | None) -> None:
    stored = rules.create(to_fields({"fifo": True, "dead_letter_sources": sources}), {})

    assert from_stored(stored).dead_letter_sources == sources


def test_dead_letter_queue_is_taken_away_with_none() -> None:
    before = rules.create(to_fields({"dead_letter": "dead", "max_receives": 3}), {})

    after = rules.change(before, to_fields({"dead_letter": None, "max_receives": None}), {})

    assert before.redrive is not None
    assert after.redrive is None


@pytest.mark.parametrize(
    "values", [{"dead_letter": "d"}, {"max_receives": 3}, {"delay": "soon"}, {"wait": float("nan")}]
)
def test_halves_and_times_that_are_none_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        to_fields(values)


def test_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(UnknownSetting, match="visibility_timeuot"):
        to_fields({"visibility_timeuot": 30})
