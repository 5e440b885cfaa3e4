"""The worker as a user runs it: real processes, a real broker, and a ledger that tasks write."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from headrace.native.endpoint import is_served
from headrace.testing.ports import free_port
from tests.broker_process import broker, run_command, wait_until
from tests.work.worker_process import APP, runs, sender, working

AT_ONCE_S = 30.0  # by their leases tasks would be begun anew after a minute


def test_every_task_runs_once_and_is_in_the_run_log(tmp_path: Path) -> None:
    with working(tmp_path, "--processes", "2", "--threads", "3") as worker, sender(tmp_path) as tasks:
        tasks.note.send_many([(n,) for n in range(500)])
        for n in range(500, 520):
            tasks.anote.send(n)
        worker.ledger.wait("ended", 520)
        assert set(worker.ledger.counts("ended").values()) == {1}
        done = wait_until(
            lambda: [run for run in runs(tasks.app) if run.status == "succeeded"][519:] and runs(tasks.app)
        )
        assert {run.task for run in done} == {"tasks.note", "tasks.anote"}
        assert all(run.enqueued_ms <= run.started_ms + 1_000 and run.started_ms <= run.ended_ms for run in done)
        assert worker.stop() == 0
    assert not is_served(tmp_path / "data")


def test_term_finishes_what_runs_and_leaves_the_rest_in_the_broker(tmp_path: Path) -> None:
    with working(tmp_path, "--threads", "2", "--drain", "20") as worker:
        with sender(tmp_path) as tasks:
            go = tmp_path / "go"
            tasks.until.send_many([(n, str(go)) for n in range(10)])
            worker.ledger.wait("began", 2)
            worker.signal(signal.SIGTERM)
            worker.wait_for("work.draining")
            go.touch()
        assert worker.wait_end() == 0
        assert worker.ledger.counts("began") == worker.ledger.counts("ended")
        assert len(worker.ledger.counts("ended")) == 2
    with working(tmp_path) as worker:
        worker.ledger.wait("ended", 10)
        assert set(worker.ledger.counts("began").values()) == {1}


def test_task_that_outlives_the_drain_is_begun_anew_at_once_and_counts_no_attempt(tmp_path: Path) -> None:
    app = """
@app.task(retries=0)
def once(path: str) -> None:
    write("began 1")
    while not os.path.exists(path):
        time.sleep(0.005)
    write("ended 1")
"""
    with working(tmp_path, "--drain", "0.2", app=app) as worker:
        with sender(tmp_path) as tasks:
            tasks.once.send(str(tmp_path / "go"))
            worker.ledger.wait("began", 1)
        assert worker.stop() == 0
        assert "work.drain.cut" in worker.actions()
    (tmp_path / "go").touch()
    with working(tmp_path) as worker:
        worker.ledger.wait("ended", 1, within_s=AT_ONCE_S)
        assert worker.ledger.counts("began") == {1: 2}


def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with working(tmp_path) as worker:
        with sender(tmp_path) as tasks:
            tasks.until.send(1, "never")
            worker.ledger.wait("began", 1)
        worker.signal(signal.SIGINT)
        worker.wait_for("work.stopping")
        worker.signal(signal.SIGINT)
        assert worker.wait_end() == 1


def test_hup_brings_new_code_and_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with working(tmp_path, "--processes", "2") as worker, sender(tmp_path) as tasks:
        before = worker.children()
        tasks.note.send_many([(n, 0.01) for n in range(300)])
        worker.ledger.wait("ended", 10)
        (tmp_path / "tasks.py").write_text(APP.replace('f"ended {n}"', 'f"new {n}"'), encoding="utf-8")
        worker.signal(signal.SIGHUP)
        worker.wait_for("work.reloaded")
        assert not set(before) & set(worker.children())
        tasks.note.send_many([(n,) for n in range(300, 310)])
        wait_until(lambda: len(worker.ledger.counts("ended")) + len(worker.ledger.counts("new")) == 310)
        assert set(worker.ledger.counts("began").values()) == {1}
        assert set(range(300, 310)) <= set(worker.ledger.counts("new"))


def test_new_code_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    with working(tmp_path) as worker, sender(tmp_path) as tasks:
        before = worker.children()
        (tmp_path / "tasks.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
        worker.signal(signal.SIGHUP)
        assert "nothing_of_that_name" in worker.wait_for("work.reload.failed")["message"]
        tasks.note.send(1)
        worker.ledger.wait("ended", 1)
        assert worker.children() == before


def test_app_that_cannot_be_loaded_is_told_and_ends_it(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    with working(tmp_path, ready=False) as worker:
        assert "nothing_of_that_name" in worker.wait_for("work.start.failed")["message"]
        assert worker.wait_end() == 1


def test_no_app_is_a_usage_error(tmp_path: Path) -> None:
    done = run_command([sys.executable, "-m", "headrace", "worker"], cwd=tmp_path)
    assert done.returncode == 2
    assert "headrace worker module:app" in done.stderr


def test_processes_are_added_and_removed_by_signals(tmp_path: Path) -> None:
    with working(tmp_path) as worker:
        worker.signal(signal.SIGTTIN)
        wait_until(lambda: len(worker.children()) == 2)
        worker.signal(signal.SIGTTOU)
        wait_until(lambda: len(worker.children()) == 1)


def test_killed_child_is_named_with_its_tasks_and_they_run_elsewhere_at_once(tmp_path: Path) -> None:
    app = """
@app.task
def fatal() -> None:
    write("began 1")
    if len((HERE / "ledger").read_text().splitlines()) == 1:
        os.kill(os.getpid(), 9)
    write("ended 1")
"""
    with working(tmp_path, "--processes", "2", app=app) as worker, sender(tmp_path, app) as tasks:
        tasks.fatal.send()
        ended = worker.wait_for("work.child.ended")
        assert "SIGKILL" in ended["message"]
        assert "tasks.fatal" in ended["message"]
        worker.ledger.wait("ended", 1, within_s=AT_ONCE_S)
        (run,) = wait_until(lambda: [run for run in runs(tasks.app) if run.status == "succeeded"])
        assert run.attempt == 2


def test_time_limit_is_raised_in_the_function_and_others_go_on(tmp_path: Path) -> None:
    app = """
@app.task(timeout=1, retries=0)
def spin() -> None:
    try:
        while True:
            time.sleep(0.01)
    except headrace.work.TimeLimitExceeded:
        write("ended 1")
        raise
"""
    with working(tmp_path, app=app) as worker, sender(tmp_path, app) as tasks:
        before = worker.children()
        tasks.spin.send()
        tasks.note.send(2, 1.5)
        worker.ledger.wait("ended", 2)
        (run,) = wait_until(lambda: [run for run in runs(tasks.app) if run.status == "dead"])
        assert "TimeLimitExceeded: it ran longer than 1 s" in run.error
        assert worker.children() == before


def test_function_that_does_not_obey_its_limit_has_failed_and_its_process_is_replaced(tmp_path: Path) -> None:
    app = """
@app.task(timeout=1, retries=0)
def deaf() -> None:
    write("began 1")
    time.sleep(600)
"""
    with working(tmp_path, "--grace", "0.2", app=app) as worker, sender(tmp_path, app) as tasks:
        before = worker.children()
        tasks.deaf.send()
        worker.ledger.wait("began", 1)
        assert "tasks.deaf" in worker.wait_for("work.child.leaving")["message"]
        wait_until(lambda: worker.children() and not set(before) & set(worker.children()))
        (run,) = wait_until(lambda: [run for run in runs(tasks.app) if run.task == "tasks.deaf"])
        assert (run.status, run.attempt) == ("dead", 1)


def test_process_that_hangs_is_replaced(tmp_path: Path) -> None:
    with working(tmp_path, "--watchdog", "4") as worker, sender(tmp_path) as tasks:
        (child,) = wait_until(worker.children)
        os.kill(child, signal.SIGSTOP)
        worker.wait_for("work.child.stalled")
        tasks.note.send(1)
        worker.ledger.wait("ended", 1)
        assert child not in worker.children()


def test_process_is_replaced_after_so_many_tasks(tmp_path: Path) -> None:
    with working(tmp_path, "--max-tasks", "5") as worker, sender(tmp_path) as tasks:
        tasks.note.send_many([(n,) for n in range(8)])
        worker.wait_for("work.child.leaving")
        worker.ledger.wait("ended", 8)
        wait_until(lambda: "work.child.working" in worker.actions()[-3:] or len(worker.children()) == 1)
        assert set(worker.ledger.counts("began").values()) == {1}


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    with working(tmp_path, "--processes", "2", "--drain", "1") as worker:
        worker.process.kill()
        worker.wait_end()
    assert not is_served(tmp_path / "data")


def test_heartbeat_file_is_touched_while_polls_succeed(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    with working(tmp_path, "--heartbeat", str(beat)):
        wait_until(beat.exists)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_batch_consumer_takes_lists(tmp_path: Path, kind: str) -> None:
    app = f"""
@app.consumer("orders", batch=50)
{kind} orders(bodies: list[dict]) -> None:
    for body in bodies:
        write(f"ended {{body['n']}}")
"""
    with working(tmp_path, app=app) as worker, sender(tmp_path, app) as tasks:
        queue = tasks.app.backend.client.queue("orders")
        queue.send_many([f'{{"n": {n}}}' for n in range(200)])
        worker.ledger.wait("ended", 200)
        assert set(worker.ledger.counts("ended").values()) == {1}


def test_metrics_tell_what_was_done_and_survive_the_process_that_did_it(tmp_path: Path) -> None:
    port = free_port()
    with working(tmp_path, "--metrics-port", str(port)) as worker, sender(tmp_path) as tasks:
        worker.port = port

        def told(line: str) -> bool:
            status, body = worker.get("/metrics")
            return status == 200 and line in body.decode().splitlines()

        tasks.note.send_many([(n,) for n in range(20)])
        done = 'headrace_tasks_ended_total{task="tasks.note",outcome="succeeded"} 20'
        wait_until(lambda: told(done))
        worker.signal(signal.SIGHUP)
        worker.wait_for("work.reloaded")
        assert told(done)
        assert told('headrace_work_processes{state="working"} 1')
        wait_until(lambda: worker.get("/health/ready")[0] == 200)


def test_process_that_grows_is_replaced(tmp_path: Path) -> None:
    app = """
kept = []

@app.task
def grow() -> None:
    kept.append(bytearray(b"x") * 250_000_000)
"""
    with working(tmp_path, "--max-rss", "200MiB", app=app) as worker, sender(tmp_path, app) as tasks:
        before = worker.children()
        tasks.grow.send()
        assert "MiB" in worker.wait_for("work.child.leaving")["message"]
        wait_until(lambda: worker.children() and not set(before) & set(worker.children()))
        assert [run.status for run in runs(tasks.app)] == ["succeeded"]


@pytest.mark.parametrize("name", ["until", "anote"])
def test_running_task_that_is_cancelled_ends_and_is_not_begun_again(tmp_path: Path, name: str) -> None:
    with working(tmp_path) as worker, sender(tmp_path) as tasks:
        handle = tasks.until.send(1, "never") if name == "until" else tasks.anote.send(1, 600)
        worker.ledger.wait("began", 1)
        assert handle.cancel() == "cancel_requested"
        (run,) = wait_until(lambda: runs(tasks.app))
        assert run.status == "cancelled"
        assert worker.ledger.counts("began") == {1: 1}


def test_worker_shows_itself_to_the_broker_with_what_it_runs(tmp_path: Path) -> None:
    with working(tmp_path) as worker, sender(tmp_path) as tasks:
        tasks.until.send(1, "never")
        worker.ledger.wait("began", 1)
        client = tasks.app.backend.client

        def shown() -> list[str]:
            return [run["task"] for holder in client.holders("worker") for run in holder.facts["running"]]

        assert wait_until(shown) == ["tasks.until"]
        (holder,) = client.holders("worker")
        assert holder.leases == 1
        assert holder.facts["pid"] in worker.children()
        assert holder.facts["queues"][-3:] == ["tasks-high", "tasks", "tasks-low"]


def test_worker_that_starts_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with working(tmp_path, "--broker", f"unix://{data}/headrace.sock", ready=False) as worker:
        wait_until(worker.children)
        with broker(data), sender(tmp_path) as tasks:
            worker.wait_ready()
            tasks.note.send(1)
            worker.ledger.wait("ended", 1)
            assert worker.stop() == 0


def test_tasks_of_a_fifo_group_run_one_after_another_in_order_also_through_retries(tmp_path: Path) -> None:
    app = """
@app.task(queue="steps.fifo", group=lambda n: f"g{n % 2}", retries=3, backoff=0.01)
def step(n: int) -> None:
    write(f"began {n}")
    if n % 5 == 0 and not (HERE / f"failed-{n}").exists():
        (HERE / f"failed-{n}").touch()
        write(f"failed {n}")
        raise ValueError("the first attempt fails")
    write(f"ended {n}")
"""
    with working(tmp_path, "--processes", "2", "--threads", "4", app=APP + app) as worker, sender(tmp_path) as tasks:
        tasks.step.send_many([(n,) for n in range(40)])
        worker.ledger.wait("ended", 40)
        assert worker.stop() == 0
    for group in (0, 1):
        lines = [line.split() for line in worker.ledger.lines()]
        mine = [(word, int(n)) for word, n in lines if int(n) % 2 == group]
        expected: list[tuple[str, int]] = []
        for n in range(group, 40, 2):
            expected += [("began", n), ("failed", n)] if n % 5 == 0 else []
            expected += [("began", n), ("ended", n)]
        assert mine == expected
