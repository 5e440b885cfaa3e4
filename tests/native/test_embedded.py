"""What is particular to a broker in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import headrace
from headrace.errors import OutcomeUnknown, StoreUnusable
from headrace.native.embedded import EmbeddedTransport, _Waiter
from headrace.queue import broker
from headrace.queue import operations as ops
from headrace.queue.store.base import Request
from headrace.queue.store.local.store import LocalStore
from tests.native.served import eventually, interrupted_when
from tests.patience import PATIENCE_S


def polls_waiting(client: headrace.Client) -> int:
    """How many receives wait, asked on the broker's own thread."""
    transport = client._transport
    assert isinstance(transport, EmbeddedTransport)
    waiter = _Waiter()
    transport._hand_over(lambda: waiter.done(transport._opened().broker.waiting()))
    waiter.wait()
    return int(waiter.result())


def test_what_was_sent_is_there_after_reopening(tmp_path: Path) -> None:
    with headrace.connect(tmp_path) as client:
        sent = client.queue("orders", create=True).send("kept")
    with headrace.connect(tmp_path) as client:
        assert [m.id for m in client.queue("orders").receive(wait=0)] == [sent.id]


def test_folder_has_one_owner(tmp_path: Path) -> None:
    with headrace.connect(tmp_path), pytest.raises(StoreUnusable):
        headrace.connect(tmp_path)
    headrace.connect(tmp_path).close()


def test_folder_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreUnusable, match="file"):
        headrace.connect(tmp_path / "file")


def test_close_ends_a_waiting_receive_with_nothing(tmp_path: Path) -> None:
    client = headrace.connect(tmp_path)
    queue = client.queue("orders", create=True)
    answers: list[object] = []
    consumer = threading.Thread(target=lambda: answers.append(queue.receive(wait=20)))
    consumer.start()
    eventually(lambda: polls_waiting(client) == 1)
    client.close()
    consumer.join(PATIENCE_S)

    assert answers == [[]]


@pytest.fixture
def hanging_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that takes a commit of messages and does not come back; set when it has one. A broker that stops waits a moment."""
    taken = threading.Event()
    execute = LocalStore.execute

    def hang(store: LocalStore, requests: Sequence[Request]) -> None:
        if any(isinstance(request.operation, ops.Send) for request in requests):
            monkeypatch.setattr(LocalStore, "busy", lambda _: True)
            taken.set()
        else:
            execute(store, requests)

    monkeypatch.setattr(LocalStore, "execute", hang)
    monkeypatch.setattr(broker, "DRAIN_MAX_S", 0.01)
    return taken


def test_close_on_a_disk_that_hangs_ends_calls_whose_outcome_nobody_knows(
    tmp_path: Path, hanging_disk: threading.Event
) -> None:
    client = headrace.connect(tmp_path)
    queue = client.queue("orders", create=True)
    ends: list[type[BaseException]] = []

    def send() -> None:
        try:
            queue.send("x")
        except OutcomeUnknown as error:
            ends.append(type(error))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert hanging_disk.wait(PATIENCE_S)
    client.close()
    sender.join(PATIENCE_S)
    assert ends == [OutcomeUnknown]


def test_close_on_a_disk_that_hangs_ends_calls_on_a_loop_too(tmp_path: Path, hanging_disk: threading.Event) -> None:
    async def trial() -> None:
        client = headrace.connect_async(tmp_path)
        await client.open()
        queue = await client.queue("orders", create=True)
        sending = asyncio.create_task(queue.send("x"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(sending, PATIENCE_S)
        assert hanging_disk.is_set()

    asyncio.run(trial())


def test_interrupted_receive_takes_no_messages(tmp_path: Path) -> None:
    with headrace.connect(tmp_path) as client:
        queue = client.queue("orders", create=True)
        with interrupted_when(lambda: polls_waiting(client) == 1):
            queue.receive(wait=20)
        queue.send("x")

        assert [m.receives for m in queue.receive(wait=0)] == [1]


def test_process_that_forgets_to_close_ends_and_keeps_everything(tmp_path: Path) -> None:
    program = "import headrace, sys; headrace.connect(sys.argv[1]).queue('orders', create=True).send('x')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=PATIENCE_S, env=environment)

    with headrace.connect(tmp_path) as client:
        assert client.queues()[0].counts.visible == 1


def test_forked_child_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    with headrace.connect(tmp_path) as client:
        queue = client.queue("orders", create=True)
        transport = client._transport
        assert isinstance(transport, EmbeddedTransport)
        transport._process = os.getpid() + 1  # as it looks in a child

        with pytest.raises(headrace.Unavailable, match="fork"):
            queue.send("x")
        transport._process = os.getpid()
        queue.send("x")
