"""What a broker tells and asks a store that others share, over one that takes notes."""

from __future__ import annotations

from typing import Any

from headrace.clock import ManualClock
from headrace.errors import Unavailable
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.between import TellHolders
from headrace.queue.broker import Broker
from headrace.queue.holders import Holders
from headrace.queue.model import HolderState
from headrace.queue.neighbours import Neighbours, Went, merged
from headrace.queue.store.base import Done
from tests.queue.brokers import NotesStore, on_loop, running, turns

QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"


class Store:
    """Takes what it is asked, and answers when told to."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.holders = Holders()
        self.ended: list[Any] = []
        self.neighbours = Neighbours(self.holders, self.submit, self.clock, self.ended.append)
        self.asked: list[tuple[Any, Done]] = []

    def submit(self, operation: ops.Operation, done: Done) -> None:
        self.asked.append((operation, done))

    def answer(self, outcome: Any) -> TellHolders:
        """Answer the first question, and return it."""
        operation, done = self.asked.pop(0)
        done(outcome)
        assert isinstance(operation, TellHolders)
        return operation

    def come(self, name: str) -> None:
        self.holders.present(ops.Hold(name, "worker"), self.clock())
        self.neighbours.came(name)

    def go(self, name: str) -> None:
        seen_ms = self.holders.seen_ms(name)
        self.neighbours.went(name, Went(seen_ms, self.holders.gone(name)))

    def lease(self, name: str, receipt: bytes = b"r") -> None:
        self.holders.tie(name, QUEUE, [receipt], ends_ms=10**12, now=self.clock())


def told(operation: TellHolders) -> tuple[list[str], list[str]]:
    return [one.holder for one in operation.present], [name for name, _ in operation.gone]


def test_who_comes_and_goes_while_a_telling_is_on_its_way_is_told_by_the_next() -> None:
    store = Store()
    store.come("a")
    store.come("b")
    store.come("c")
    store.go("c")
    assert told(store.answer([])) == (["a"], [])
    assert told(store.answer([])) == (["b"], ["c"])
    assert store.asked == []


def test_all_are_told_again_and_again() -> None:
    store = Store()
    store.come("a")
    store.come("b")
    store.neighbours.advance()
    store.answer([])
    store.answer([])
    store.clock.advance(limits.HOLDERS_TOLD_EACH_MS)
    store.neighbours.advance()
    assert told(store.answer([])) == (["a", "b"], [])


def test_what_could_not_be_told_is_told_by_the_next() -> None:
    store = Store()
    store.come("a")
    store.answer([])
    store.go("a")
    assert told(store.answer(Unavailable("away"))) == ([], ["a"])
    assert store.asked == []  # not at once: it would be away still
    store.clock.advance(limits.HOLDERS_TOLD_EACH_MS)
    store.neighbours.advance()
    assert told(store.answer([])) == ([], ["a"])


def test_leases_of_one_that_went_end_unless_it_is_at_another_broker() -> None:
    store = Store()
    for name in ("dead", "moved"):
        store.come(name)
        store.answer([])
        store.lease(name, name.encode())
        before = list(store.ended)
        store.go(name)
        assert store.ended == before
        assert store.answer([] if name == "dead" else ["moved"]).asked == [(name, store.clock())]
    assert store.ended == [{QUEUE: [b"dead"]}]


def test_whether_one_that_went_is_elsewhere_is_asked_until_somebody_can_tell() -> None:
    store = Store()
    store.come("me")
    store.answer([])
    store.lease("me")
    store.go("me")
    store.answer(Unavailable("away"))
    assert store.ended == []
    store.clock.advance(limits.HOLDERS_TOLD_EACH_MS)
    store.neighbours.advance()
    store.answer([])
    assert store.ended == [{QUEUE: [b"r"]}]


def test_leases_of_one_that_is_back_before_it_could_be_told_go_on() -> None:
    store = Store()
    store.come("other")
    store.come("me")
    store.lease("me")
    store.go("me")
    store.come("me")
    while store.asked:
        store.answer([])
    assert store.ended == []


def test_no_grace_is_over_while_nobody_can_tell_whether_another_broker_has_the_holder() -> None:
    store = Store()
    store.lease("me")
    store.neighbours.advance()
    store.clock.advance(limits.HOLD_GRACE_MS)
    assert store.holders.due(store.clock()) == []  # the answer is not there yet
    assert store.answer(Unavailable("away")).asked == [("me", 0)]
    assert store.holders.due(store.clock()) == []
    store.clock.advance(limits.HOLDERS_TOLD_EACH_MS)
    store.neighbours.advance()
    store.answer([])
    store.clock.advance(limits.HOLD_GRACE_MS)
    assert store.holders.due(store.clock()) == ["me"]


def test_holder_that_holds_here_meanwhile_stays() -> None:
    store = Store()
    store.lease("me")
    store.neighbours.advance()
    store.holders.present(ops.Hold("me", "worker"), store.clock())
    store.clock.advance(limits.HOLD_GRACE_MS)
    store.answer([])
    assert store.holders.due(store.clock()) == []


def test_of_one_that_went_from_broker_to_broker_what_was_heard_last_is_listed() -> None:
    def state(name: str, seen_ms: int) -> HolderState:
        return HolderState(name, "worker", 0, seen_ms, 0, {})

    found = merged([state("b", 5), state("c", 1)], [state("a", 1), state("b", 4), state("c", 2)])
    assert [(one.holder, one.seen_ms) for one in found] == [("a", 1), ("b", 5), ("c", 2)]


@on_loop
async def test_the_store_that_is_the_brokers_own_is_not_asked() -> None:
    store = NotesStore()
    async with running(store) as broker:
        broker.ask(ops.Hold("me", "worker"), lambda _: None, wait_ms=1_000)
        broker._advance()
        await turns()
        assert [one.holder for one in await broker.call(ops.ListHolders())] == ["me"]
    assert store.batches == []


@on_loop
async def test_list_is_refused_while_a_shared_store_is_away() -> None:
    store = NotesStore()
    store.shared = True
    store.answer = lambda request: request.done(Unavailable("away"))
    broker = Broker(store, ManualClock())
    await broker.start()
    outcomes: list[Any] = []
    broker.ask(ops.ListHolders(), outcomes.append)
    await turns()
    await broker.stop()
    assert isinstance(outcomes[0], Unavailable)
