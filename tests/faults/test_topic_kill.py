"""`kill -9` of a broker under publishing, replays and trimming: nothing acknowledged is lost, order and number hold."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path

import headrace
from headrace.errors import HeadraceError
from tests.broker_process import wait_until
from tests.faults.broker_process import BrokerProcess
from tests.patience import PATIENCE_S

SEED = int(os.environ.get("HEADRACE_SEED", "20241124"))
ROUNDS = int(os.environ.get("HEADRACE_KILL_ROUNDS", "24")) // 4


def publish(topic: headrace.Topic, sent: list[int], numbers: range, killed: threading.Event) -> None:
    """Publish numbers until the broker dies; what was acknowledged goes to `sent`."""
    for number in numbers:
        try:
            topic.publish(f"{number} {'x' * (number % 7 * 200)}")
        except HeadraceError:
            return
        sent.append(number)
        if len(sent) % 20 == 0:
            killed.set()


def numbers_of(queue: headrace.Queue) -> list[int]:
    found: list[int] = []
    while messages := queue.receive(500, wait=0):
        found += [int(message.text.split()[0]) for message in messages]
        queue.delete(messages)
    return found


def test_kill_loses_nothing_that_was_published(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "data"
    broker = BrokerProcess(folder)
    broker.start()
    target = f"unix://{folder}/headrace.sock"
    sent: list[int] = []
    try:
        with headrace.connect(target) as client:
            topic = client.topic("t", create=True, retention="1h")
            for name in ("live", "again"):
                client.queue(name, create=True)
            topic.subscribe("live")
        for number in range(ROUNDS):
            go = threading.Event()
            with headrace.connect(target, patience=0) as client:
                topic = client.topic("t")
                thread = threading.Thread(
                    target=publish, args=(topic, sent, range(number * 10_000, number * 10_000 + 5_000), go)
                )
                thread.start()
                with contextlib.suppress(HeadraceError):
                    topic.replay("again", purge=True)
                go.wait(PATIENCE_S)
                go.clear()
                go.wait(chance.random() * 0.05)
                broker.kill()
                thread.join(PATIENCE_S)
            broker.spawn()
            broker.wait_ready()
        with headrace.connect(target) as client:
            client.topic("t").replay("again", purge=True)
            client.topic("t").publish("999999 ")
            wait_until(lambda: not any(one.catching_up for one in client.topic("t").describe().subscriptions))
            log = [int(message.text.split()[0]) for message in client.topic("t").log()]
            live, again = numbers_of(client.queue("live")), numbers_of(client.queue("again"))
    finally:
        broker.close()
    assert log == sorted(set(log)) and set(sent) <= set(log)
    assert live == log
    assert again == log
    assert len(sent) >= 20 * ROUNDS
