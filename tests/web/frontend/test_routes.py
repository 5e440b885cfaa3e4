"""Which route answers: hosts, paths, odd spellings of both, and what is refused when the table is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.settings import SettingsError
from headrace.web.frontend.routes import RouteTable, apps_of, host_name, routes_of
from headrace.web.paths import canonical, prefix_of, strip_prefix
from headrace.web.settings import RouteSettings, WebSettings


def table(*routes: tuple[str, str]) -> RouteTable[str]:
    """Of (host, path) pairs; what they lead to is `host path`."""
    return RouteTable((RouteSettings(host=host, path=path, app="a:b"), f"{host} {path}") for host, path in routes)


def found(routes: RouteTable[str], host: str, path: str) -> str | None:
    route = routes.find(host.encode("latin-1"), path)
    return None if route is None else route.to


HOSTS = table(
    ("", "/"),
    ("", "/deep/er"),
    ("a.example.org", "/api"),
    ("a.example.org", "/api/v2/"),
    ("*.example.org", "/"),
    ("*.b.example.org", "/"),
    ("[::1]", "/"),
)


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("a.example.org", "/api", "a.example.org /api"),
        ("a.example.org", "/api/", "a.example.org /api"),
        ("a.example.org", "/api/v1/x", "a.example.org /api"),
        ("a.example.org", "/api/v2", "a.example.org /api/v2/"),
        ("a.example.org", "/api/v2/x", "a.example.org /api/v2/"),
        ("a.example.org", "/api/v22", "a.example.org /api"),
        # An exact host's routes come first, but what they do not take, less exact ones may.
        ("a.example.org", "/apis", "*.example.org /"),
        ("A.EXAMPLE.ORG:8443", "/api", "a.example.org /api"),
        ("a.example.org.", "/api", "a.example.org /api"),
        ("x.b.example.org", "/", "*.b.example.org /"),
        ("x.y.example.org", "/", "*.example.org /"),
        ("b.example.org", "/", "*.example.org /"),
        ("example.org", "/", " /"),
        ("badexample.org", "/", " /"),
        ("example.com", "/deep/er/x", " /deep/er"),
        ("example.com", "/deep/err", " /"),
        ("[::1]:8000", "/x", "[::1] /"),
        ("", "/", " /"),
    ],
)
def test_the_most_specific_host_then_the_longest_path_wins(host: str, path: str, expected: str) -> None:
    assert found(HOSTS, host, path) == expected
    assert found(HOSTS, host, path) == expected  # from the cache


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/%61pi/x",
        "//api",
        "/./api",
        "/x/../api/y",
        "/../api",
        "/api/.",
        "/%2e/api",
        "/x/%2E%2e/api",
        "/a//..//api",
    ],
)
def test_odd_spellings_of_a_path_are_the_same_path(path: str) -> None:
    assert found(table(("", "/"), ("", "/api")), "h", path) == " /api"


@pytest.mark.parametrize("path", ["/api/..", "/api%2Fx", "/API", "/api;x", "/.api", "/..api", "/api/%2e%2e/x"])
def test_other_paths_stay_other_paths(path: str) -> None:
    assert found(table(("", "/"), ("", "/api")), "h", path) == " /"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/a%2fb", "/a%2Fb"),
        ("/%7Ea", "/~a"),
        ("/a/b/../c", "/a/c"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/../..", "/"),
        ("/a//b///c", "/a/b/c"),
        ("/a/...", "/a/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/%zz", "/%zz"),
    ],
)
def test_canonical_form(path: str, expected: str) -> None:
    assert canonical(path) == expected


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "", "%2e", "%2E%2e", "%2f", "%41", "%252e"]), max_size=8))
def test_canonical_is_idempotent_and_never_climbs(segments: list[str]) -> None:
    once = canonical("/" + "/".join(segments))
    assert canonical(once) == once
    assert once.startswith("/")
    assert not {".", ".."} & set(once.split("/"))
    assert "//" not in once


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/x", "/x"),
        ("/api/a//b", "/a//b"),
        ("/api/a%20b", "/a%20b"),
        ("/%61pi/x", "/x"),
        ("/x/../api/y", "/y"),
        ("/api/../api/y", "/y"),
        ("/api/./y", "/y"),
        ("/api/a/%2e%2e/y", "/y"),
        ("//api//y", "/y"),
    ],
)
def test_the_prefix_is_taken_off(path: str, rest: str) -> None:
    assert strip_prefix("/api", path) == rest


@given(st.lists(st.sampled_from(["api", "x", ".", "..", "", "%2e%2e", "%61pi"]), max_size=7))
def test_what_is_left_is_below_the_prefix(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    if canonical(path) == "/api" or canonical(path).startswith("/api/"):
        assert canonical("/api" + strip_prefix("/api", path)).rstrip("/") == canonical(path).rstrip("/")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"Example.ORG", "example.org"),
        (b"h:80", "h"),
        (b"[::1]:80", "[::1]"),
        (b"[::1]", "[::1]"),
        (b"h.", "h"),
        (b"", ""),
    ],
)
def test_host_name(header: bytes, name: str) -> None:
    assert host_name(header) == name


def test_a_single_route_for_everything_is_not_searched() -> None:
    routes = table(("", "/"))
    assert routes.only is not None
    assert found(routes, "whatever", "/../x") == " /"
    assert table(("", "/api")).only is None
    assert table(("h", "/")).only is None


def test_a_host_without_any_route_is_known_as_such() -> None:
    routes = table(("a.example.org", "/api"), ("*.example.com", "/"))
    assert found(routes, "a.example.org", "/") is None
    assert routes.serves(b"a.example.org")
    assert routes.serves(b"x.example.com:80")
    assert not routes.serves(b"example.com")
    assert not routes.serves(b"")


def test_invented_hosts_do_not_fill_the_memory() -> None:
    routes = table(("a.example.org", "/"), ("", "/"))
    for number in range(5_000):
        routes.find(b"h%d" % number, "/")
    assert len(routes._cache) <= 1_024


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a.x", "b.x", "*.x", "*.a.x"]), st.sampled_from(["/", "/p", "/p/q", "/r"])),
        unique=True,
    ),
    st.sampled_from(["a.x", "b.x", "c.a.x", "x", "y"]),
    st.sampled_from(["/", "/p", "/p/q", "/p/q/r", "/pq", "/r/s"]),
)
def test_the_table_agrees_with_a_simple_search(routes: list[tuple[str, str]], host: str, path: str) -> None:
    def rank(route: tuple[str, str]) -> tuple[int, int]:
        name, prefix = route
        return (2 if "*" not in name else 1) * 100 + len(name) if name else 0, len(prefix)

    def takes(route: tuple[str, str]) -> bool:
        name, prefix = route
        fits = not name or name == host or (name.startswith("*") and host.endswith(name[1:]))
        return fits and (prefix in ("/", path) or path.startswith(prefix + "/"))

    best = max(filter(takes, routes), key=rank, default=None)
    assert found(table(*routes), host, path) == (None if best is None else f"{best[0]} {best[1]}")


# Building


def test_routes_are_those_configured_and_what_app_answers() -> None:
    api = RouteSettings(path="/api", app="api:app")
    assert routes_of(WebSettings(app="m:app", routes=(api,))) == (api, RouteSettings(app="m:app"))
    assert routes_of(WebSettings(routes=(api,))) == (api,)
    assert routes_of(WebSettings(proxy=("http://a:1",))) == (RouteSettings(proxy=("http://a:1",)),)
    assert apps_of(WebSettings(app="m:app", routes=(api, RouteSettings(path="/b", app="m:app")))) == (
        "api:app",
        "m:app",
    )


def test_a_folder_is_served_as_static_files(tmp_path: Path) -> None:
    settings = WebSettings(app=str(tmp_path), cache_control="max-age=60", index=True)
    assert routes_of(settings) == (RouteSettings(static=str(tmp_path), cache_control="max-age=60", index=True),)
    assert apps_of(settings) == ()


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (RouteSettings(), "this has none"),
        (RouteSettings(app="a:b", static="x"), "this has app and static"),
        (RouteSettings(app="a:b", host="h:80"), "invalid host 'h:80'"),
        (RouteSettings(app="a:b", host="a.*.org"), "invalid host"),
        (RouteSettings(app="a:b", host="http://x"), "invalid host"),
        (RouteSettings(app="a:b", path="api"), "'api' is not a path"),
        (RouteSettings(app="a:b", path="/a?b"), "is not a path"),
        (RouteSettings(app="a:b", path="/a b"), "is not a path"),
        (RouteSettings(app="a:b", path=""), "is not a path"),
        (RouteSettings(app="a:b", priority=3), "invalid priority 3"),
    ],
)
def test_a_route_that_cannot_be_is_refused_with_its_place(route: RouteSettings, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"^web\.routes\[1\]: ") as raised:
        routes_of(WebSettings(routes=(RouteSettings(path="/ok", app="a:b"), route)))
    assert reason in str(raised.value)


def test_nothing_to_serve_is_refused() -> None:
    with pytest.raises(SettingsError, match="nothing to serve"):
        routes_of(WebSettings())
    with pytest.raises(SettingsError, match="both an app"):
        routes_of(WebSettings(app="a:b", proxy=("http://a",)))


@pytest.mark.parametrize(("first", "second"), [("/api", "/api/"), ("/api", "/%61pi"), ("/", "/")])
def test_two_routes_of_the_same_host_and_path_are_refused_naming_both(first: str, second: str) -> None:
    routes = (RouteSettings(host="H", path=first, app="a:x"), RouteSettings(host="h", path=second, static="pub"))
    with pytest.raises(SettingsError) as raised:
        RouteTable((route, None) for route in routes)
    text = str(raised.value)
    assert "web.routes[1]" in text and "web.routes[0]" in text and "(a:x)" in text and "(pub)" in text


def test_labels_are_as_configured() -> None:
    assert [route.label for route in HOSTS.routes][:4] == ["/", "/deep/er", "a.example.org/api", "a.example.org/api/v2"]
    assert prefix_of("/") == ""
