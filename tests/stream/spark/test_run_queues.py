from __future__ import annotations

from typing import Any

import pytest

import headrace
import headrace.stream as hs
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.spark.run import prepare_queues
from tests.broker_process import wait_until


def test_topic_is_read_from_where_the_source_says(client: headrace.Client) -> None:
    topic = client.topic("flights", create=True, retention=3_600)
    topic.publish({"id": 1})
    sources = {
        "late": hs.topic("flights", schema="id bigint"),
        "early": hs.topic("flights", schema="id bigint", start="beginning"),
    }
    for name, source in sources.items():
        prepare_queues(hs.pipeline(name, source, sink=hs.queue("out")).plan, client)
    topic.publish({"id": 2})
    late, early = (client.queue(f"{name}--flights") for name in sources)
    wait_until(lambda: late.counts().visible == 1 and early.counts().visible == 2)
    assert [message.json()["id"] for message in late.peek()] == [2]
    assert [message.json()["id"] for message in early.peek()] == [1, 2]


@pytest.mark.parametrize("named", [{"sink": hs.queue("out")}, {"dead_letter_queue": "dead"}], ids=["sink", "dead"])
def test_queues_need_a_broker(named: dict[str, Any]) -> None:
    pipeline = hs.pipeline("p", hs.memory("id bigint", []), **named).plan
    with pytest.raises(UnsupportedQuery, match="no broker is named"):
        prepare_queues(pipeline, None)


def test_pipeline_without_queues_needs_none() -> None:
    prepare_queues(hs.pipeline("p", hs.memory("id bigint", [])).plan, None)
