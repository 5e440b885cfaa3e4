"""`headrace task`: looking, calling, cancelling and retrying against a broker, with tasks that really ran."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

import pytest

from headrace.cli.task import DISPOSITIONS
from headrace.work import App
from headrace.work.settling import Disposition
from tests.cli.conftest import CommandLine
from tests.native.served import ServedBroker
from tests.work.small_worker import SmallWorker


@pytest.fixture
def app(served: ServedBroker) -> Iterator[App]:
    app = App(served.url, retries=0)
    broken = [True]

    @app.task(name="shop.add")
    def add(a: int, b: int = 1) -> int:
        return a + b

    @app.task(name="shop.fail", result_ttl="1h")
    def fail(n: int) -> int:
        if broken.pop():
            raise ValueError("out of stock")
        return n

    broken.insert(0, False)
    app.backend.prepare("tasks")
    yield app
    app.close()


def test_runs_may_be_asked_for_by_each_of_their_ends() -> None:
    assert get_args(Disposition) == DISPOSITIONS


def test_a_task_is_called_by_name_and_its_result_awaited(app: App, run: CommandLine) -> None:
    called = run("task", "call", "shop.add", "a=40", "b=2", "--keep", "1h")
    assert called.code == 0
    task_id = called.json["id"]
    waiting = run("task", "ls", "--waiting").json
    assert [(row["id"], row["state"], row["queue"]) for row in waiting] == [(task_id, "queued", "tasks")]
    shown = run("task", "show", task_id).json
    assert shown["arguments"] == {"a": 40, "b": 2}
    SmallWorker(app).run_ready()
    assert run("task", "wait", task_id, "--timeout", "5s").json["result"] == 42
    assert run("task", "show", task_id).json["status"] == "succeeded"


def test_values_are_json_or_text(app: App, run: CommandLine) -> None:
    task_id = run("task", "call", "x", "n=1", "t=ada@example.org", 'd={"a": [1]}').json["id"]
    shown = run("task", "show", task_id).json
    assert shown["arguments"] == {"n": 1, "t": "ada@example.org", "d": {"a": [1]}}
    assert run("task", "call", "x", "nothing").code == 2


def test_a_dead_task_is_listed_told_about_and_retried(app: App, run: CommandLine) -> None:
    handle = app.tasks["shop.fail"].send(7)
    worker = SmallWorker(app)
    worker.run_ready()
    [dead] = run("task", "ls", "--dead").json
    assert (dead["id"], dead["state"]) == (handle.id, "dead")
    assert dead["error"].startswith(("ValueError: ", "RuntimeError: ", "KeyError: "))
    [attempt] = run("task", "logs", handle.id).json
    assert attempt["error"] == "ValueError" and "out of stock" in attempt["traceback"]
    assert "Traceback" in run("task", "logs", handle.id, "-o", "table").out
    assert re.search(r"^arguments +\{.*7\}$", run("task", "show", handle.id, "-o", "table").out, re.MULTILINE)
    assert f" {dead['sent_at'][:19].replace('T', ' ')} " in run("task", "ls", "--dead", "-o", "table").out
    failed = run("task", "wait", handle.id)
    assert failed.code == 1 and "out of stock" in failed.err
    assert run("task", "retry", handle.id).json == {"id": handle.id, "queue": "tasks"}
    assert run("task", "ls", "--dead").json == []
    worker.run_ready()
    assert run("task", "wait", handle.id).json["result"] == 7
    again = run("task", "retry", handle.id)
    assert again.code == 1 and "among no dead letters" in again.err


def test_a_waiting_task_is_cancelled_and_an_unknown_one_asked_to_end(app: App, run: CommandLine) -> None:
    handle = app.tasks["shop.add"].options(priority=-1, delay="1h").send(1)
    assert run("task", "cancel", handle.id).json["answer"] == "cancelled"
    assert run("task", "ls", "--waiting").json == []
    assert run("task", "cancel", "0" * 32).json["answer"] == "cancel_requested"


def test_what_is_not_there_is_said_so(app: App, run: CommandLine) -> None:
    for command in ("show", "logs", "wait"):
        arguments = ("--timeout", "0s") if command == "wait" else ()
        failed = run("task", command, "nope", *arguments)
        assert failed.code == 1 and "nope" in failed.err
    assert run("task", "ls").json == []
