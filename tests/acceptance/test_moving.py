"""From SQLite to PostgreSQL without a pause, as docs/scale.md says: brokers, producers and consumers are processes, and go on
working all the time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import headrace
from headrace.testing.postgres import databases, find_programs
from tests.broker_process import BrokerProcess, broker, environment, run_command, wait_until
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`")

SCALE = Path(__file__).parents[2] / "docs" / "scale.md"
SENT_MAX = 1_000  # by one process: the rest of its life it waits to be ended

PRODUCER = f"""
import signal, sys
import headrace

broker, name, ledger = sys.argv[1:]
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
with headrace.connect(broker) as client, open(ledger, "a+") as book:
    book.seek(0)
    first = len(book.readlines())  # it goes on where the process before it stopped
    queue = client.queue(name)
    for number in range(first, first + {SENT_MAX}, 4):
        lot = [(f"group-{{one % 4}}", one) for one in range(number, number + 4)]
        fifo = name.endswith(".fifo")
        queue.send_many([
            headrace.Outgoing(f"{{group}} {{one}}", group=group if fifo else None, dedup_id=str(one) if fifo else None)
            for group, one in lot
        ])
        book.writelines(f"{{group}} {{one}}\\n" for group, one in lot)
        book.flush()
        if ended:
            break
    while not ended:
        signal.sigtimedwait([], 0.05)
"""
CONSUMER = """
import signal, sys
import headrace

broker, name, ledger = sys.argv[1:]
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
with headrace.connect(broker) as client, open(ledger, "a") as book:
    queue = client.queue(name)
    while not ended:
        received = queue.receive(wait=0.2)
        book.writelines(one.body.decode() + "\\n" for one in received)
        book.flush()
        queue.delete(received)
"""


class Client:
    """A process that sends to a queue, or receives from it; TERM lets it finish what it is at."""

    def __init__(self, script: str, brokers: str, queue: str, ledger: Path) -> None:
        self._ledger = ledger
        command = [sys.executable, "-c", script, brokers, queue, str(ledger)]
        self.process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)

    def lines(self) -> list[str]:
        return self._ledger.read_text().splitlines() if self._ledger.exists() else []

    def done(self) -> int:
        assert self.process.poll() is None, self.process.communicate()[1]
        return len(self.lines())

    def end(self) -> list[str]:
        """What it has done in all."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, errors
        return self.lines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    started: list[Client] = []

    def start(script: str, brokers: str, queue: str, ledger: str) -> Client:
        started.append(Client(script, brokers, queue, tmp_path / ledger))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[BrokerProcess]:
    with broker(tmp_path / "data") as running, headrace.connect(running.url) as client:
        client.queue("dead", create=True, retention=900)
        client.queue(
            "jobs", create=True, visibility_timeout=600, dead_letter="dead", max_receives=5, tags={"team": "a"}
        )
        client.queue("steps.fifo", create=True, fifo=True, visibility_timeout=600)
        yield running


@pytest.fixture
def new(tmp_path: Path) -> Iterator[str]:
    """Two nodes on PostgreSQL, as clients name them."""
    url = databases().of(tmp_path)
    with ExitStack() as stack:
        nodes = [stack.enter_context(broker(tmp_path / name, "--store", url)) for name in ("one", "two")]
        yield ",".join(node.url for node in nodes)


def test_store_moves_while_producers_and_consumers_work(
    old: BrokerProcess, new: str, tmp_path: Path, start: Callable[..., Client]
) -> None:
    sends = start(PRODUCER, old.url, "jobs", "sent"), start(PRODUCER, old.url, "steps.fifo", "sent.fifo")
    receives = start(CONSUMER, old.url, "jobs", "received"), start(CONSUMER, old.url, "steps.fifo", "received.fifo")
    wait_until(lambda: all(one.done() > 100 for one in receives))

    make_queues(old.url, new, tmp_path)
    more = start(CONSUMER, new, "jobs", "received at new")
    before = [len(one.end()) for one in sends]
    sends = start(PRODUCER, new, "jobs", "sent"), start(PRODUCER, new, "steps.fifo", "sent.fifo")
    wait_until(lambda: all(one.done() > sent for one, sent in zip(sends, before, strict=True)))
    wait_until(lambda: is_empty(old.url))

    in_order = receives[1].end()
    ordered = start(CONSUMER, new, "steps.fifo", "received.fifo at new")
    jobs = receives[0].end()
    old.process.terminate()
    assert old.wait_end() == 0

    wait_until(lambda: more.done() > 100 and ordered.done() > 100)
    sent, sent_in_order = [one.end() for one in sends]
    wait_until(lambda: is_empty(new))
    assert sorted(jobs + more.end()) == sorted(sent)
    in_order += ordered.end()
    assert sorted(in_order) == sorted(sent_in_order)
    assert {name: of_group(name, in_order) for name in GROUPS} == {
        name: of_group(name, sent_in_order) for name in GROUPS
    }


GROUPS = [f"group-{number}" for number in range(4)]


def of_group(name: str, lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(name)]


def make_queues(old: str, new: str, folder: Path) -> None:
    """By the script of the document; what it has made is as it was."""
    (script,) = re.findall(r"```python\n# same_queues.py\n(.*?)```", SCALE.read_text(encoding="utf-8"), re.DOTALL)
    (folder / "same_queues.py").write_text(script)
    made = run_command([sys.executable, "same_queues.py", old, new], cwd=folder)
    assert made.returncode == 0, made.stderr
    with headrace.connect(old) as before, headrace.connect(new) as after:
        assert [(one.arn, one.settings, one.tags) for one in after.queues()] == [
            (one.arn, one.settings, one.tags) for one in before.queues()
        ]


def is_empty(brokers: str) -> bool:
    with headrace.connect(brokers) as client:
        return all(one.counts.visible + one.counts.in_flight + one.counts.delayed == 0 for one in client.queues())
