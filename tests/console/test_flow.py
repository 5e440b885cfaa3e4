"""The flow picture: who is drawn where, what is wide, what is stuck."""

from __future__ import annotations

import msgspec

from headrace.console import flow
from headrace.console.pages.overview import totals, warnings
from headrace.console.snapshot import Look, QueueLine, Snapshot, build
from headrace.native.protocol import BrokerStatistics
from headrace.queue.model import HolderState, QueueCounts, QueueDescription, QueueInfo, QueueSettings, Redrive, arn_of
from headrace.queue.store.base import StoreStatistics

STORE = StoreStatistics(0, 0, 0.0, 0.0, (), (), 0, 0, None, False)


def described(name: str, *, created_ms: int = 1, to: str = "", **counts: int) -> QueueDescription:
    settings = QueueSettings(redrive=Redrive(arn_of(to), 3) if to else None)
    return QueueDescription(QueueInfo(arn_of(name), settings, {}, created_ms, created_ms), QueueCounts(**counts))


def look(now_ms: int, *queues: QueueDescription, holders: tuple[HolderState, ...] = ()) -> Look:
    return Look(BrokerStatistics(now_ms, STORE), list(queues), holders=list(holders))


def holder(kind: str, **facts: object) -> HolderState:
    return HolderState(f"{kind}-1", kind, 0, 0, 0, dict(facts))


def line(name: str, **values: object) -> QueueLine:
    built = build(None, look(0, described(name)), number=1).queues[0]
    return msgspec.structs.replace(built, **values)


def test_rates_are_of_the_last_two_looks() -> None:
    before = look(1_000, described("q", sent=10, received=5, deleted=5))
    now = look(3_000, described("q", sent=30, received=15, deleted=9, visible=100, oldest_ms=1_000))
    [found] = build(before, now, number=2).queues
    assert (found.sent_rate, found.received_rate, found.deleted_rate, found.oldest_s) == (10.0, 5.0, 2.0, 2.0)
    assert found.to_empty_s is None


def test_a_queue_made_anew_and_a_broker_restarted_have_no_negative_rates() -> None:
    before = look(1_000, described("q", sent=1_000), described("r", sent=500))
    now = look(2_000, described("q", created_ms=2, sent=3), described("r", sent=7))
    assert [found.sent_rate for found in build(before, now, number=2).queues] == [0.0, 7.0]


def test_links_go_from_who_sends_to_who_takes() -> None:
    before = look(0, described("requests"), described("plain"))
    now = look(
        1_000,
        described("requests", sent=10, received=10),
        described("plain", sent=1_000, received=1),
        holders=(holder("web", produces=["requests"]), holder("worker", queues=["requests", 7, None])),
    )
    drawn = flow.draw(build(before, now, number=2))
    assert {node.name for node in drawn.producers} == {"clients", "web"}
    assert {node.name for node in drawn.consumers} == {"clients", "worker"}
    rates = {link.rate: link for link in drawn.sent}
    assert rates[1_000.0].width > rates[10.0].width and rates[1_000.0].pace > rates[10.0].pace


def test_facts_of_holders_may_be_anything() -> None:
    odd = (holder("web", produces=[["x"], {}]), holder("worker", queues="all"), holder("stream", queues={"a": 1}))
    drawn = flow.draw(build(None, look(0, described("q"), holders=odd), number=1))
    assert (drawn.producers, drawn.consumers) == ((), ())


def test_only_the_busiest_are_drawn_and_the_rest_counted() -> None:
    many = [described(f"q{number:02}", visible=number) for number in range(30)]
    drawn = flow.draw(build(None, look(0, *many), number=1))
    assert (len(drawn.queues), drawn.left_out, drawn.queues[-1].name) == (10, 20, "q29")


def test_an_empty_broker_has_a_picture() -> None:
    assert flow.draw(Snapshot()).queues == ()


def test_states_tell_what_a_queue_is_about() -> None:
    assert flow.state_of(line("q")) == "idle"
    assert flow.state_of(line("q", visible=9, received_rate=1.0, to_empty_s=5.0)) == "moving"
    assert flow.state_of(line("q", visible=9, received_rate=1.0, to_empty_s=None)) == "moving"
    assert flow.state_of(line("q", visible=9, oldest_s=9.0, received_rate=1.0, to_empty_s=None)) == "waiting"
    assert flow.state_of(line("q", visible=9, oldest_s=60.0)) == "stuck"
    assert flow.state_of(line("q-dead", visible=9, oldest_s=60.0)) == "letters"


def test_warnings_say_in_words_what_needs_somebody() -> None:
    queues = (line("emails", visible=4, oldest_s=240.0), line("emails-dead", visible=1, letters_of=("emails",)))
    snapshot = Snapshot(queues=queues)
    assert [warning["text"] for warning in warnings(snapshot)] == [
        "emails: 4 waiting, the oldest for 4m; nobody takes them.",
        "1 dead letter of emails in emails-dead.",
    ]
    assert (totals(snapshot)["waiting"], totals(snapshot)["letters"]) == (4, 1)
