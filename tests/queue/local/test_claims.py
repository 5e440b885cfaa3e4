"""Claims: what bounds them, and what their readers may count on."""

from __future__ import annotations

import pytest

from headrace.errors import ClaimRefused, InFlightLimit, InvalidParameter
from headrace.queue import limits
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState
from headrace.testing import StoreDriver, bodies, entry


def claimed(driver: StoreDriver, queue: str, number: int, *, reader: str = "r", **bounds: int) -> list[str]:
    return [one.body.decode() for one in driver.run(ops.Claim(queue, reader, number, **bounds))]


def test_claim_takes_no_more_than_may_be_in_flight(memory: StoreDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IN_FLIGHT_MAX", 3)
    queue = memory.create("q")
    memory.send_all(queue, [entry(str(number)) for number in range(5)])
    memory.receive(queue, 1)
    assert claimed(memory, queue, 1) == ["1", "2"]
    assert claimed(memory, queue, 2) == []
    assert isinstance(memory.outcome(ops.Receive(queue)), InFlightLimit)
    memory.run(ops.AcknowledgeClaims(queue, "r", 1))
    assert claimed(memory, queue, 2) == ["3", "4"]


def test_number_that_bound_nothing_binds_later(memory: StoreDriver) -> None:
    queue = memory.create("q")
    assert claimed(memory, queue, 1) == []
    assert memory.run(ops.GetClaims(queue, "r")) == ClaimState(0, 0)
    memory.send(queue, "x")
    assert claimed(memory, queue, 1) == ["x"]


@pytest.mark.parametrize("name", ["q", "q.fifo"])
def test_messages_beyond_the_bytes_are_the_next_ones_in_order(memory: StoreDriver, name: str) -> None:
    queue = memory.create(name, **({"content_dedup": True} if "." in name else {}))
    memory.send_all(queue, [entry(str(number) * 10, group="g") for number in range(5)])
    assert claimed(memory, queue, 1, bytes_max=25) == ["0" * 10, "1" * 10]
    assert claimed(memory, queue, 2, bytes_max=1) == ["2" * 10]
    assert claimed(memory, queue, 3) == ["3" * 10, "4" * 10]


@pytest.mark.parametrize("limit", [0, limits.NATIVE_BATCH_MAX + 1])
def test_limit_out_of_range_is_refused(memory: StoreDriver, limit: int) -> None:
    queue = memory.create("q")
    assert isinstance(memory.outcome(ops.Claim(queue, "r", 1, limit=limit)), InvalidParameter)


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_number_out_of_turn_binds_nothing(memory: StoreDriver, number: int) -> None:
    queue = memory.create("q")
    memory.send(queue, "x")
    assert isinstance(memory.outcome(ops.Claim(queue, "r", number)), ClaimRefused)
    assert memory.counts(queue).in_flight == 0


def test_group_goes_on_with_its_reader_whatever_others_ask_for(memory: StoreDriver) -> None:
    queue = memory.create("q.fifo", content_dedup=True)
    memory.send_all(queue, [entry("z1", group="z"), entry("a1", group="a"), entry("a2", group="a")])
    (z1,) = memory.receive(queue, 1)
    assert claimed(memory, queue, 1, limit=1) == ["a1"]
    memory.change_visibility(queue, z1.receipt, 0)
    assert claimed(memory, queue, 2, limit=1) == ["z1"]
    assert memory.receive(queue, 1) == []
    assert claimed(memory, queue, 1, reader="other") == []
    assert claimed(memory, queue, 3, limit=1) == ["a2"]


def test_released_reader_may_claim_again_from_number_one_at_once(memory: StoreDriver) -> None:
    queue = memory.create("q")
    memory.send_all(queue, [entry("1"), entry("2")])
    assert claimed(memory, queue, 1, limit=1) == ["1"]
    answers = memory.outcomes([ops.ReleaseClaims(queue, "r"), ops.Claim(queue, "r", 1, limit=1)])
    assert [one.body for one in answers[1]] == [b"2"]
    assert bodies(memory.receive(queue)) == ["1"]


def test_dead_and_expired_messages_are_not_claimed(memory: StoreDriver) -> None:
    dead = memory.create("dead")
    queue = memory.create("q", redrive={"target": dead, "receives_max": 1}, retention_ms=60_000)
    memory.send(queue, "expired")
    memory.jump(60_000)
    memory.send(queue, "dead")
    memory.receive(queue, 1, visibility_ms=0)
    memory.send(queue, "good")
    assert claimed(memory, queue, 1) == ["good"]
    assert memory.counts(dead).visible == 1
