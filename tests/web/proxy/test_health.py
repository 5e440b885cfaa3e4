"""Which upstream may get requests: the rules alone, with a clock moved by hand."""

from __future__ import annotations

from headrace.web.proxy.health import (
    OUT,
    PROBING,
    UNFIT,
    UP,
    WELL,
    Health,
    checked,
    failed,
    may_take,
    released,
    returns_in_s,
    succeeded,
    taken,
)
from headrace.web.proxy.limits import CHECKS_FAILED_MAX, FAILURES_MAX, OUT_FIRST_S, OUT_MAX_S


def out(now_s: float = 0.0) -> Health:
    return failed(WELL, now_s, unreachable=True, last=False)


def unfit() -> Health:
    health = WELL
    for _ in range(CHECKS_FAILED_MAX):
        health = checked(health, fine=False)
    return health


def test_unreachable_upstream_is_out_at_once_and_tried_by_one_request_after_its_time() -> None:
    health = out(10.0)
    assert health.state is OUT and not may_take(health, 10.0 + OUT_FIRST_S - 0.01)
    assert may_take(health, 10.0 + OUT_FIRST_S)
    probing = taken(health)
    assert probing.state is PROBING and not may_take(probing, 1_000.0)
    assert succeeded(probing) is WELL


def test_time_out_doubles_with_each_failed_probe_up_to_a_bound() -> None:
    health, now_s, outs = WELL, 0.0, []
    for _ in range(12):
        health = failed(taken(health), now_s, unreachable=True, last=False)
        outs.append(health.until_s - now_s)
        now_s = health.until_s
    assert outs[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, OUT_MAX_S] and outs[-1] == OUT_MAX_S
    assert succeeded(taken(health)) is WELL


def test_time_out_does_not_grow_while_nobody_else_is_up() -> None:
    health, now_s = WELL, 0.0
    for _ in range(5):
        health = failed(taken(health), now_s, unreachable=True, last=True)
        assert health.until_s == now_s + OUT_FIRST_S
        now_s = health.until_s


def test_only_failed_answers_in_a_row_take_an_upstream_out() -> None:
    health = WELL
    for _ in range(FAILURES_MAX - 1):
        health = failed(health, 0.0, unreachable=False, last=False)
        assert health.state is UP
    health = succeeded(health)
    assert health is WELL
    for _ in range(FAILURES_MAX):
        health = failed(health, 0.0, unreachable=False, last=False)
    assert health.state is OUT


def test_last_upstream_is_not_taken_out_by_answers_but_if_it_cannot_be_reached() -> None:
    health = WELL
    for _ in range(3 * FAILURES_MAX):
        health = failed(health, 0.0, unreachable=False, last=True)
    assert health.state is UP and health.failures == FAILURES_MAX
    assert failed(health, 0.0, unreachable=True, last=True).state is OUT


def test_probe_that_says_nothing_lets_another_one_in() -> None:
    probing = taken(out())
    assert may_take(released(probing), OUT_FIRST_S)
    assert released(WELL) is WELL


def test_what_was_sent_before_changes_nothing_while_it_is_out() -> None:
    health = out()
    assert succeeded(health) is health
    assert failed(health, 0.5, unreachable=True, last=False) is health


def test_checks_take_out_and_bring_back() -> None:
    one = checked(WELL, fine=False)
    assert one.state is UP and checked(one, fine=True) is WELL
    assert succeeded(one) == one, "requests do not excuse a failed check"
    health = unfit()
    assert health.state is UNFIT and not may_take(health, 1e9)
    assert failed(health, 0.0, unreachable=True, last=False) is health
    assert succeeded(health) is health
    assert checked(health, fine=True) is WELL
    assert checked(out(), fine=True) is WELL


def test_a_fine_check_does_not_hide_failing_answers() -> None:
    failing = failed(WELL, 0.0, unreachable=False, last=False)
    assert checked(failing, fine=True).failures == 1


def test_when_to_ask_again() -> None:
    assert returns_in_s(out(5.0), 5.25, check_interval_s=7.0) == 0.75
    assert returns_in_s(out(5.0), 50.0, check_interval_s=7.0) == 0.0
    assert returns_in_s(unfit(), 0.0, check_interval_s=7.0) == 7.0


def test_healthy_upstream_costs_no_new_record() -> None:
    assert taken(WELL) is WELL and succeeded(WELL) is WELL and checked(WELL, fine=True) is WELL
