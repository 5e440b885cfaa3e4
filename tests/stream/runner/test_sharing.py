from __future__ import annotations

import pytest

from headrace.stream.engine.operator import NEVER
from headrace.stream.runner import sharing
from headrace.stream.runner.progress import Progress, SourceProgress, merged


def record(watermark: int, **more: object) -> Progress:
    return Progress(sources={"s": SourceProgress(watermark=watermark, rows=10, heard_ms=watermark)}, **more)  # type: ignore[arg-type] # by name


@pytest.mark.parametrize(
    ("slots", "holding", "expected"),
    [
        ({0: 100, 1: 50}, [], 100),  # who has nothing claimed holds nothing back
        ({0: 100, 1: 50}, [0], 100),
        ({0: 100, 1: 50}, [0, 1], 50),
        ({0: 100}, [0, 1], NEVER),  # it has claimed, and committed nothing yet
        ({}, [], NEVER),
    ],
)
def test_watermark_is_the_greatest_that_open_claims_allow(
    slots: dict[int, int], holding: list[int], expected: int
) -> None:
    assert sharing.watermark(slots, holding) == expected


def test_rows_that_were_read_for_another_count_as_his() -> None:
    records = {0: record(30, left={1: {"s": 70}, 2: {"s": 5}}), 1: record(60)}
    assert sharing.watermarks_of_slots(records, "s") == {0: 30, 1: 70, 2: 5}


def test_shard_was_judged_by_the_furthest_who_had_it() -> None:
    records = [
        record(80),  # had all shards, alone
        record(0, shards=(0, 1), reached={"s": 90}),
        record(0, shards=(2,), reached={"s": 70}),
    ]
    assert [sharing.watermarks_of_shard(records, shard, ["s"])["s"] for shard in (0, 1, 2)] == [90, 90, 80]
    assert sharing.watermarks_of_shard([], 0, ["s"]) == {"s": NEVER}


def test_who_gives_shards_away_says_on_by_what_they_were_judged() -> None:
    had = record(0, shards=(0, 1), reached={"s": 90}, gave={2: {"s": 40}, 3: {"s": 60}})
    others = [record(0, shards=(3,), reached={"s": 61}), record(0, shards=(1,), reached={"s": 90})]
    gave = sharing.released_watermarks(had, others, [1, 2, 3, 4], ["s"])
    assert gave == {1: {"s": 90}, 2: {"s": 40}}, "of two that say the same, each might leave it to the other"
    now = record(0, shards=(0,), reached={"s": 95}, gave=gave)
    assert [sharing.watermarks_of_shard([now], shard, ["s"])["s"] for shard in (0, 1, 2, 4)] == [95, 90, 40, NEVER]


def test_people_see_all_slots_as_one() -> None:
    found = merged([record(80, batch=3, late=1), record(20, batch=2, dead=4, shards=(1,), reached={"s": 90})])
    assert (found.batch, found.late, found.dead, found.rows_in) == (5, 1, 4, 20)
    assert found.sources["s"].watermark == 90
