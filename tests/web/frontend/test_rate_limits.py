"""Token buckets: what passes, what waits and for how long, whose bucket it is, and how much memory they take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.settings import SettingsError
from headrace.web.frontend.rate_limits import RateLimit, RateLimits, client_of, parse_rate
from headrace.web.settings import LimitSettings


def limit(
    rate: str = "10/s", *, burst: int = 0, by: str = "address", path: str = "/", clients_max: int = 1_000
) -> RateLimit:
    return RateLimit(
        LimitSettings(rate=rate, burst=burst, by=by, path=path), place="web.limits[0]", clients_max=clients_max
    )


def passed(bucket: RateLimit, count: int, now_s: float, key: str = "a") -> int:
    return sum(bucket.take(key, now_s) == 0 for _ in range(count))


def test_a_burst_passes_and_the_next_waits_for_its_token() -> None:
    bucket = limit("10/s", burst=5)
    assert passed(bucket, 8, 100.0) == 5
    assert bucket.take("a", 100.0) == pytest.approx(0.1)
    assert bucket.take("a", 100.05) == pytest.approx(0.05)
    assert bucket.take("a", 100.1) == 0
    assert bucket.take("a", 100.1) == pytest.approx(0.1)


def test_clients_have_buckets_of_their_own() -> None:
    bucket = limit(burst=1)
    assert [bucket.take(key, 1.0) == 0 for key in ("a", "b", "a", "b")] == [True, True, False, False]


def test_refused_requests_cost_nothing() -> None:
    bucket = limit("1/s", burst=1)
    passed(bucket, 1_000, 0.0)
    assert bucket.take("a", 1.0) == 0


@pytest.mark.parametrize(("rate", "burst"), [("100/s", 100), ("600/m", 10), ("5000/h", 1), ("1/d", 1), ("30/m", 1)])
def test_without_a_burst_it_is_one_seconds_and_at_least_one(rate: str, burst: int) -> None:
    assert limit(rate).burst == burst
    assert passed(limit(rate), burst + 5, 7.0) == burst


@settings(max_examples=50)
@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_never_more_than_burst_and_rate_allow(rate: int, burst: int, gaps: list[float]) -> None:
    bucket = limit(f"{rate}/s", burst=burst)
    now_s, times = 50.0, []
    for gap in gaps:
        now_s += gap
        if bucket.take("a", now_s) == 0:
            times.append(now_s)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * rate + 1e-6


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2)), min_size=1, max_size=200))
def test_forgetting_full_buckets_changes_nothing(requests: list[tuple[str, float]]) -> None:
    """Against a bucket that forgets nothing."""
    bucket, now_s = limit("4/s", burst=3), 10.0
    full_s: dict[str, float] = {}
    for key, gap in requests:
        now_s += gap
        then_s = max(full_s.get(key, now_s), now_s) + 0.25
        expected = then_s - now_s <= 0.75 + 1e-9
        if expected:
            full_s[key] = then_s
        assert (bucket.take(key, now_s) == 0) == expected


def test_buckets_that_are_full_again_are_forgotten() -> None:
    bucket = limit("10/s", burst=10)
    for number in range(500):
        bucket.take(f"k{number}", 1.0)
    bucket.take("x", 2.5)
    bucket.take("x", 4.5)
    assert bucket.clients <= 2


def test_many_addresses_do_not_grow_the_memory_and_active_clients_are_kept() -> None:
    bucket = limit("1/m", burst=2, clients_max=100)
    assert passed(bucket, 3, 0.0, "busy") == 2
    for number in range(10_000):
        bucket.take(f"k{number}", 1.0)
        assert bucket.clients <= 200
        if number % 50 == 0:
            assert bucket.take("busy", 1.0) > 0


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
        ("unix", "unix"),
        ("a:b:c", "a:b:c"),
    ],
)
def test_ipv6_clients_are_counted_by_network(peer: str, client: str) -> None:
    assert client_of(peer) == client
    assert limit().key({}, peer) == client


def test_a_header_names_the_client_and_without_it_the_address_does() -> None:
    bucket = limit(by="header:X-Api-Key")
    assert bucket.key({b"x-api-key": b"k1"}, "192.0.2.1") == b"k1"
    assert bucket.key({}, "192.0.2.1") == "192.0.2.1"
    assert bucket.key({b"x-api-key": b""}, "192.0.2.1") == "192.0.2.1"
    long = bucket.key({b"x-api-key": b"k" * 10_000}, "192.0.2.1")
    assert isinstance(long, bytes) and len(long) == 16
    assert long != bucket.key({b"x-api-key": b"k" * 9_999}, "192.0.2.1")


def test_a_limit_covers_its_path_however_it_is_spelled() -> None:
    limits = RateLimits([limit("1/s", path="/login")])

    def denied(path: str) -> bool:
        return limits.find_denial({}, peer="a", path=path, now_s=1.0) is not None

    assert [denied(path) for path in ("/", "/loginx", "/login", "/login", "/login/x")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert [denied(path) for path in ("/%6cogin", "//login", "/x/../login", "/login/x/../")] == [True] * 4


def test_every_limit_must_let_it_pass_and_the_refusal_says_which() -> None:
    slow = RateLimit(LimitSettings(rate="60/m", burst=2, name="per key", by="header:x-key"), place="")
    limits = RateLimits([limit("100/s"), slow])
    assert [limits.find_denial({b"x-key": b"k"}, peer="a", path="/", now_s=0.0) is None for _ in range(3)] == [
        True,
        True,
        False,
    ]
    denial = limits.find_denial({b"x-key": b"k"}, peer="a", path="/", now_s=0.0)
    assert denial is not None
    assert (denial.limit, denial.retry_after_s, denial.rate) == ("per key", 1, "60/m")
    assert dict(denial.headers) == {
        b"Retry-After": b"1",
        b"RateLimit": b'"per key";r=0;t=1',
        b"RateLimit-Policy": b'"per key";q=60;w=60',
    }


@pytest.mark.parametrize(
    ("text", "value"), [("100/s", (100, 1)), ("600 / m", (600, 60)), (" 5000/h ", (5000, 3600)), ("1/d", (1, 86_400))]
)
def test_rates(text: str, value: tuple[int, int]) -> None:
    assert parse_rate(text, "place") == value


@pytest.mark.parametrize(
    "text", ["", "100", "0/s", "-1/s", "1.5/s", "100/w", "s/100", "100/s;", "١/s", "9" * 10 + "/s"]
)
def test_what_is_no_rate_is_refused_with_value_and_form(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^place: .*100/s") as raised:
        parse_rate(text, "place")
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (LimitSettings(rate="1/s", burst=-1), "invalid burst -1"),
        (LimitSettings(rate="1/s", by="cookie"), "header:X-Api-Key"),
        (LimitSettings(rate="1/s", by="header:a b"), "header:X-Api-Key"),
        (LimitSettings(rate="1/s", name='a"b'), "name"),
        (LimitSettings(rate="1/s", path="login"), "is not a path"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(wrong: LimitSettings, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"^web\.limits\[3\]: ") as raised:
        RateLimit(wrong, place="web.limits[3]")
    assert reason in str(raised.value)
