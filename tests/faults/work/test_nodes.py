"""Tasks over three brokers of one PostgreSQL store: workers and brokers are killed, and everything holds as with one broker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.testing.postgres import find_programs
from headrace.work import App, group
from tests.broker_process import BrokerProcess, broker, wait_until
from tests.patience import PATIENCE_S
from tests.work.test_three_processes import APP, cancelled_while_it_runs, kill_one, lines, most_at_once
from tests.work.worker_process import runs, sender, working

pytestmark = [
    pytest.mark.serial,
    pytest.mark.skipif(find_programs() is None, reason="no PostgreSQL 15 or later: install `postgresql`"),
]

MORE = """
@app.task(unique=lambda n: f"once-{n}")
def once(n: int) -> None:
    write(f"once {n}")
"""
TASKS = 1_000
IN_HAND_MAX = 4 + 20  # of a child: running, and fetched ahead at the 5 ms that these tasks run


class Nodes:
    """Brokers of one store; `urls` names all."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
        from headrace.testing.postgres import databases

        self._folder, self._stack, self._store = folder, stack, databases().of(folder)
        self.running: list[BrokerProcess] = []
        for _ in range(3):
            self.start()
        self.urls = ",".join(node.url for node in self.running)

    def start(self, port: int = 0) -> None:
        data = self._folder / f"node{port}" if port else self._folder / f"node-{len(self.running)}"
        node = broker(data, "--store", self._store, "--port", str(port))
        self.running.append(self._stack.enter_context(node))

    def stop(self, place: int) -> None:
        """In order, as for an upgrade: whatever it has leased, it has answered."""
        node = self.running.pop(place)
        node.signal(signal.SIGTERM)
        assert node.wait_end() == 0

    def kill(self, place: int) -> None:
        """SIGKILL; its address is free again."""
        node = self.running.pop(place)
        node.process.kill()
        node.wait_end()


@contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(folder, stack)


def test_limits_joins_schedules_uniqueness_and_cancel_hold_over_three_nodes_though_one_stops_and_a_worker_is_killed(
    tmp_path: Path,
) -> None:
    with (
        nodes(tmp_path) as brokers,
        working(tmp_path, "--broker", brokers.urls, "--processes", "3", "--threads", "4", app=APP + MORE) as one,
        sender(tmp_path, broker=brokers.urls) as tasks,
    ):
        tasks.slot.send_many((n,) for n in range(60))
        handles = [tasks.once.options(delay="5s").send(7) for _ in range(5)]  # all while the first waits
        flow = group([tasks.member.s(n) for n in range(300)]).then(tasks.total.s()).send()
        _sent_together(tasks, 1, 2)
        with pytest.raises(TypeError):
            _sent_together(tasks, 3, "no number")
        wait_until(lambda: len(lines(one, "in")) >= 10)
        brokers.stop(0)
        killed = kill_one(one)
        assert flow.result(5 * PATIENCE_S) == sum(range(300))
        wait_until(lambda: len({n for _, n, _ in lines(one, "out")}) == 60)
        wait_until(lambda: len(lines(one, "tick")) >= 3)
        assert most_at_once(one, killed) <= 3
        assert lines(one, "total") == [["300"]]
        assert len({handle.id for handle in handles}) == 1
        wait_until(lambda: lines(one, "once") == [["7"]])
        wait_until(lambda: sorted(lines(one, "ended")) == [["1"], ["2"]])
        ticks = [name for (name,) in lines(one, "tick")]
        assert len(ticks) - len(set(ticks)) <= 1  # one that was running when its process was killed
        cancelled_while_it_runs(one, tasks)


def _sent_together(tasks: Any, *numbers: Any) -> None:
    with tasks.app.transaction():
        for number in numbers:
            tasks.note.options(queue="aio" if number % 2 else "tasks").send(number)


def test_killed_child_s_task_runs_elsewhere_at_once_though_its_node_died_before(tmp_path: Path) -> None:
    with (
        nodes(tmp_path) as brokers,
        working(tmp_path, "--broker", brokers.urls) as one,
        sender(tmp_path, broker=brokers.urls) as tasks,
        headrace.connect(brokers.urls) as client,
    ):
        tasks.until.send(1, str(tmp_path / "go"))
        one.ledger.wait("began", 1)
        while len(brokers.running) > 1:  # the node that it was leased by is among them, most likely
            brokers.kill(0)
        killed_ms = client.statistics().now_ms
        wait_until(lambda: [one.leases for one in client.holders("worker") if one.seen_ms > killed_ms] == [1])
        os.kill(one.children()[0], signal.SIGKILL)
        (tmp_path / "go").touch()
        one.ledger.wait("ended", 1, within_s=30)  # its lease would be a minute


def test_no_task_is_lost_and_none_that_was_not_in_hand_repeated_when_nodes_and_children_are_killed(
    tmp_path: Path,
) -> None:
    with (
        nodes(tmp_path) as brokers,
        working(tmp_path, "--broker", brokers.urls, "--processes", "2", "--threads", "4") as one,
        sender(tmp_path, broker=brokers.urls) as tasks,
    ):
        tasks.note.send_many([(n, 0.005) for n in range(TASKS)])
        for kill in range(1, 5):
            one.ledger.wait("ended", TASKS * kill // 6, within_s=5 * PATIENCE_S)
            if kill % 2:
                port = int(brokers.running[0].url.rpartition(":")[2])
                brokers.kill(0)
                brokers.start(port)
            else:
                wait_until(one.children)
                os.kill(one.children()[0], signal.SIGKILL)
        with headrace.connect(brokers.urls) as client:
            wait_until(lambda: _done_or_leased(client, tasks.app) >= TASKS)
        began = one.ledger.counts("began")
        assert began.total() - len(began) <= 2 * IN_HAND_MAX


def _done_or_leased(client: headrace.Client, app: App) -> int:
    """How many tasks are done, or leased by what was killed in the moment when it took or committed them: these run again
    when their lease ends, in a minute, which nobody waits for here. 0 while others wait, or more than these are leased."""
    left = client.queue("tasks").peek(TASKS)
    if len(left) > 4 * IN_HAND_MAX or any(message.state != "in_flight" for message in left):
        return 0
    return len(left) + len({run.id for run in runs(app) if run.status == "succeeded"})
