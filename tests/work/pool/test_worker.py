"""A child's threads together: what they tell of themselves."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headrace.work.app import App
from headrace.work.broker_backend import BrokerBackend
from headrace.work.pool.in_flight import RUNNING, InFlightTask
from headrace.work.pool.limits import SHOWN_MAX
from headrace.work.pool.shared_status import SharedStatus
from headrace.work.pool.task_stats import TASKS_MAX
from headrace.work.pool.worker import Worker
from headrace.worker_settings import WorkerSettings


def test_broker_takes_the_facts_of_a_worker_however_much_it_does(tmp_path: Path) -> None:
    app = App(backend=BrokerBackend(tmp_path))
    descriptor = SharedStatus.make()
    try:
        names = [f"{number:080}" for number in range(TASKS_MAX)]
        tasks = [app.task(name=name)(lambda: None) for name in names]
        worker = Worker(
            app, app.backend, SharedStatus(descriptor), WorkerSettings(app="shop:app"), on_leave=lambda _: None
        )
        for task in tasks:
            task.send()
        for queue, deliveries in app.backend.receive(["tasks"], TASKS_MAX, visibility_ms=60_000, wait_s=0):
            for delivery in deliveries:
                held = InFlightTask(app.open_job(queue, delivery), time.monotonic())
                held.stage = RUNNING
                worker._in_flight.add(held)
        worker.facts()  # latencies are of what has ended since
        for number, name in enumerate(names):
            for _ in range(number):
                worker.stats.note(name, "succeeded", failed=False, wait_s=0.012_3, run_s=0.34)
        facts = worker.facts()
        app.backend.hold(worker.holder, "worker", facts, wait_s=0)
        assert len(facts["running"]) == SHOWN_MAX
        assert [told["task"] for told in facts["tasks"]] == names[: -SHOWN_MAX - 1 : -1]  # the busiest
    finally:
        os.close(descriptor)
        app.close()
