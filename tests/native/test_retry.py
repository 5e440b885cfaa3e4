from __future__ import annotations

import pytest

from headrace.errors import HeadraceError, OutcomeUnknown, QueueNotFound, StoreFailed, StoreFull, Unavailable
from headrace.native.retry import PAUSE_MAX_S, REMEMBERED_S, Attempts, repeatable
from headrace.queue import operations as ops
from headrace.queue.model import Entry

SEND = ops.Send("q", [Entry(b"x")])
GET = ops.GetQueue("q")


@pytest.mark.parametrize(
    "operation",
    [
        SEND,
        ops.Send("q", [Entry(b"x", dedup_id="d"), Entry(b"y")]),
        ops.Receive("q"),
        ops.Transact(),
        ops.Purge("q"),
        ops.StartMove("q"),
        ops.CancelMove("h"),
        ops.DeleteQueue("q"),
        ops.ChangeVisibility("q", [(b"r", 5), (b"s", 0)]),
        ops.Subscribe("t", "q", after=0),
        ops.Subscribe("t", "q", since_ms=0),
        ops.Subscribe("t", "q", purge=True),
        ops.DeleteTopic("t"),
    ],
)
def test_what_could_be_done_twice_is_not_repeated_when_its_outcome_is_unknown(operation: ops.Operation) -> None:
    attempts = Attempts(operation, now_s=0, patience_s=100)

    assert not repeatable(operation)
    with pytest.raises(OutcomeUnknown):
        attempts.pause_s(OutcomeUnknown("cut"), now_s=0, chance=0)


@pytest.mark.parametrize(
    "operation",
    [
        GET,
        ops.Delete("q", [b"r"]),
        ops.Send("q", [Entry(b"x", dedup_id="d")]),
        ops.Receive("q", attempt_id="a"),
        ops.ChangeVisibility("q", [(b"r", 5)]),
        ops.Claim("q", "r", 1),
        ops.CreateQueue("q"),
        ops.CreateTopic("t"),
        ops.Subscribe("t", "q", {"kind": ["a"]}),
        ops.Subscribe("t", "q", after=0, purge=True, if_absent=True),
        ops.Unsubscribe("t", "q"),
    ],
)
def test_what_is_the_same_done_twice_is_repeated(operation: ops.Operation) -> None:
    attempts = Attempts(operation, now_s=0, patience_s=100)

    assert attempts.pause_s(OutcomeUnknown("cut"), now_s=0, chance=0) > 0


def test_unavailable_means_nothing_was_done_so_everything_is_tried_again() -> None:
    attempts = Attempts(SEND, now_s=0, patience_s=100)

    assert attempts.pause_s(Unavailable("down"), now_s=0, chance=0) > 0


def test_pauses_grow_to_a_bound_with_jitter() -> None:
    attempts = Attempts(GET, now_s=0, patience_s=1_000)
    full = [attempts.pause_s(Unavailable("down"), now_s=0, chance=1) for _ in range(10)]
    half = Attempts(GET, now_s=0, patience_s=1_000).pause_s(Unavailable("down"), now_s=0, chance=0)

    assert full[:3] == [0.05, 0.1, 0.2]
    assert full[-1] == PAUSE_MAX_S
    assert half == full[0] / 2


def test_patience_ends_with_the_error() -> None:
    attempts = Attempts(GET, now_s=10, patience_s=1)

    attempts.pause_s(Unavailable("down"), now_s=10.5, chance=0)
    with pytest.raises(Unavailable, match="down"):
        attempts.pause_s(Unavailable("down"), now_s=10.99, chance=0)


def test_without_patience_the_first_error_is_the_last() -> None:
    with pytest.raises(Unavailable):
        Attempts(GET, now_s=0, patience_s=0).pause_s(Unavailable("down"), now_s=0, chance=0)


@pytest.mark.parametrize("later", [Unavailable("down"), StoreFull("/data"), StoreFailed("the disk broke")])
def test_once_unknown_no_error_of_the_store_says_that_nothing_was_done(later: HeadraceError) -> None:
    attempts = Attempts(ops.Send("q", [Entry(b"x", dedup_id="d")]), now_s=0, patience_s=1)

    attempts.pause_s(OutcomeUnknown("cut"), now_s=0, chance=0)
    with pytest.raises(OutcomeUnknown, match="cut"):
        attempts.pause_s(later, now_s=1, chance=0)


def test_what_may_be_done_is_not_repeated_when_its_id_may_be_forgotten() -> None:
    attempts = Attempts(ops.Send("q", [Entry(b"x", dedup_id="d")]), now_s=0, patience_s=10_000)

    attempts.pause_s(Unavailable("down"), now_s=5_000, chance=0)
    attempts.pause_s(OutcomeUnknown("cut"), now_s=5_000, chance=0)
    attempts.pause_s(OutcomeUnknown("cut"), now_s=5_100, chance=0)
    with pytest.raises(OutcomeUnknown, match="cut"):
        attempts.pause_s(Unavailable("down"), now_s=5_000 + REMEMBERED_S, chance=0)


def test_other_errors_are_final() -> None:
    error: HeadraceError = QueueNotFound("q")
    with pytest.raises(QueueNotFound):
        Attempts(GET, now_s=0, patience_s=100).pause_s(error, now_s=0, chance=0)
