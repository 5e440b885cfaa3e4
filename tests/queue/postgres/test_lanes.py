"""Lanes: when one waits for more before its next transaction."""

from __future__ import annotations

from headrace.queue.store.postgres.store import BATCH_MAX, GATHER_FROM, GATHER_MAX_S, gathering_s


def test_lane_that_serves_few_waits_for_nobody() -> None:
    assert gathering_s(GATHER_FROM - 1, seconds=1.0) == 0.0


def test_busy_lane_gathers_for_a_part_of_the_time_that_its_last_transaction_took() -> None:
    assert 0.0 < gathering_s(GATHER_FROM, seconds=0.004) <= 0.001


def test_busy_lane_on_a_slow_database_gathers_for_milliseconds_at_most() -> None:
    assert gathering_s(BATCH_MAX, seconds=30.0) == GATHER_MAX_S
