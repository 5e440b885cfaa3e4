"""News fits into notifications, whatever there is to tell, and nothing that others write breaks a node."""

from pathlib import Path

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.queue.store.postgres.news import BUSY_MAX_S, PACE_MAX_S, PAYLOAD_BYTES_MAX, News, pace_s, payloads, read
from headrace.queue.store.postgres.upkeep import MEASURE_EACH_MS
from tests.patience import PATIENCE_S
from tests.queue.postgres.nodes import node


def test_little_news_is_one_notification() -> None:
    (payload,) = payloads("n", [1, 2], [("name", b"key")], catalog=True)
    assert read(payload) == News("n", [1, 2], [("name", b"key")], catalog=True)


def test_much_news_is_several_notifications_that_hold_it_all() -> None:
    queues, state = list(range(5_000)), [(f"name{number}", b"k" * 500) for number in range(40)]
    told = payloads("n", queues, state, catalog=False)
    assert all(len(payload.encode()) <= PAYLOAD_BYTES_MAX for payload in told)
    news = [one for payload in told if (one := read(payload)) is not None]
    assert len(news) == len(told)
    assert sorted(queue for one in news for queue in one.queues) == queues
    assert sorted(key for one in news for key in one.state) == sorted(state)


def test_foreign_notification_is_no_news() -> None:
    assert read("hello") is None
    assert read('{"node": 1}') is None


def test_few_nodes_tell_at_once_and_many_seldom() -> None:
    assert pace_s(2, batch_s=0.001) == pytest.approx(0.004)
    assert pace_s(10, batch_s=0.001) == pytest.approx(0.0075)
    assert pace_s(1_000, batch_s=0.001) > PACE_MAX_S


def test_busy_nodes_tell_seldom_but_soon_enough() -> None:
    assert pace_s(2, batch_s=0.01) == pytest.approx(0.04)
    assert pace_s(2, batch_s=5.0) == BUSY_MAX_S


def test_node_among_many_tells_once_and_leaves_the_rest_to_those_who_look_but_not_the_catalogue(tmp_path: Path) -> None:
    store = node(tmp_path, ManualClock(1_700_000_000_000))
    store._shared.known.nodes = 1_000
    with psycopg.connect(store._shared.url, autocommit=True) as listener:
        listener.execute("LISTEN headrace")
        for queue in (1, 2, 3):
            store._teller.tell([queue], [], catalog=False)
        store._teller._next_s = 0.0
        store._teller.tell([], [], catalog=True)
        store._teller.tell([4], [], catalog=False)
        told = [read(one.payload) for one in listener.notifies(timeout=PATIENCE_S, stop_after=2)]
    assert [(one.queues, one.catalog) for one in told if one is not None] == [([1], False), ([], True)]
    store.close()


def test_node_learns_how_many_there_are(tmp_path: Path) -> None:
    clock = ManualClock(1_700_000_000_000)
    nodes = [node(tmp_path, clock) for _ in range(3)]
    for one in nodes:
        one.advance()
    clock.advance(MEASURE_EACH_MS)
    nodes[0].advance()
    assert nodes[0]._shared.known.nodes == 3
    for one in nodes:
        one.close()
