"""Plain messages of tasks: in the acknowledgement's commit, in a transaction's, or at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.errors import TopicNotFound
from headrace.work import App, Backoff, NotSupported, current
from headrace.work.broker_backend import BrokerBackend


@pytest.fixture
def client(tmp_path: Path) -> headrace.Client:
    return headrace.connect(tmp_path / "data")


@pytest.fixture
def app(client: headrace.Client) -> Iterator[App]:
    with App(backend=BrokerBackend(client), backoff=Backoff(first_ms=0)) as app:
        yield app


def bodies(client: headrace.Client, queue: str) -> list[bytes]:
    return [message.body for message in client.queue(queue, create=True).peek(100)]


def test_what_a_task_with_an_outbox_publishes_is_there_once_although_its_first_attempt_fails(
    client: headrace.Client, app: App
) -> None:
    client.queue("seen", create=True)
    client.topic("flights", create=True).subscribe("seen")

    @app.task(name="file", outbox=True, retries=1)
    def file() -> None:
        app.publish("flights", b"1", b"2")
        app.send("also", b"3")
        assert bodies(client, "seen") == []
        if current().attempt == 1:
            raise ValueError("after publishing")

    file.send()
    dispositions = [run.disposition for run in app.run_pending()]
    assert dispositions == ["retried", "succeeded"]
    assert (bodies(client, "seen"), bodies(client, "also")) == ([b"1", b"2"], [b"3"])


def test_without_an_outbox_it_is_sent_at_once(client: headrace.Client, app: App) -> None:
    app.send("shipped", b"1", {"order": 2})
    asyncio.run(app.asend("shipped", "3"))
    app.send("shipped")
    assert bodies(client, "shipped") == [b"1", b'{"order":2}', b"3"]


def test_in_a_transaction_it_is_part_of_that(client: headrace.Client, app: App) -> None:
    with app.transaction():
        app.send("shipped", b"1")
        assert bodies(client, "shipped") == []
    assert bodies(client, "shipped") == [b"1"]
    with pytest.raises(ZeroDivisionError):
        _send_and_raise(app)
    assert bodies(client, "shipped") == [b"1"]


def _send_and_raise(app: App) -> None:
    with app.transaction():
        app.send("shipped", b"2")
        raise ZeroDivisionError


def test_a_topic_that_is_not_there_is_an_error_and_is_not_made(app: App) -> None:
    with pytest.raises(TopicNotFound):
        app.publish("flights", b"1")


def test_a_broker_without_transactions_refuses_it_before_anything_is_sent() -> None:
    from headrace.work.sqs_backend import SqsBackend

    with App(backend=SqsBackend("sqs+http://127.0.0.1:1")) as app, pytest.raises(NotSupported, match=r"app\.publish"):
        app.publish("flights", b"1")
