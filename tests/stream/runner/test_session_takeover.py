"""Who runs a pipeline, and what one who was taken over can still do: nothing."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

import headrace
import headrace.stream as hs
from headrace.stream import limits
from headrace.stream.errors import PipelineBusy
from headrace.stream.result import Report
from headrace.stream.runner import state_keys
from headrace.stream.runner.commit import Committer, TakenOver
from headrace.stream.runner.job import Job, Settings
from headrace.stream.runner.membership import Membership
from headrace.stream.runner.runner import prepare_queues
from headrace.stream.runner.session import Session
from headrace.stream.runner.source_set import Wakeup
from headrace.stream.runner.store import BrokerStore, RetryPolicy
from tests.patience import PATIENCE_S
from tests.stream.runner.pipelines import counted, counts, event, expected_counts, send, taken


@pytest.fixture
def store(client: headrace.Client) -> BrokerStore:
    return BrokerStore(client, state_keys.state_name("counts"), RetryPolicy(5, threading.Event()))


def opened(client: headrace.Client, store: BrokerStore, membership: Membership) -> Session:
    pipeline = counts()
    job = Job(pipeline.plan, pipeline.physical, Settings(batch_rows=50, until="idle"))
    prepare_queues(job, client)
    committer = Committer(store, "counts", 0, membership.owners)
    session = Session(job, store, client, committer, wakeup=Wakeup(), retry=RetryPolicy(5, threading.Event()))
    session.open()
    return session


def turned(session: Session) -> None:
    """One batch."""
    while session.turn() is None:
        session.wait(0.05)


def test_zombie_changes_nothing_and_nothing_is_lost(client: headrace.Client, store: BrokerStore) -> None:
    """It was taken over in the middle of a batch, and comes back."""
    rows = [event(number) for number in range(400)]
    send(client, rows)
    old, new = (Membership(store, "counts", alive=lambda _: False) for _ in range(2))
    assert old.take()
    with closing(opened(client, store, old)) as zombie:
        turned(zombie)
        assert new.take(), "the other's process is dead, as far as this one knows"
        with closing(opened(client, store, new)) as session:
            turned(session)
            before = (client.state(state_keys.state_name("counts")), len(taken(client, "out")))
            with pytest.raises(TakenOver):
                turned(zombie)
            assert (client.state(state_keys.state_name("counts")), len(taken(client, "out"))) == before
            while not session.rested:
                if session.turn() is None:
                    session.wait(0.05)
        new.leave()
    counts().run(client, until="end")
    assert counted(taken(client, "out")) == expected_counts(rows)


def test_second_run_stands_by_and_takes_over(client: headrace.Client) -> None:
    """A plan that cannot be shared: it has a sink outside the broker."""
    pipeline = counts(sink=[hs.queue("out"), hs.callback(lambda *_: None)])
    rows = [event(number) for number in range(300)]
    send(client, rows)
    stops = [threading.Event(), threading.Event()]
    standing_by, running = threading.Event(), threading.Event()

    def watch_first(report: Report) -> None:
        if report.batches:
            running.set()

    def watch_second(report: Report) -> None:
        if report.standby:
            standing_by.set()

    watchers = [watch_first, watch_second]
    threads = [
        threading.Thread(target=pipeline.run, args=(client,), kwargs={"stop": stop, "on_progress": watch})
        for stop, watch in zip(stops, watchers, strict=True)
    ]
    threads[0].start()
    assert running.wait(PATIENCE_S)
    threads[1].start()
    assert standing_by.wait(PATIENCE_S)
    stops[0].set()
    threads[0].join()
    send(client, more := [event(number) for number in range(300, 600)])
    while client.queue("events").counts().deleted < 600:
        assert not stops[1].wait(0.02)
    stops[1].set()
    threads[1].join()
    counts().run(client, until="end")
    assert counted(taken(client, "out")) == expected_counts(rows + more)


def test_run_that_is_to_end_does_not_stand_by_for_ever(
    client: headrace.Client, store: BrokerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, [event(1)])
    monkeypatch.setattr(limits, "MEMBER_LOST_MS", 0)
    monkeypatch.setattr("headrace.stream.runner.membership.is_lost", lambda *_, **__: False)
    assert Membership(store, "counts").take()
    with pytest.raises(PipelineBusy, match="another process"):
        counts().run(client, until="idle")
