from __future__ import annotations

import headrace
import headrace.stream as hs
from headrace.stream.spark.places import prepare_places
from tests.broker_process import wait_until


def test_topic_is_read_from_where_the_source_says(client: headrace.Client) -> None:
    topic = client.topic("flights", create=True, retention=3_600)
    topic.publish({"id": 1})
    sources = {
        "late": hs.topic("flights", schema="id bigint"),
        "early": hs.topic("flights", schema="id bigint", start="beginning"),
    }
    for name, source in sources.items():
        prepare_places(hs.pipeline(name, source, sink=hs.queue("out")).plan, client)
    topic.publish({"id": 2})
    late, early = (client.queue(f"{name}--flights") for name in sources)
    wait_until(lambda: late.counts().visible == 1 and early.counts().visible == 2)
    assert [message.json()["id"] for message in late.peek()] == [2]
    assert [message.json()["id"] for message in early.peek()] == [1, 2]
