"""A broker on several databases: each queue is in the one that its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.broker_settings import BrokerSettings, check
from headrace.clock import ManualClock
from headrace.node import open_configured
from headrace.queue.model import Entry
from headrace.queue.operations import CreateQueue, Receive, Send
from headrace.queue.store.base import Request
from headrace.settings import SettingsError
from headrace.testing.postgres import databases
from tests.queue.postgres.nodes import ask, node

ARN = "arn:aws:sqs:eu-west-1:000000000000:"
URL = "postgresql://somebody@localhost/queues"


def test_queue_is_in_the_database_that_its_name_says(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    alone = [node(folder, ManualClock()) for folder in (first, second)]
    settings = BrokerSettings(
        data=tmp_path / "data", store=databases().of(first), store_of=(f"orders*={databases().of(second)}",)
    )
    store, _ = open_configured(settings)
    answers: list[object] = []
    for operation in (
        CreateQueue(ARN + "orders", {}),
        CreateQueue(ARN + "mails", {}),
        Send(ARN + "orders", [Entry(b"x")]),
    ):
        store.execute([Request(operation, answers.append)])
    looked = [[type(outcome).__name__ for outcome in ask(one, Receive(ARN + "orders"))] for one in alone]
    assert looked == [["QueueNotFound"], ["list"]]
    for one in (store, *alone):
        one.close()


def test_rule_without_a_database_or_a_place_for_all_others_is_refused() -> None:
    with pytest.raises(SettingsError, match="PATTERN=postgresql"):
        check(BrokerSettings(store=URL, store_of=("orders*",)))
    with pytest.raises(SettingsError, match="needs --store"):
        check(BrokerSettings(store_of=(f"orders*={URL}",)))
    check(BrokerSettings(store=URL, store_of=(f"orders*={URL}",)))
