"""Which Host, Origin and Sec-Fetch-Site are answered."""

from __future__ import annotations

import pytest

from headrace.http.guard import ANY, find_offence, is_loopback

EXTRA = frozenset({"queue.internal", "10.1.2.3"})

LOOPBACK_HOSTS = [
    "localhost",
    "localhost:9324",
    "LOCALHOST:9324",
    "localhost.:9324",
    "sqs.us-east-1.localhost:9324",
    "us-east-1.queue.localhost",
    "queue.localhost",
    "anything.localhost",
    "127.0.0.1:9324",
    "127.255.0.9",
    "[::1]",
    "[::1]:9324",
]
FOREIGN_HOSTS = [
    "",
    "evil.example",
    "evil.example:9324",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.evil.example",
    "127.evil.example",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "10.0.0.1",
    "[::]",
    "[::ffff:10.0.0.1]",
    "::1",
    "[::1",
    "localhost:x",
    "localhost\t",
]


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
def test_loopback_hosts_are_always_answered(host: str) -> None:
    assert find_offence({b"host": host.encode()}) is None


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_foreign_hosts_are_refused(host: str) -> None:
    assert find_offence({b"host": host.encode()}) is not None
    assert find_offence({b"host": host.encode()}, frozenset({ANY})) is None


@pytest.mark.parametrize(
    "host", ["queue.internal", "QUEUE.internal:80", "sqs.eu-west-1.queue.internal", "10.1.2.3:9324"]
)
def test_allowed_hosts_and_their_service_names_are_answered(host: str) -> None:
    assert find_offence({b"host": host.encode()}, EXTRA) is None


@pytest.mark.parametrize("host", ["x.queue.internal", "sqs.a.b.queue.internal", "internal", "10.1.2.4"])
def test_other_names_below_an_allowed_host_are_refused(host: str) -> None:
    assert find_offence({b"host": host.encode()}, EXTRA) is not None


def test_request_without_host_is_no_browsers() -> None:
    assert find_offence({}) is None


@pytest.mark.parametrize(
    ("origin", "answered"),
    [
        ("http://localhost:9324", True),
        ("https://LOCALHOST:9324", True),
        ("http://queue.internal", True),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://127.0.0.1:9324", False),
        ("http://evil.example", False),
        ("http://localhost:9324.evil.example", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("chrome-extension://localhost:9324", False),
    ],
)
def test_only_pages_of_the_server_itself_or_of_allowed_hosts_may_ask(origin: str, answered: bool) -> None:
    offence = find_offence({b"host": b"localhost:9324", b"origin": origin.encode()}, EXTRA)
    assert (offence is None) is answered


def test_origin_is_checked_though_any_host_will_do() -> None:
    assert find_offence({b"host": b"a", b"origin": b"http://b"}, frozenset({ANY})) is not None
    assert find_offence({b"host": b"a", b"origin": b"http://a"}, frozenset({ANY})) is None


@pytest.mark.parametrize(
    ("site", "answered"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False), ("", False), ("NONE", False)],
)
def test_only_same_origin_fetches_and_typed_addresses_are_answered(site: str, answered: bool) -> None:
    offence = find_offence({b"host": b"localhost", b"sec-fetch-site": site.encode()})
    assert (offence is None) is answered


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("[::1]", True), ("::1", True), ("128.0.0.1", False)]
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
