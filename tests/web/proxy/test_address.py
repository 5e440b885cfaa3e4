"""Upstreams in the settings."""

from __future__ import annotations

import pytest

from headrace.settings import SettingsError
from headrace.web.check import check
from headrace.web.proxy.address import upstreams_of
from headrace.web.settings import RouteSettings, WebSettings


def test_forms() -> None:
    route = RouteSettings(proxy=("http://a:8000, https://b.example", "unix:/run/app.sock", "http://[::1]:81/"))
    plain, tls, unix, v6 = upstreams_of(route, "web.proxy")
    assert (plain.host, plain.port, plain.secure, plain.authority) == ("a", 8000, False, b"a:8000")
    assert (tls.host, tls.port, tls.secure, tls.authority) == ("b.example", 443, True, b"b.example")
    assert (unix.socket, unix.authority) == ("/run/app.sock", b"localhost")
    assert (v6.host, v6.port, v6.authority) == ("::1", 81, b"[::1]:81")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a:8000/api", "has a path"),
        ("a:8000", "is none of"),
        ("ftp://a", "is none of"),
        ("http://a:0", "port 0"),
        ("http://a:70000", "port 70000"),
        ("http://me:secret@a", "user name"),
        ("http://a\r\nX:1", "is none of"),
        ("unix:relative", "no absolute path"),
        ("", "is none of"),
    ],
)
def test_what_cannot_be_is_refused_with_the_value(url: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        upstreams_of(RouteSettings(proxy=(url,)), "web.routes[3]")
    assert "web.routes[3]" in str(refused.value) and repr(url) in str(refused.value) and reason in str(refused.value)


def test_same_upstream_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="named twice"):
        upstreams_of(RouteSettings(proxy=("http://a:1,http://a:1",)), "web.proxy")


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (RouteSettings(proxy=("http://a",), concurrency=0), "invalid concurrency 0"),
        (RouteSettings(proxy=("http://a",), health_path="health"), "invalid health_path 'health'"),
        (RouteSettings(proxy=("http://a",), health_path="/a b"), "invalid health_path '/a b'"),
        (RouteSettings(proxy=("http://a",), read_timeout=0), "invalid read_timeout 0"),
        (RouteSettings(proxy=("http://a",), connect_timeout=-1), "invalid connect_timeout -1"),
    ],
)
def test_other_settings_are_checked(route: RouteSettings, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        upstreams_of(route, "web.routes[0]")


def test_the_command_checks_before_anything_is_started() -> None:
    with pytest.raises(SettingsError, match="has a path"):
        check(WebSettings(proxy=("http://a/b",)))


def test_direct_mode_is_for_apps() -> None:
    with pytest.raises(SettingsError, match="needs an app"):
        check(WebSettings(proxy=("http://a",), direct=True))
