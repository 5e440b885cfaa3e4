"""When requests are given ahead: the rules, bare."""

from __future__ import annotations

import pytest

from headrace.web.dispatch.limits import HOLD_BYTES, HOLD_S, TRIAL_MAX_S, TRIAL_MIN_S
from headrace.web.dispatch.prefetch_policy import PrefetchPolicy, is_repeatable, may_hold
from headrace.web.ipc.frames import Request
from headrace.web.ipc.wsgi_link import Stopwatch, stood_still_ns


def head(method: str = "GET", *, upgrade: bytes = b"", **headers: bytes) -> Request:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return Request(method, "/", named, "1.1", False, "", 0, ("", 0), upgrade, 0, "", True, False, 0.0)


@pytest.mark.parametrize(
    ("request_", "repeatable"),
    [
        (head("GET"), True),
        (head("DELETE"), True),
        (head("POST"), False),
        (head("PATCH"), False),
        (head("GET", upgrade=b"websocket"), False),
        (head("POST", idempotency_key=b"a"), True),
    ],
)
def test_what_may_be_repeated(request_: Request, repeatable: bool) -> None:
    assert is_repeatable(request_) is repeatable


def test_answer_is_held_for_a_moment_and_while_it_is_small() -> None:
    assert may_hold(held_s=HOLD_S / 2, held_bytes=100)
    assert not may_hold(held_s=HOLD_S, held_bytes=100)
    assert not may_hold(held_s=0.0, held_bytes=HOLD_BYTES)


def finish(policy: PrefetchPolicy, now_s: float, *, long: bool, times: int = 1) -> None:
    for _ in range(times):
        policy.finished(now_s, begun_s=now_s, long=long)


def test_pace_begins_fast_and_forgives_some_long_requests() -> None:
    policy = PrefetchPolicy()
    assert policy.fast
    for _ in range(100):
        finish(policy, 0.0, long=True)
        finish(policy, 0.0, long=False, times=9)
    assert policy.fast


def test_long_requests_end_it_soon() -> None:
    policy = PrefetchPolicy()
    finish(policy, 0.0, long=True, times=8)
    assert not policy.fast


def test_trials_that_fail_come_later_and_later() -> None:
    policy, now_s = PrefetchPolicy(), 100.0
    pauses: list[float] = []
    for _ in range(12):
        finish(policy, now_s, long=True, times=8)
        assert not policy.fast
        begun_s = now_s
        while not policy.fast:
            now_s += TRIAL_MIN_S
            finish(policy, now_s, long=True)
        pauses.append(now_s - begun_s)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2.1 * TRIAL_MIN_S and TRIAL_MAX_S <= pauses[-1] <= TRIAL_MAX_S + 2 * TRIAL_MIN_S


def test_trial_is_not_judged_by_what_had_begun_before() -> None:
    policy = PrefetchPolicy()
    finish(policy, 100.0, long=True, times=8)
    finish(policy, 101.0, long=True)
    for _ in range(20):
        policy.finished(101.5, begun_s=100.9, long=True)
    assert policy.fast
    finish(policy, 101.5, long=True, times=8)
    assert not policy.fast


def test_trial_that_goes_well_makes_the_next_pause_short() -> None:
    policy, now_s = PrefetchPolicy(), 100.0
    for _ in range(6):
        finish(policy, now_s, long=True, times=8)
        now_s += TRIAL_MAX_S
        finish(policy, now_s, long=False)
        assert policy.fast
    now_s += 8 * TRIAL_MAX_S
    finish(policy, now_s, long=True, times=8)
    assert not policy.fast
    finish(policy, now_s + TRIAL_MIN_S, long=True)
    assert policy.fast


def test_stopwatch_leaves_out_the_time_without_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    stood = 0

    def tell() -> int:
        return stood

    monkeypatch.setattr("headrace.web.ipc.wsgi_link.stood_still_ns", tell)
    watch = Stopwatch(0.0005)
    watch.started_s = 10.0
    assert not watch.is_long(10.0004)
    assert watch.is_long(10.003)
    stood = 2_900_000
    assert not watch.is_long(10.003)
    assert watch.is_long(10.003)  # what was told is told once


def test_standing_still_is_known_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stood_still_ns() >= 0
    monkeypatch.setattr("headrace.web.ipc.wsgi_link._PATH", "/nowhere")
    assert stood_still_ns() == 0
