"""The backend on a real broker: over HTTP, and in this process; the same app in one as in the other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from headrace.queue.model import arn_of
from headrace.work import App, Handle, NoBroker
from headrace.work.broker_backend import BrokerBackend
from tests.broker_process import broker
from tests.patience import PATIENCE_S
from tests.work.small_app import build


@pytest.fixture(params=["http", "folder"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "data")
        return
    with broker(tmp_path / "data") as process:
        yield process.url


def test_tasks_are_sent_run_and_answered(target: str) -> None:
    app, did = build(broker=target)
    with app:
        handle = app.tasks["add"].send(1)
        handles = app.tasks["add"].send_many((n,) for n in range(50))
        assert app.tasks["add"].options(unique="k").send(9).duplicate is False
        assert app.tasks["add"].options(unique="k").send(9).duplicate is True
        app.tasks["fail"].options(retries=0).send()
        dispositions = [run.disposition for run in app.run_pending()]
        assert (dispositions.count("succeeded"), dispositions.count("dead")) == (52, 1)
        assert len(did) == 53
        assert (handle.result(0), handles[-1].result(0)) == (3, 51)
        assert handle.status() == "succeeded"


def test_queues_are_made_for_tasks_with_their_dead_letters_queue(target: str) -> None:
    app, _ = build(broker=target)
    with app:
        app.tasks["add"].send(1)
        client = app.backend.client  # type: ignore[attr-defined] # the broker's, as this test made it
        made = client.queue("tasks").settings()
        assert (made.retention, made.visibility_timeout, made.dead_letter) == (14 * 86_400, 60, "tasks-dead")
        assert client.queue("tasks-dead").settings().retention == 14 * 86_400


def test_a_queue_that_is_there_keeps_its_settings(target: str) -> None:
    with headrace.connect(target) as client:
        client.queue("tasks", create=True, retention=3_600)
    app, _ = build(broker=target)
    with app:
        app.tasks["add"].send(1)
        app.backend.prepare("tasks")
        client = app.backend.client  # type: ignore[attr-defined] # as above
        assert client.queue("tasks").settings().retention == 3_600


def test_a_waiting_result_comes_as_soon_as_it_is_there(target: str) -> None:
    app, _ = build(broker=target)
    with app:
        handle = app.tasks["add"].send(1)
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(handle.result(PATIENCE_S)))
        waiter.start()
        app.run_pending()
        waiter.join()
        assert results == [3]


def test_async_senders_do_not_block_the_loop(target: str) -> None:
    app, _ = build(broker=target)

    async def main() -> tuple[list[Handle[int]], int]:
        turns = 0
        done = asyncio.Event()

        async def count() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        handles = await asyncio.gather(*(app.tasks["add"].asend(n) for n in range(50)))
        done.set()
        await counter
        async with app.transaction():
            await app.tasks["add"].asend(100)
        app.run_pending()
        assert [await handle.aresult(5) for handle in handles] == [n + 2 for n in range(50)]
        assert await handles[0].astatus() == "succeeded"
        assert await handles[0].acancel() == "finished"
        return handles, turns

    with app:
        handles, turns = asyncio.run(main())
    assert len({handle.id for handle in handles}) == 50
    assert turns > 50


def test_a_handle_is_made_again_in_another_process(target: str, tmp_path: Path) -> None:
    app, _ = build(broker=target)
    with app:
        handle = app.tasks["add"].send(1)
        app.run_pending()
    again, _ = build(broker=target)
    with again:
        assert again.handle(handle.id).result(0) == 3


def test_a_closed_app_connects_again(target: str) -> None:
    app, _ = build(broker=target)
    app.tasks["add"].send(1)
    app.close()
    app.close()
    app.tasks["add"].send(2)
    assert len(app.run_pending()) == 2
    app.close()


def test_an_app_that_knows_no_broker_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_BROKER", raising=False)
    app, _ = build()
    with pytest.raises(NoBroker, match="HEADRACE_BROKER"):
        app.tasks["add"].send(1)


def test_the_broker_of_the_environment_is_used_when_none_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADRACE_BROKER", str(tmp_path / "data"))
    app, _ = build()
    with app:
        app.tasks["add"].send(1)
        assert len(app.run_pending()) == 1


def test_ten_lines_do(tmp_path: Path) -> None:
    script = tmp_path / "sums.py"
    script.write_text(
        textwrap.dedent(
            """
            import headrace

            app = headrace.App("./data")

            @app.task
            def add(a: int, b: int) -> int:
                print(a + b)
                return a + b

            if __name__ == "__main__":
                add.send(1, 2)
                add(3, 4)
            """
        )
    )
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert (ran.stdout, ran.stderr) == ("7\n", "")
    with headrace.connect(tmp_path / "data") as client:
        [message] = client.queue("tasks").peek()
        assert message.json()["task"] == "sums.add"  # as a worker that imports sums knows it


def test_names_of_sibling_queues_and_dead_letters() -> None:
    from headrace.work import names

    assert names.in_order("tasks") == ["tasks-high", "tasks", "tasks-low"]
    assert names.in_order("tasks.fifo") == ["tasks.fifo"]
    assert {names.dead(queue) for queue in names.in_order("tasks")} == {"tasks-dead"}
    assert names.dead("tasks.fifo") == "tasks-dead.fifo"
    assert [names.base(queue) for queue in ("a-high-low", "a-high.fifo", "high")] == ["a-high", "a-high.fifo", "high"]
    assert [names.is_dead(queue) for queue in ("tasks-dead", "tasks-dead.fifo", "tasks")] == [True, True, False]


def test_two_tasks_of_one_name_are_an_error() -> None:
    app = App()
    app.task(name="same")(_one)
    app.task(name="same")(_one)  # the module was loaded again
    with pytest.raises(headrace.CallerError, match="another task of this name"):
        app.task(name="same")(_two)


def test_a_backend_over_a_client_of_ones_own(tmp_path: Path) -> None:
    with headrace.connect(tmp_path / "data") as client:
        backend = BrokerBackend(client)
        assert backend.message_state("tasks", 1) is None
        backend.hold("worker-1", "worker", {}, wait_s=0)
        assert client.queue("tasks").arn == arn_of("tasks")


def _one() -> None: ...
def _two() -> int:
    return int(time.time())
