"""Functions that do what functions should not: each of their tasks ends, and all others run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker_process import wait_until
from tests.work.worker_process import sender, working

pytestmark = pytest.mark.serial

TASKS = """
import ctypes, signal, sys, threading

class Mute(Exception):
    def __str__(self):
        raise SystemExit("no text")

class Cyclic(Exception):
    pass

def deep(n):
    return deep(n + 1)

class Unpickled(Exception):
    def __init__(self, a, b, c):
        super().__init__("\\udcff" * 10_000)

def forks():
    if os.fork() == 0:
        return "the fork comes back"

def cyclic():
    one, two = Cyclic("x" * 10_000_000), Cyclic("two")
    one.__cause__, two.__cause__ = two, one
    raise one

def masks():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))

def starts_threads():
    for _ in range(50):
        threading.Thread(target=time.sleep, args=(0.01,)).start()

def raises(error):
    raise error

def closes_output():
    os.close(1)
    os.close(0)

HARM = {
    "base": lambda: raises(BaseException("base")),
    "exit": lambda: sys.exit(3),
    "interrupt": lambda: raises(KeyboardInterrupt()),
    "generator exit": lambda: raises(GeneratorExit()),
    "stop": lambda: raises(StopIteration(1)),
    "mute": lambda: raises(Mute()),
    "not utf-8": lambda: raises(Unpickled(1, 2, 3)),
    "cyclic": cyclic,
    "recursion": lambda: deep(0),
    "nested": lambda: raises(ExceptionGroup("g", [ValueError("x" * 10_000)] * 1_000)),
    "retry in nonsense": lambda: raises(headrace.work.Retry("x", delay="nonsense")),
    "output": closes_output,
    "forks": forks,
    "masks": masks,
    "threads": starts_threads,
    "no json": lambda: object(),
    "not a number": lambda: {1, "x", float("nan")},
    "20 MiB": lambda: "x" * 20_000_000,
    "own cycle": lambda: (lambda made: made.append(made) or made)([]),
    "surrogates": lambda: "\\udcff",
}

@app.task(retries=1, backoff=0.01, result_ttl="1h")
def harm(what: str):
    return HARM[what]()

@app.task(queue="aio", retries=0, result_ttl="1h")
async def aharm(what: str):
    if what == "stops the loop":
        asyncio.get_running_loop().stop()
    elif what == "exits in a task of its own":
        async def leave():
            sys.exit(3)
        await asyncio.create_task(leave())
    elif what == "cancels itself":
        asyncio.current_task().cancel()
        await asyncio.sleep(0)
    else:
        return HARM[what]()

@app.task(queue="aio", retries=0, timeout=0.5, result_ttl="1h")
async def blocks():
    time.sleep(3600)

@app.task(queue="deadly", retries=0, max_worker_losses=0, result_ttl="1h")
def dies(how: str):
    if how == "exit":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "descriptors":
        os.closerange(3, 1_000)
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""

ASYNC = ("stops the loop", "base", "exit", "interrupt", "exits in a task of its own", "cancels itself")


def test_functions_that_misbehave_end_and_all_others_run(tmp_path: Path) -> None:
    with working(tmp_path, "--threads", "4", app=TASKS) as worker, sender(tmp_path, TASKS) as tasks:
        handles = {what: tasks.harm.send(what) for what in tasks.HARM}
        handles |= {f"async {what}": tasks.aharm.send(what) for what in ASYNC}
        tasks.note.send_many([(n,) for n in range(100)])
        tasks.anote.send_many([(n,) for n in range(100, 200)])
        worker.ledger.wait("ended", 200)
        assert set(worker.ledger.counts("began").values()) == {1}
        dispositions = {what: wait_until(one.outcome).status for what, one in handles.items()}
        fine = {what for what, disposition in dispositions.items() if disposition == "succeeded"}
        assert fine == {"output", "forks", "masks", "threads", "not a number", "async stops the loop"}
        assert not {"work.child.ended", "work.thread.failed", "work.lease.lost"} & set(worker.actions())
        assert worker.stop() == 0


def test_functions_that_end_their_process_are_dead_after_their_losses_and_others_run(tmp_path: Path) -> None:
    options = ("--threads", "2", "--grace", "0.5", "--drain", "2")
    with working(tmp_path, *options, app=TASKS) as worker, sender(tmp_path, TASKS) as tasks:
        handles = [tasks.dies.send(how) for how in ("exit", "segfault", "descriptors", "kill")]
        handles.append(tasks.blocks.send())
        tasks.note.send_many([(n,) for n in range(50)])
        tasks.anote.send_many([(n,) for n in range(50, 100)])
        worker.ledger.wait("ended", 100)
        dispositions = [wait_until(one.outcome) for one in handles]
        assert [disposition.status for disposition in dispositions] == ["dead"] * 5
        assert [disposition.error.type.rpartition(".")[2] for disposition in dispositions] == [
            *["WorkerLost"] * 4,
            "TimeLimitExceeded",
        ]
        assert worker.stop() == 0
