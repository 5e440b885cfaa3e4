"""Rates from totals: a restart of the broker makes none negative."""

from __future__ import annotations

import pytest

from headrace.console.rates import rate, time_to_empty_s


@pytest.mark.parametrize(
    ("before", "now", "seconds", "wanted"),
    [(10, 30, 2.0, 10.0), (None, 30, 2.0, 0.0), (10, 30, 0.0, 0.0), (100, 8, 2.0, 4.0), (7, 7, 1.0, 0.0)],
    ids=["grows", "first look", "no time", "restarted", "stands"],
)
def test_rate(before: int | None, now: int, seconds: float, wanted: float) -> None:
    assert rate(before, now, seconds) == wanted


def test_time_to_empty_is_known_only_while_more_leaves_than_comes() -> None:
    assert time_to_empty_s(100, 10.0, 30.0) == 5.0
    assert time_to_empty_s(100, 30.0, 30.0) is None
    assert time_to_empty_s(0, 30.0, 10.0) == 0.0
