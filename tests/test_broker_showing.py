"""What a broker of a shared store tells of itself."""

from __future__ import annotations

import platform

from headrace.broker_showing import Showing, reachable
from headrace.http.listener import Statistics
from headrace.presence import BrokerFacts, LaneFacts, read
from headrace.queue.store.base import LaneStatistics, StoreStatistics


def store(*lanes: LaneStatistics) -> StoreStatistics:
    return StoreStatistics(0, 0, 0.0, 0.0, (), (), 0, 0, None, full=False, lanes=lanes)


def test_rates_are_of_the_last_seconds() -> None:
    now_s = 100.0
    showing = Showing("http://a:1", monotonic=lambda: now_s)
    http = Statistics(accepted=3, open=2, requests=1_000, refused=0)
    showing.facts(http, store(LaneStatistics("send", 1_000, 50_000, 20.0, 0)))
    now_s += 2.0
    facts = showing.facts(
        Statistics(accepted=3, open=2, requests=1_030, refused=0),
        store(LaneStatistics("send", 1_010, 50_400, 20.05, 7)),
    )
    told = read("broker", facts)
    assert isinstance(told, BrokerFacts)
    assert (told.url, told.connections, told.requests_s) == ("http://a:1", 2, 15.0)
    assert told.lanes == [LaneFacts(lane="send", batches_s=5.0, operations_s=200.0, batch_s=0.005, waiting=7)]


def test_lane_that_did_nothing_of_late_has_no_time() -> None:
    facts = Showing("u").facts(Statistics(0, 0, 0, 0), store(LaneStatistics("settle", 5, 5, 1.0, 0)))
    assert facts["lanes"][0]["batch_s"] == facts["lanes"][0]["operations_s"] == 0


def test_address_is_one_that_others_can_use() -> None:
    assert reachable("https://10.0.0.7:9324") == "https://10.0.0.7:9324"
    assert reachable("http://0.0.0.0:9324") == reachable("http://[::]:9324") == f"http://{platform.node()}:9324"
