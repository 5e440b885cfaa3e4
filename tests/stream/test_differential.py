"""Random queries: one batch, many batches and a restart give the same rows."""

from __future__ import annotations

import random
from typing import Any, Final

import pyarrow as pa
import pytest

import headrace.stream as hs
from headrace.testing.pipelines import Harness
from tests.stream import differential

SEEDS: Final = range(12)


def run(text: str, steps: list[dict[str, Any]], restart_at: int | None = None, shards: int = 2) -> pa.Table:
    with Harness(differential.pipeline(text, shards)) as harness:
        found = []
        for place, step in enumerate(steps):
            if place == restart_at:
                harness.restart()
            found.append(harness.step(differential.tables(step, harness.sources)))
        found.append(harness.step({}, last=True))
        assert not harness.late
        assert not harness.dead
        return pa.concat_tables(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_and_a_restart_change_nothing(seed: int) -> None:
    noise = random.Random(seed)
    text = differential.query(noise)
    left = differential.left_rows(noise, 60)
    right = differential.right_rows(noise, 40, min(row["ts"] for row in left))
    whole = run(text, [{"l": left, "r": right}])
    left = differential.disordered(noise, left, "ts")
    right = differential.disordered(noise, right, "at")
    steps = [{"l": left[12 * step : 12 * step + 12], "r": right[8 * step : 8 * step + 8]} for step in range(5)]
    cut = run(text, steps, restart_at=noise.randrange(5), shards=noise.choice((1, 4)))
    assert differential.multiset(cut) == differential.multiset(whole), text


HOSTILE: Final = (
    "pane",
    "k0",
    "input",
    "window",
    "count",
    "select",
    "a b",
    "x`y",
    "it's",
    "0; DROP TABLE input --",
    "INPUT",
    "t",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_column_may_have_any_name(name: str) -> None:
    column = f"`{name.replace('`', '``')}`"
    stream = hs.memory({name: "bigint", "ts": "timestamp"}, [], name="input").with_watermark("ts")
    query = (
        f"SELECT {column}, sum({column}) AS total FROM input WHERE {column} > 0 GROUP BY tumble(ts, '1 s'), {column}"
    )
    with Harness(hs.pipeline("p", stream.sql(query))) as harness:
        harness.send("input", [{name: value, "ts": "2026-01-01T00:00:00"} for value in (0, 2, 2)])
        assert harness.end() == [{name: 2, "total": 4}]
