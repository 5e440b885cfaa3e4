"""Sources that are silent: their windows close by a timer that is in the store."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

import headrace
import headrace.stream as hs
from headrace.stream.pipelines import Pipeline
from headrace.stream.runner import state_keys
from headrace.stream.runner.commit import Committer
from headrace.stream.runner.job import Job, Settings
from headrace.stream.runner.runner import prepare_queues
from headrace.stream.runner.session import Session
from headrace.stream.runner.source_set import Wakeup
from headrace.stream.runner.store import BrokerStore, RetryPolicy
from tests.stream.runner.pipelines import counts, event, send, taken


class Clocked(BrokerStore):
    """Its time is moved by hand, ahead of the broker's."""

    later_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.later_ms


@pytest.fixture
def store(client: headrace.Client) -> Clocked:
    return Clocked(client, state_keys.state_name("counts"), RetryPolicy(5, threading.Event()))


def opened(client: headrace.Client, store: BrokerStore, pipeline: Pipeline | None = None) -> Session:
    pipeline = pipeline or counts(idle="1 hour")
    job = Job(pipeline.plan, pipeline.physical, Settings(until="idle"))
    prepare_queues(job, client)
    committer = Committer(store, "counts", 0, None)
    session = Session(job, store, client, committer, wakeup=Wakeup(), retry=RetryPolicy(5, threading.Event()))
    session.open()
    return session


def settled(session: Session) -> None:
    while not session.rested:
        if session.turn() is None:
            session.wait(0.05)


def test_silent_source_closes_its_windows_after_the_timeout(client: headrace.Client, store: Clocked) -> None:
    send(client, [event(1)])
    with closing(opened(client, store)) as session:
        settled(session)
        store.later_ms = 3_500_000
        assert session.turn() is None and taken(client, "out") == []
        store.later_ms = 3_600_000
        rows = session.turn()
        assert rows is not None and rows.num_rows == 1
        assert len(taken(client, "out")) == 1


def test_timer_goes_on_through_a_restart(client: headrace.Client, store: Clocked) -> None:
    send(client, [event(1)])
    with closing(opened(client, store)) as session:
        settled(session)
    store.later_ms = 3_600_000
    with closing(opened(client, store)) as session:
        rows = session.turn()
        assert rows is not None and rows.num_rows == 1


def test_windows_are_closed_once(client: headrace.Client, store: Clocked) -> None:
    send(client, [event(1)])
    with closing(opened(client, store)) as session:
        settled(session)
        store.later_ms = 3_600_000
        assert session.turn() is not None
        store.later_ms = 36_000_000
        assert session.turn() is None
        assert len(taken(client, "out")) == 1


def test_idle_pipeline_commits_nothing(client: headrace.Client, store: Clocked) -> None:
    send(client, [event(1)])
    with closing(opened(client, store)) as session:
        settled(session)
        before = client.state(state_keys.state_name("counts"))
        for _ in range(20):
            assert session.turn() is None
        assert client.state(state_keys.state_name("counts")) == before


def test_silent_source_holds_nothing_up_while_another_is_busy(client: headrace.Client, store: Clocked) -> None:
    """A backlog of one source would otherwise keep all of its windows in memory until it is done."""
    schema = "k string, ts timestamp"
    busy = hs.queue("busy", schema=schema).with_watermark("ts", delay="0 seconds")
    still = hs.queue("still", schema=schema).with_watermark("ts", delay="0 seconds", idle="1 hour")
    both = hs.sql("SELECT * FROM busy UNION ALL SELECT * FROM still", busy=busy, still=still)
    windows = hs.sql("SELECT window_start, count(*) AS n FROM both GROUP BY tumble(ts, '1 second')", both=both)
    send(client, [event(1)], "still")
    send(client, [event(1)], "busy")
    with closing(opened(client, store, hs.pipeline("counts", windows, sink=hs.queue("out")))) as session:
        settled(session)
        store.later_ms = 3_600_000
        send(client, [event(1), event(300)], "busy")
        while (rows := session.turn()) is None:
            session.wait(0.05)
        assert rows.num_rows == 1, "the first second is over in the batch in which its end came"
