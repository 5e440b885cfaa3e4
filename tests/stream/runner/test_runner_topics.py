"""Pipelines that read topics: each gets every message; a new one, and one that is reset, gets the old ones, too."""

from __future__ import annotations

import json

import pytest

import headrace
import headrace.stream as hs
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.pipelines import Pipeline
from tests.stream.runner.pipelines import copied, event, send, taken


def reading(name: str) -> Pipeline:
    rows = hs.topic("happened", schema="k string, v bigint")
    return hs.pipeline(name, hs.sql("SELECT v FROM rows", rows=rows), sink=hs.queue(f"out-{name}"))


def publish(client: headrace.Client, numbers: range) -> None:
    client.topic("happened", create=True, retention=3600).publish_many(json.dumps(event(n)).encode() for n in numbers)


def values(client: headrace.Client, name: str) -> list[int]:
    return [row["v"] for row in taken(client, f"out-{name}")]


def test_each_pipeline_gets_every_message(client: headrace.Client) -> None:
    publish(client, range(0))
    for name in ("a", "b"):
        reading(name).run(client, until="idle")
    publish(client, range(10))
    for name in ("a", "b"):
        reading(name).run(client, until="idle")
        assert values(client, name) == list(range(10))


def test_backfill_reads_the_log_then_goes_on_live(client: headrace.Client) -> None:
    publish(client, range(5_000))
    reading("late").run(client, until="idle", backfill="topic")
    publish(client, range(5_000, 5_010))
    reading("late").run(client, until="idle", backfill="topic")
    assert values(client, "late") == list(range(5_010)), "started again with the same command it goes on"


def test_pipeline_that_has_begun_without_the_log_says_so(client: headrace.Client) -> None:
    publish(client, range(10))
    reading("a").run(client, until="idle")
    publish(client, range(10, 20))
    reading("a").run(client, until="idle")
    with pytest.raises(UnsupportedQuery, match="--reset"):
        reading("a").run(client, until="idle", backfill="topic")


def test_reset_reads_the_log_again(client: headrace.Client) -> None:
    publish(client, range(100))
    reading("a").run(client, until="idle", backfill="topic")
    publish(client, range(100, 120))
    reading("a").run(client, until="idle", reset=True)
    assert values(client, "a") == [*range(100), *range(120)]


def test_queue_has_no_log_to_backfill_from(client: headrace.Client) -> None:
    send(client, [event(1)])
    with pytest.raises(UnsupportedQuery, match="no log"):
        copied().run(client, until="idle", backfill="topic")
