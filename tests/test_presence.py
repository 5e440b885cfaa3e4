from __future__ import annotations

import pytest

from headrace.presence import (
    RECENT_S,
    Facts,
    Recent,
    RouteFacts,
    WebFacts,
    about_me,
    holder_name,
    latency,
    quantile,
    read,
    write,
)

BOUNDS_S = (1.0, 2.0, 4.0)


def test_facts_come_back_as_they_were_written() -> None:
    facts = WebFacts(url="http://127.0.0.1:8000", routes=[RouteFacts(route="/", requests=3)], **about_me())
    assert read("web", write(facts)) == facts


def test_facts_of_a_newer_version_are_read_as_far_as_they_are_known() -> None:
    assert read("web", {"host": "a", "url": "u", "invented_later": 1}) == WebFacts(host="a", url="u")


def test_facts_that_do_not_fit_keep_what_every_process_tells() -> None:
    assert read("web", {"host": "a", "pid": 7, "routes": "none"}) == Facts(host="a", pid=7)


def test_facts_of_an_unknown_kind_are_plain() -> None:
    assert read("lighthouse", {"host": "a", "beam": True}) == Facts(host="a")


def test_names_of_holders_differ_and_are_of_plain_characters() -> None:
    one, other = holder_name("web"), holder_name("web")
    assert one != other
    assert set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert len(one) <= 128


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([0, 0, 0, 0], 0.5, 0.0),
        ([4, 0, 0, 0], 0.5, 0.5),
        ([0, 4, 0, 0], 0.5, 1.5),
        ([2, 2, 0, 0], 1.0, 2.0),
        ([0, 0, 0, 9], 0.5, 4.0),
    ],
)
def test_quantiles_are_linear_within_a_bucket(counts: list[int], share: float, value: float) -> None:
    assert quantile(BOUNDS_S, counts, share) == value


def test_latency_has_rising_percentiles() -> None:
    found = latency(BOUNDS_S, [50, 40, 9, 1])
    assert found.count == 100
    assert found.p50_s == 1.0
    assert found.p50_s < found.p95_s < found.p99_s <= 4.0


def test_rates_are_of_the_last_seconds_and_a_total_that_falls_counts_anew() -> None:
    recent = Recent()
    assert recent.rate_s("a") == 0.0
    for second in range(30):
        recent.note(float(second), {"a": second * 5})
    assert recent.rate_s("a") == 5.0
    assert recent.grown("a") == 5 * RECENT_S
    recent.note(30.0, {"a": 7})
    assert recent.grown("a") == 7
    assert recent.grown("unknown") == 0
