"""Topics by the client: what is published arrives, filtered and in order; the log is read and replayed; both twins."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import headrace
from headrace import errors
from headrace.native.aio_topic import AsyncTopic
from headrace.native.topic import Topic
from headrace.native.topic_calls import span_ms


def texts(queue: headrace.Queue) -> list[str]:
    return [message.text for message in queue.receive(100, wait=20)]


def test_published_messages_reach_every_subscribed_queue(client: headrace.Client) -> None:
    first, second = client.queue("first", create=True), client.queue("second", create=True)
    topic = client.topic("flights", create=True)
    topic.subscribe("first")
    topic.subscribe(second.arn, filter={"kind": ["late"]})

    sent = topic.publish({"n": 1}, attributes={"kind": "late"})
    topic.publish_many(["2", headrace.Outgoing("3", attributes={"kind": "early"})])

    (one, *rest) = first.receive(wait=20)
    assert (one.id, one.json(), one.attributes) == (sent.id, {"n": 1}, {"kind": "late"})
    assert [message.text for message in rest] == ["2", "3"]
    assert [message.json() for message in second.receive(wait=20)] == [{"n": 1}]


def test_log_is_read_and_replayed(client: headrace.Client) -> None:
    queue = client.queue("q", create=True)
    topic = client.topic("flights", create=True, retention="7 days")
    topic.publish_many(str(number) for number in range(5))

    assert [message.text for message in topic.log()] == ["0", "1", "2", "3", "4"]
    assert [message.text for message in topic.read_log(max=2)] == ["0", "1"]
    topic.subscribe("q", start="beginning")
    assert texts(queue) == ["0", "1", "2", "3", "4"]
    topic.replay("q", start=topic.read_log(max=3)[-1].sequence, purge=True)
    assert texts(queue) == ["3", "4"]
    topic.subscribe("q", start="beginning", if_absent=True)
    topic.replay("q", start=datetime.now(UTC) + timedelta(hours=1))
    topic.publish("5")
    assert texts(queue) == ["5"]


def test_description_tells_counts_and_subscriptions(client: headrace.Client) -> None:
    client.queue("q", create=True)
    topic = client.topic("flights", create=True, retention=60, retention_bytes=1_000)
    topic.subscribe("q", filter={"a": [1]}, scope="MessageBody")
    topic.publish({"a": 1})

    told = topic.describe()

    assert (told.name, told.retention, told.retention_bytes, told.inbox) == ("flights", 60, 1_000, None)
    assert (told.counts.published, told.counts.logged, told.counts.log_bytes) == (1, 1, 7)
    (one,) = told.subscriptions
    assert (one.queue, one.filter, one.scope) == ("q", {"a": [1]}, "MessageBody")
    assert (one.catching_up, one.lag, one.waiting) == (False, 0, 1)
    assert [summary.name for summary in client.topics()] == ["flights"]
    assert client.topics("x") == []


def test_messages_sent_to_the_inbox_are_published(client: headrace.Client) -> None:
    inbox, queue = client.queue("in", create=True), client.queue("out", create=True)
    topic = client.topic("flights", create=True, inbox="in")
    topic.subscribe("out")
    inbox.send("a")
    assert texts(queue) == ["a"]
    assert inbox.peek() == []
    assert topic.change(inbox=None).inbox is None
    inbox.send("b")
    assert texts(inbox) == ["b"]


def test_transaction_publishes(client: headrace.Client) -> None:
    queue = client.queue("q", create=True)
    topic = client.topic("flights", create=True)
    topic.subscribe("q")
    with client.transact() as tx:
        tx.send(topic, "a")
        assert queue.peek() == []
    assert texts(queue) == ["a"]


def test_removed_topic_is_gone_and_its_messages_stay(client: headrace.Client) -> None:
    queue = client.queue("q", create=True)
    topic = client.topic("flights", create=True, retention=60)
    topic.subscribe("q")
    topic.publish("a" * 1_000)
    topic.remove()
    with pytest.raises(errors.TopicNotFound):
        client.topic("flights")
    with pytest.raises(errors.TopicNotFound):
        topic.publish("b")
    assert texts(queue) == ["a" * 1_000]


def test_mistakes_are_named(client: headrace.Client) -> None:
    client.queue("q", create=True)
    topic = client.topic("flights", create=True)
    with pytest.raises(errors.InvalidFilter, match=r"a\[0\].*'near'"):
        topic.subscribe("q", filter={"a": [{"near": 1}]})
    with pytest.raises(errors.SubscriptionRefused, match="no log"):
        topic.subscribe("q", start="beginning")
    with pytest.raises(errors.InvalidParameter, match="start"):
        topic.subscribe("q", start="yesterday")
    with pytest.raises(errors.TopicExists):
        client.topic("flights", create=True, retention=5)
    with pytest.raises(errors.InvalidParameter):
        client.topic("flights", retention=5)
    with pytest.raises(errors.UnknownSetting):
        client.topic("new", create=True, size=5)  # type: ignore[call-arg]  # the mistake
    with pytest.raises(errors.InvalidParameter, match="retention"):
        client.topic("new", create=True, retention="a while")


@pytest.mark.parametrize(
    ("span", "ms"),
    [(1.5, 1_500), ("90 s", 90_000), ("7 days", 604_800_000), ("1.5h", 5_400_000), ("20ms", 20), ("1w", 604_800_000)],
)
def test_time_spans_are_seconds_or_text(span: float | str, ms: int) -> None:
    assert span_ms("retention", span) == ms


def test_async_twin_does_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        async with headrace.connect_async(tmp_path / "data") as client:
            queue = await client.queue("q", create=True)
            topic = await client.topic("flights", create=True, retention="1 day")
            await topic.publish("a")
            await topic.subscribe("q", start="beginning")
            await topic.publish_many(["b", "c"])
            assert [message.text for message in await queue.receive(wait=20)][:1] == ["a"]
            assert [message.text async for message in topic.log()] == ["a", "b", "c"]
            assert (await topic.describe()).counts.logged == 3
            assert (await topic.change(retention_bytes=500)).retention_bytes == 500
            assert [one.name for one in await client.topics()] == ["flights"]
            async with client.transact() as tx:
                tx.send(topic, "d")
            await topic.unsubscribe("q")
            await topic.replay("q", start="now")
            await topic.remove()
            assert await client.topics() == []

    asyncio.run(main())


def test_twins_have_the_same_methods_and_arguments() -> None:
    def shape(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(value).parameters) for name, value in methods if name[0] != "_"}

    assert shape(Topic) == shape(AsyncTopic)
