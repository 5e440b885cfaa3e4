"""Nexmark's events: the mix, the same again, out of order as far as asked."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.nexmark.generator import AUCTION, BID, PERSON, START_US, batches, generate, messages, write_parquet
from headrace.stream.schema import Schema


def test_of_fifty_events_one_is_a_person_three_are_auctions() -> None:
    events = generate(5_000)
    assert (events.persons.num_rows, events.auctions.num_rows, events.bids.num_rows) == (100, 300, 4_600)


def test_the_columns_are_those_of_the_schemas() -> None:
    events = generate(50)
    for rows, schema in ((events.persons, PERSON), (events.auctions, AUCTION), (events.bids, BID)):
        assert rows.schema.equals(Schema.of(schema).arrow())


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    assert generate(500, first=100, seed=3).bids.equals(generate(500, first=100, seed=3).bids)
    assert not generate(500, seed=3).bids.equals(generate(500, seed=4).bids)


def test_what_is_referred_to_has_come_before() -> None:
    events = generate(20_000)
    persons, auctions = _born(events.persons), _born(events.auctions)
    assert all(persons[row["seller"]] <= row["ts"] for row in events.auctions.to_pylist())
    for bid in events.bids.to_pylist():
        assert auctions[bid["auction"]] <= bid["ts"]
        assert persons[bid["bidder"]] <= bid["ts"]


def _born(rows: pa.Table) -> dict[int, dt.datetime]:
    return dict(zip(rows["id"].to_pylist(), rows["ts"].to_pylist(), strict=True))


@pytest.mark.parametrize("disorder_us", [0, 2_000_000])
def test_rows_arrive_out_of_order_as_far_as_asked(disorder_us: int) -> None:
    times = generate(50_000, disorder_us=disorder_us).bids["ts"].cast(pa.int64()).to_numpy()
    behind = np.maximum.accumulate(times) - times
    assert behind.max() <= disorder_us
    assert (behind.max() > disorder_us / 2) == (disorder_us > 0)


def test_parts_follow_each_other_in_time() -> None:
    first, second = generate(1_000), generate(1_000, first=1_000)
    assert pc.max(first.bids["ts"]).as_py() < pc.min(second.bids["ts"]).as_py()
    assert pc.min(first.persons["ts"]).cast(pa.int64()).as_py() == START_US


def test_half_of_the_bids_go_to_hot_auctions() -> None:
    auctions = generate(100_000).bids["auction"].to_numpy() - 1_000
    assert 0.48 < (auctions % 100 == 0).mean() < 0.55


def test_batches_hold_every_event_once() -> None:
    events = generate(1_000)
    steps = list(batches(events, 300))
    assert len(steps) == 4
    assert pa.concat_tables([step["bid"] for step in steps]).equals(events.bids)


def test_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_parquet(tmp_path, 1_000, parts=2)
    files = sorted((tmp_path / "bid").iterdir())
    assert [file.name for file in files] == ["part-00000.parquet", "part-00001.parquet"]
    assert pq.read_table(files[1]).equals(generate(500, first=500).bids)


def test_messages_are_json_objects() -> None:
    bids = generate(200).bids
    found = [json.loads(message) for message in messages(bids)]
    assert len(found) == bids.num_rows
    assert found[0]["price"] == bids["price"][0].as_py()
    assert found[0]["ts"].startswith("2026-01-01 00:00:00")
