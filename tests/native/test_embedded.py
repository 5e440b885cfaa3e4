"""What is particular to a broker in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import headrace
from headrace.errors import StoreUnusable
from headrace.native.embedded import EmbeddedTransport, _Waiter
from tests.native.served import eventually
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


def test_interrupted_receive_takes_no_messages(tmp_path: Path) -> None:
    with headrace.connect(tmp_path) as client:
        queue = client.queue("orders", create=True)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            eventually(lambda: polls_waiting(client) == 1)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
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
