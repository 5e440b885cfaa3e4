"""What the broker reads of pipelines' state is what they write."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from typing import Any

import headrace
import headrace.stream as hs
from headrace import stream_state
from headrace.queue.operations import Operation
from headrace.stream.runner import state_keys
from headrace.stream.runner.store import BrokerStore, Control, RetryPolicy, read_control, write_control
from headrace.stream.sources.queue import inbox_name
from tests.stream.runner.conftest import client as client  # noqa: PLC0414 (a fixture)
from tests.stream.runner.pipelines import counts, event, send


def _read(client: headrace.Client) -> list[stream_state.PipelineState]:
    async def call(operation: Operation) -> Any:
        return client.call(operation)

    return asyncio.run(stream_state.read_pipelines(call))


def test_keys_are_those_of_the_runner() -> None:
    assert (stream_state.DIRECTORY, stream_state.PREFIX) == (state_keys.DIRECTORY, state_keys.PREFIX)
    assert stream_state.PREFIXES == (state_keys.DEFINITION, state_keys.CONTROL, state_keys.OWNERS, state_keys.PROGRESS)


def test_a_pipeline_is_read_as_it_ran(client: headrace.Client) -> None:
    send(client, [*map(event, range(200)), b"nonsense"])
    counts(dead_letter_queue="dead").run(client, until="idle")
    [found] = _read(client)
    assert (found.name, found.rows_in, found.rows_out, found.late, found.dead) == ("counts", 201, 3, 0, 1)
    assert [(source.name, source.queue, source.rows) for source in found.sources] == [("events", "events", 201)]
    assert found.watermark_us is not None
    assert (found.paused, found.processes) == (False, ())
    assert found.batches > 0
    assert 0 < found.committed_ms <= client.statistics().now_ms


def test_a_paused_pipeline_is_told(client: headrace.Client) -> None:
    send(client, [event(1)])
    counts().run(client, until="idle")
    store = BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(0, threading.Event()))
    write_control(store, "counts", Control(paused=True))
    [found] = _read(client)
    assert found.paused


def test_a_pipeline_that_has_ended_has_no_watermark(client: headrace.Client) -> None:
    rows = hs.memory("k string, ts timestamp", [[{"k": "a", "ts": dt.datetime(2024, 1, 1)}]])  # noqa: DTZ001 (as inside)
    hs.pipeline("ended", rows.with_watermark("ts"), sink=hs.queue("out")).run(client)
    [found] = _read(client)
    assert (found.watermark_us, found.sources[0].queue) == (None, "")


def test_what_others_keep_under_the_same_names_is_left_out(client: headrace.Client) -> None:
    with client.transact("streams") as tx:
        tx.put("mine", b"1")
    with client.transact("stream:mine") as tx:
        tx.put("definition", b"no JSON")
    assert _read(client) == []


def test_a_topic_is_read_by_a_queue_of_the_pipelines_own() -> None:
    assert stream_state.queue_of("delays", "topic flights") == inbox_name("delays", "flights") == "delays--flights"
    assert stream_state.queue_of("delays", "files /var/log/*.log") == ""


def test_the_plan_is_read_with_its_boxes(client: headrace.Client) -> None:
    async def call(operation: Operation) -> Any:
        return client.call(operation)

    send(client, [event(1)])
    counts().run(client, until="idle")
    found = asyncio.run(stream_state.read_plan(call, "counts"))
    assert found is not None
    assert (found.boxes[0].title, found.boxes[-1].title) == ("read", "sink")
    assert found.sources == {"events": "queue events"}
    assert asyncio.run(stream_state.read_plan(call, "none such")) is None


def test_pausing_is_what_the_runner_reads(client: headrace.Client) -> None:
    send(client, [event(1)])
    counts().run(client, until="idle")
    store = BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(0, threading.Event()))
    for paused in (True, False):
        client.call(stream_state.pausing("counts", paused=paused))
        assert read_control(store) == Control(paused)
