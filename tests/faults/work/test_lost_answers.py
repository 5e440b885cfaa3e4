"""A network that loses answers to commits, or the commits themselves: what is told of tasks is what became of them."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headrace.testing.ports import free_port
from headrace.work import App, group
from headrace.work.run_log import Run
from tests.broker_process import broker, wait_until
from tests.faults.stream.lossy import LossyProxy
from tests.patience import PATIENCE_S
from tests.work.worker_process import WorkerProcess, runs, sender, working

pytestmark = pytest.mark.serial

TASKS = int(os.environ.get("HEADRACE_TASKS", "100"))

MORE = """
from headrace.work import Middleware, current

class Told(Middleware):
    def before_run(self, context):
        time.sleep(0.002)

    def on_retry(self, job, error, delay_ms):
        write(f"retried {job.envelope.id}")

    def on_dead(self, job, error):
        write(f"dead {job.envelope.id}")

app.hooks.add_first(Told())

@app.task(retries=3, backoff=0.01)
def flaky(n: int) -> None:
    if current().attempt == 1:
        raise ValueError("not yet")

@app.task(retries=0)
def doomed(n: int) -> None:
    raise ValueError("never")

@app.task(result_ttl="1h")
def kept(n: int) -> int:
    return n

@app.task(result_ttl="1h")
def total(numbers: list[int]) -> int:
    write("joined")
    return sum(numbers)

@app.consumer("orders", retries=3, backoff=0.01)
def order(body: dict[str, int]) -> None:
    if current().attempt == 1:
        raise ValueError("not yet")
"""


class AnswerLoser(LossyProxy):
    """Cuts connections on which a transaction is on its way: of three the first when the broker has answered, the second before
    the broker has it."""

    def __init__(self, port: int) -> None:
        self._transactions = itertools.count()
        super().__init__(port, random.Random(0), bytes_mean=1)

    def _carry(self, client: socket.socket, broker: socket.socket) -> None:
        self._sockets += [client, broker]
        losing = threading.Event()
        for function in (self._ask, self._answer):
            thread = threading.Thread(target=function, args=(client, broker, losing))
            self._threads.append(thread)
            thread.start()

    def _ask(self, client: socket.socket, broker: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                lost = next(self._transactions) % 3 if b"Transact" in data else 2
                self.cut += lost < 2
                if lost == 1:
                    break
                if lost == 0:
                    losing.set()
                broker.sendall(data)
        _end(client, broker)

    def _answer(self, client: socket.socket, broker: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while (data := broker.recv(65_536)) and not losing.is_set():
                client.sendall(data)
        _end(client, broker)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def losing(port: int) -> Iterator[AnswerLoser]:
    proxy = AnswerLoser(port)
    try:
        yield proxy
    finally:
        proxy.close()


def test_log_counts_results_and_hooks_tell_each_end_once_though_answers_to_commits_are_lost(tmp_path: Path) -> None:
    port = free_port()
    with (
        broker(tmp_path / "data") as server,
        losing(server.port) as proxy,
        sender(tmp_path, MORE, broker=server.url) as tasks,
        working(tmp_path, "--broker", proxy.url, "--threads", "2", "--metrics-port", str(port)) as worker,
    ):
        worker.port = port
        for name in ("note", "flaky", "doomed", "kept"):
            getattr(tasks, name).send_many([(n,) for n in range(TASKS)])
        tasks.app.backend.client.queue("orders", create=True).send_many([f'{{"n": {n}}}' for n in range(TASKS)])
        flow = group([tasks.kept.s(n) for n in range(TASKS)]).then(tasks.total.s()).send()
        assert flow.result(5 * PATIENCE_S) == sum(range(TASKS))
        ends = {"note": 1, "flaky": 2, "doomed": 1, "kept": 2, "order": 2, "total": 0}
        wait_until(lambda: len(_ended(tasks.app)) >= sum(ends.values()) * TASKS + 1, within_s=5 * PATIENCE_S)
        print(f"{proxy.cut} commits were lost or not answered")
        assert proxy.cut > 3, "hardly any commit was lost: this run proves little"
        log = Counter((run.task.rpartition(".")[2], run.id, run.status) for run in _ended(tasks.app))
        assert set(log.values()) == {1}, [one for one in log.items() if one[1] > 1]
        by_task = Counter((name, status) for name, _, status in log)
        assert by_task == {
            ("note", "succeeded"): TASKS, ("kept", "succeeded"): 2 * TASKS, ("total", "succeeded"): 1, ("doomed", "dead"): TASKS,
            ("flaky", "retried"): TASKS, ("flaky", "succeeded"): TASKS, ("consumer:orders", "retried"): TASKS, ("consumer:orders", "succeeded"): TASKS,
        }  # fmt: skip
        wait_until(lambda: _counted(worker) == by_task)
        told = Counter(line for line in worker.ledger.lines() if line.startswith(("dead ", "retried ")))
        assert told == {f"{status} {id_}": 1 for _, id_, status in log if status in ("dead", "retried")}
        assert worker.stop() == 0


def _ended(app: App) -> list[Run]:
    """All but those that were given back, since they waited behind others for too long."""
    return [run for run in runs(app) if run.status != "deferred"]


def _counted(worker: WorkerProcess) -> Counter[tuple[str, str]]:
    """(task, outcome) → how many, of the metrics."""
    counted: Counter[tuple[str, str]] = Counter()
    for line in worker.get("/metrics")[1].decode().splitlines():
        if line.startswith("headrace_tasks_ended_total{"):
            _, task, _, outcome, number = line.split('"')
            if outcome != "deferred":
                counted[task.rpartition(".")[2], outcome] = int(number.removeprefix("} "))
    return counted
