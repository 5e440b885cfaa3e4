"""All that tasks can do at once, while processes are killed and frozen: in the end everything is as if nothing had happened.

HEADRACE_KILL_ROUNDS: how often harm is done; 8 unless said otherwise.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import OutcomeUnknown, Unavailable
from headrace.work import Handle, chain, group
from tests.broker_process import wait_until
from tests.patience import PATIENCE_S
from tests.work.worker_process import Ledger, WorkerProcess, sender, working

pytestmark = pytest.mark.serial

ROUNDS = int(os.environ.get("HEADRACE_KILL_ROUNDS", "8"))
FROZEN_S = 0.3
EACH = 40

TASKS = """
from headrace.work import Retry, current

def about(what):
    write(f"{what} {current().id}")

@app.task(result_ttl="1h", max_worker_losses=100)
def inc(n: int) -> int:
    time.sleep(0.01)
    return n + 1

@app.task(queue="aio", result_ttl="1h", max_worker_losses=100)
async def ainc(n: int) -> int:
    await asyncio.sleep(0.01)
    return n + 1

@app.task(result_ttl="1h", max_worker_losses=100)
def total(numbers: list[int], flow: int) -> int:
    about(f"joined-{flow}")
    return sum(numbers)

@app.task(result_ttl="1h", max_worker_losses=100, backoff=0.05)
def flaky(n: int) -> int:
    if current().attempt < 3:
        raise ValueError("not yet")
    return n

@app.task(result_ttl="1h", max_worker_losses=100, concurrency=2)
def narrow(n: int) -> int:
    time.sleep(0.01)
    return n

@app.task(result_ttl="1h", max_worker_losses=100, outbox=True)
def tells(n: int) -> int:
    told.options(unique=f"told-{n}", unique_until="ttl").send(n)
    return n

@app.task(result_ttl="1h", max_worker_losses=100)
def told(n: int) -> int:
    about(f"told-{n}")
    return n

@app.every("1s", missed="all")
@app.task(max_worker_losses=100)
def tick() -> None:
    about(current().job.envelope.scheduled)
"""


def test_everything_ends_once_whoever_is_killed_or_frozen(tmp_path: Path) -> None:
    options = ("--processes", "2", "--threads", "3")
    with working(tmp_path, *options, app=TASKS) as worker, sender(tmp_path, TASKS) as tasks:
        sent: dict[str, tuple[Handle[Any], Any]] = {}
        senders = [
            threading.Thread(target=_send, args=(tasks, part, sent), daemon=True) for part in range(0, EACH, EACH // 4)
        ]
        for thread in senders:
            thread.start()
        _harm(worker, random.Random(11))
        for thread in senders:
            thread.join()
        assert len(sent) == 7 * EACH
        got = {name: _result(handle) for name, (handle, _) in sent.items()}
        assert got == {name: expected for name, (_, expected) in sent.items()}
        wait_until(lambda: _left(tasks.app.backend) == 0)
        _check_once(worker.ledger)
        assert worker.stop() == 0


def _send(tasks: Any, start: int, sent: dict[str, tuple[Handle[Any], Any]]) -> None:
    """A quarter of everything: each send is tried until it is known to be there, once."""
    for n in range(start, start + EACH // 4):
        once = {"unique": f"{n}", "unique_until": "ttl"}
        sent[f"inc {n}"] = _surely(tasks.inc.options(**once).send, n), n + 1
        sent[f"ainc {n}"] = _surely(tasks.ainc.options(**once, delay=0.2).send, n), n + 1
        sent[f"flaky {n}"] = _surely(tasks.flaky.options(**once, priority=1).send, n), n
        sent[f"narrow {n}"] = _surely(tasks.narrow.options(**once).send, n), n
        sent[f"tells {n}"] = _surely(tasks.tells.options(**once).send, n), n
        row = chain(tasks.inc.s(n), tasks.ainc.s(), tasks.inc.s())
        sent[f"chain {n}"] = _surely(row.send), n + 3
        side = group([tasks.inc.s(n), row, tasks.ainc.s(n)]).then(tasks.total.s(flow=n))
        sent[f"group {n}"] = _surely(side.send), (n + 1) + (n + 3) + (n + 1)


def _surely(send: Callable[..., Handle[Any]], *arguments: Any) -> Handle[Any]:
    while True:
        with suppress(Unavailable, OutcomeUnknown):  # a flow that was sent twice is two flows: the last one's counts
            return send(*arguments)


def _result(handle: Handle[Any]) -> Any:
    while True:
        with suppress(Unavailable, OutcomeUnknown):
            return handle.result(5 * PATIENCE_S)


def _harm(worker: WorkerProcess, chance: random.Random) -> None:
    for number in range(ROUNDS):
        time.sleep(chance.uniform(0.2, 1.0))  # harm comes at any time
        wait_until(worker.children)
        pid = chance.choice((worker.brokers() if number % 4 == 3 else worker.children()) or [0])
        with suppress(ProcessLookupError):
            if pid and number % 2:
                os.kill(pid, signal.SIGKILL)
            elif pid:
                os.kill(pid, signal.SIGSTOP)
                time.sleep(FROZEN_S)
                os.kill(pid, signal.SIGCONT)


def _left(backend: Any) -> int:
    """Of everything but the ticks, which go on."""
    counts = [backend.client.queue(name).counts() for name in ("tasks-high", "aio")]
    dead = [backend.client.queue(name).counts() for name in ("tasks-dead", "aio-dead")]
    return sum(int(each.visible + each.in_flight + each.delayed) for each in [*counts, *dead])


def _check_once(ledger: Ledger) -> None:
    """A join, a message of an outbox and a fire time may run again after a kill, as one and the same task."""
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for what, task_id in (line.split() for line in ledger.lines()):
        ids[what].add(task_id)
    assert {what for what in ids if what.startswith("told-")} == {f"told-{n}" for n in range(EACH)}
    twice = {what: found for what, found in ids.items() if len(found) > 1 and not what.startswith("joined-")}
    assert twice == {}
    ticks = sorted(int(what.partition("@")[2]) for what in ids if "@" in what)
    missing = set(range(ticks[0], ticks[-1], 1_000)) - set(ticks)
    assert len(missing) <= 1, "the newest may still wait"
