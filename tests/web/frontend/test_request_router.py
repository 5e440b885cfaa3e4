"""The entrance as a whole: what is done to a request before somebody answers it, what is counted, and reloads."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from headrace.http.exchange import Exchange, Target
from headrace.http.fields import Fields
from headrace.settings import SettingsError
from headrace.web.frontend.access_log import AccessLog, LogUnusable
from headrace.web.frontend.request_router import RequestRouter, build
from headrace.web.settings import LimitSettings, RouteSettings, WebSettings
from tests.http.support import on_loop
from tests.web.fakes import FakeExchange

QUIET = WebSettings(app="m:app", access_log="off")


class App:
    """Answers with what it was given."""

    def __init__(self, body: bytes = b"ok", content_type: bytes = b"text/plain") -> None:
        self.body = body
        self.content_type = content_type
        self.seen: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        exchange.respond(200, Fields.of([(b"Content-Type", self.content_type)]), self.body)


class Held:
    """Answers when the test wants it."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []

    def __call__(self, exchange: Exchange) -> None:
        self.seen.append(exchange)


def make_router(
    settings: WebSettings = QUIET, *, now_s: Callable[[], float] = lambda: 100.0, **apps: Target
) -> RequestRouter:
    return build(settings, apps={"m:app": App(), **{f"m:{name}": app for name, app in apps.items()}}, now_s=now_s)


def changed(settings: WebSettings = QUIET, **changes: object) -> WebSettings:
    return msgspec.structs.replace(settings, **changes)


def ask(router: RequestRouter, target: str = "/", **arguments: object) -> FakeExchange:
    exchange = FakeExchange("GET", target, began_s=99.0)
    for name, value in arguments.items():
        setattr(exchange, name, value)
    if "host" in arguments:
        exchange.headers[b"host"] = str(arguments["host"]).encode()
    router.target(exchange)
    return exchange


# Routes


@on_loop
async def test_a_single_app_gets_everything_as_it_came() -> None:
    app = App()
    exchange = ask(make_router(app=app), "/a/%2e%2e//b?c=d")
    assert app.seen == [exchange]
    assert (exchange.path, exchange.target, exchange.root_path) == ("/a/%2e%2e//b", "/a/%2e%2e//b?c=d", "")
    assert (exchange.route, exchange.priority, exchange.text) == ("/", 1, "ok")


@on_loop
async def test_routes_lead_to_their_apps_with_priority_and_mount_point() -> None:
    main, api = App(), App()
    settings = changed(
        root_path="/outer/",
        routes=(RouteSettings(host="api.example.org", path="/v1", app="m:api", strip=True, priority=0),),
    )
    router = make_router(settings, app=main, api=api)
    exchange = ask(router, "/v1/items?x=1", host="API.example.org:80")
    assert api.seen == [exchange]
    assert (exchange.root_path, exchange.path, exchange.target) == ("/outer/v1", "/items", "/items?x=1")
    assert (exchange.route, exchange.priority) == ("api.example.org/v1", 0)
    assert ask(router, "/v1?", host="api.example.org").target == "/?"
    exchange = ask(router, "/v1/items")
    assert main.seen == [exchange]
    assert (exchange.root_path, exchange.path, exchange.priority) == ("/outer", "/v1/items", 1)


@on_loop
async def test_what_no_route_takes_is_told_apart_from_a_host_that_is_not_here() -> None:
    router = make_router(WebSettings(access_log="off", routes=(RouteSettings(host="h", path="/api", app="m:app"),)))
    missing, foreign = ask(router, "/", host="h"), ask(router, "/api", host="other")
    assert (missing.status, missing.problem["type"], missing.route) == (404, "not-found", "none")
    assert (foreign.status, foreign.problem["type"]) == (421, "unknown-host")
    assert router.statistics().routes["none"].methods["GET"] == [0, 0, 0, 0, 2, 0]


@pytest.mark.parametrize("settings", [QUIET, changed(routes=(RouteSettings(path="/x", app="m:app"),))])
@on_loop
async def test_options_of_the_server_itself_is_answered_here(settings: WebSettings) -> None:
    app = App()
    exchange = FakeExchange("OPTIONS", "*")
    make_router(settings, app=app).target(exchange)
    assert (exchange.status, bytes(exchange.body), app.seen) == (204, b"", [])


@on_loop
async def test_a_folder_is_a_mount(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "index.html").write_text("front page")
    router = make_router(changed(root_path="/outer", routes=(RouteSettings(path="/static", static=str(tmp_path)),)))
    assert ask(router, "/static/a.txt").text == "hello"
    assert ask(router, "/static/").text == "front page"
    assert ask(router, "/%73tatic/a.txt").text == "hello"
    assert ask(router, "/static/b.txt").status == 404
    exchange = ask(router, "/static?x=1")
    assert (exchange.status, exchange.header("location")) == (308, "/outer/static/?x=1")
    assert ask(router, "/static/../m").text == "ok"
    assert make_router(WebSettings(app=str(tmp_path), access_log="off"))._only is not None


# Compression


@on_loop
async def test_answers_of_apps_are_compressed_if_the_client_wants_it() -> None:
    body = b"word " * 1_000
    router = make_router(app=App(body))
    plain, packed = ask(router), FakeExchange(headers={"accept-encoding": "gzip"})
    router.target(packed)
    assert plain.body == body
    assert packed.header("content-encoding") == "gzip"
    assert gzip.decompress(packed.body) == body
    assert router.statistics().routes["/"].sent_bytes == len(body) + len(packed.body)
    off = FakeExchange(headers={"accept-encoding": "gzip"})
    make_router(changed(compress=False), app=App(body)).target(off)
    assert off.body == body


# Proxies in front


@on_loop
async def test_trusted_proxies_say_who_the_client_is() -> None:
    headers = {"x-forwarded-for": "1.2.3.4:5", "x-forwarded-proto": "https", "x-forwarded-port": "443"}
    believing = make_router(changed(proxy_headers=True))
    exchange = FakeExchange(headers=headers, peer="127.0.0.1")
    believing.target(exchange)
    assert (exchange.peer, exchange.peer_port, exchange.secure) == ("1.2.3.4", 5, True)
    assert exchange.server == ("127.0.0.1", 443)
    for router, peer in ((believing, "192.0.2.1"), (make_router(), "127.0.0.1")):
        exchange = FakeExchange(headers=headers, peer=peer)
        router.target(exchange)
        assert (exchange.peer, exchange.secure) == (peer, False)


@on_loop
async def test_host_of_forwarded_decides_the_route() -> None:
    other = App()
    settings = changed(proxy_headers=True, routes=(RouteSettings(host="b.example", app="m:other"),))
    router = make_router(settings, other=other)
    exchange = FakeExchange(headers={"forwarded": "for=1.2.3.4;host=b.example"}, peer="unix")
    router.target(exchange)
    assert other.seen == [exchange]
    assert exchange.headers[b"host"] == b"b.example"


@on_loop
async def test_a_proxy_route_passes_nothing_on_that_a_client_says_about_who_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    monkeypatch.setattr("headrace.web.frontend.request_router._new_target", lambda *_: app)
    router = make_router(changed(app="", proxy=("http://a",), proxy_headers=True))
    claims = {
        "x-forwarded-for": "1.2.3.4",
        "forwarded": "for=1.2.3.4",
        "x-real-ip": "1.2.3.4",
        "x-forwarded-host": "evil",
    }
    for peer, client in (("192.0.2.1", "192.0.2.1"), ("127.0.0.1", "1.2.3.4")):
        exchange = FakeExchange(headers={**claims, "x-other": "kept"}, peer=peer)
        router.target(exchange)
        assert sorted(exchange.headers) == [b"host", b"x-other"]
        assert exchange.peer == client


# Limits


@on_loop
async def test_one_request_too_many_is_told_when_to_come_again() -> None:
    now = [100.0]
    app = App()
    settings = changed(limits=(LimitSettings(rate="60/m", burst=2, path="/login", name="login"),))
    router = make_router(settings, now_s=lambda: now[0], app=app)
    assert [ask(router, "/login").status for _ in range(3)] == [200, 200, 429]
    exchange = ask(router, "/login")
    assert exchange.header("retry-after") == "1"
    assert exchange.header("ratelimit") == '"login";r=0;t=1'
    assert exchange.header("ratelimit-policy") == '"login";q=60;w=60'
    assert exchange.problem["limit"] == "login"
    assert ask(router, "/").status == 200
    assert ask(router, "/login", peer="192.0.2.2").status == 200
    now[0] += 1
    assert ask(router, "/login").status == 200
    assert router.statistics().rate_limited == {"login": 2}
    assert len(app.seen) == 5


@on_loop
async def test_clients_behind_a_trusted_proxy_are_limited_each() -> None:
    router = make_router(changed(proxy_headers=True, rate_limit="1/s"))

    def status(client: str) -> int:
        exchange = FakeExchange(headers={"x-forwarded-for": client}, peer="127.0.0.1")
        router.target(exchange)
        return exchange.status

    assert [status("1.1.1.1"), status("2.2.2.2"), status("1.1.1.1"), status("6.6.6.6, 1.1.1.1")] == [200, 200, 429, 429]


# The durable hook


@on_loop
async def test_durable_requests_are_taken_before_the_app_and_come_back_by_dispatch() -> None:
    app, taken = App(), []

    def durable(exchange: Exchange) -> bool:
        if exchange.method == "POST":
            taken.append((exchange, exchange.target))
            exchange.respond(202, Fields())
        return exchange.method == "POST"

    settings = changed(rate_limit="1/s", routes=(RouteSettings(path="/api", app="m:app", strip=True),))
    router = build(settings, apps={"m:app": app}, durable=durable, now_s=lambda: 1.0)
    posted = FakeExchange("POST", "/api/x?y")
    router.target(posted)
    assert (posted.status, posted.route, app.seen) == (202, "/api", [])
    assert taken == [(posted, "/api/x?y")]  # as it came, so that it finds its route again
    again = FakeExchange("POST", "/api/x?y")
    router.dispatch(again)
    assert (again.status, again.path, again.root_path) == (200, "/x", "/api")
    statistics = router.statistics()
    assert statistics.routes["/api"].methods["POST"] == [0, 0, 1, 0, 0, 0]
    assert statistics.in_flight == 0


@on_loop
async def test_status_pages_of_durable_requests_need_no_route() -> None:
    def durable(exchange: Exchange) -> bool:
        if exchange.path.startswith("/.headrace/"):
            exchange.respond(200, Fields(), b"queued")
        return exchange.answered

    settings = WebSettings(access_log="off", routes=(RouteSettings(host="h", path="/api", app="m:app"),))
    router = build(settings, apps={"m:app": App()}, durable=durable)
    assert ask(router, "/.headrace/requests/1").text == "queued"
    assert ask(router, "/other").status == 421


# Counting


@on_loop
async def test_every_request_is_counted_once_when_it_comes_and_once_when_it_is_done() -> None:
    held = Held()
    router = make_router(app=held)
    exchanges = [FakeExchange(method, began_s=99.0) for method in ("GET", "BREW", "POST", "HEAD")]
    for exchange in exchanges:
        router.target(exchange)
    assert router.statistics().in_flight == 4
    exchanges[0].respond(204, Fields())
    exchanges[1].start(500, Fields())
    exchanges[1].send(b"12345")
    exchanges[1].abort()
    exchanges[2].leave()
    exchanges[3].abort()
    counts = router.statistics().routes["/"]
    assert router.statistics().in_flight == 0
    assert counts.methods["GET"] == [0, 0, 1, 0, 0, 0]
    assert counts.methods["other"] == [0, 0, 0, 0, 0, 1]
    assert counts.methods["POST"] == [0, 0, 0, 0, 1, 0]  # 499
    assert counts.methods["HEAD"] == [1, 0, 0, 0, 0, 0]
    assert (counts.sent_bytes, counts.seconds.count, counts.seconds.sum_s) == (5, 3, 3.0)


@on_loop
async def test_statistics_are_a_copy() -> None:
    router = make_router()
    before = router.statistics()
    ask(router)
    assert before.routes["/"].methods["GET"][2] == 0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(before), type=type(before)) == before


@on_loop
async def test_each_request_is_logged_as_its_client_asked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = changed(
        access_log=str(path),
        proxy_headers=True,
        routes=(RouteSettings(path="/api", app="m:app", strip=True),),
    )
    router = make_router(settings)
    router.target(FakeExchange(target="/api/x?y", peer="127.0.0.1", headers={"x-forwarded-for": "1.2.3.4"}))
    path.rename(tmp_path / "log.1")
    router.reopen()
    ask(router, "/z")
    await router.close()
    assert "1.2.3.4 - - " in (tmp_path / "log.1").read_text()
    assert '"GET /api/x?y HTTP/1.1" 200 2' in (tmp_path / "log.1").read_text()
    assert '"GET /z HTTP/1.1" 200 2' in path.read_text()


@on_loop
async def test_what_belongs_to_the_loop_is_taken_from_a_log_there_before_a_thread_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = AccessLog.flush
    threads: list[int] = []

    def noted(log: AccessLog) -> None:
        if log._timer is not None:
            threads.append(threading.get_ident())
        flush(log)

    monkeypatch.setattr(AccessLog, "flush", noted)
    router = make_router(changed(access_log=str(tmp_path / "a")))
    ask(router)
    router.reload(changed(access_log=str(tmp_path / "b")), apps={"m:app": App()})
    ask(router)
    await router.close()
    assert threads == [threading.get_ident()] * 2
    assert (tmp_path / "b").read_text().count("\n") == 1


# Reload


@on_loop
async def test_a_reload_changes_over_and_keeps_what_has_not_changed(tmp_path: Path) -> None:
    old, new = App(), App()
    static = RouteSettings(path="/s", static=str(tmp_path))
    limit = LimitSettings(rate="1/h", path="/once")
    settings = changed(routes=(static,), limits=(limit,))
    router = make_router(settings, app=old)
    ask(router, "/once")
    before = list(router._target_of.values())
    router.reload(
        changed(settings, routes=(static, RouteSettings(path="/n", app="m:new"))), apps={"m:app": old, "m:new": new}
    )
    assert list(router._target_of.values()) == before
    assert ask(router, "/once").status == 429
    assert ask(router, "/n").status == 200
    assert len(new.seen) == 1
    router.reload(QUIET, apps={"m:app": new})
    assert ask(router, "/once").status == 200
    assert router.statistics().routes["/"].methods["GET"][2] == 2
    await router.close()


@on_loop
async def test_requests_in_flight_survive_a_reload() -> None:
    held = Held()
    settings = changed(routes=(RouteSettings(path="/old", app="m:held"),))
    router = make_router(settings, held=held)
    exchange = ask(router, "/old")
    router.reload(QUIET, apps={"m:app": App()})
    exchange.respond(200, Fields())
    assert router.statistics().routes["/old"].methods["GET"][2] == 1


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (changed(app="m:other"), "web.app: the app m:other is not running"),
        (changed(routes=(RouteSettings(path="/x", static="/no/such/folder"),)), r"web.routes\[0\]: .*/no/such/folder"),
        (changed(routes=(RouteSettings(app="m:app"),)), r"web.routes\[1\]: .*web.routes\[0\]"),
        (changed(rate_limit="many"), "--rate-limit: invalid rate 'many'"),
        (changed(limits=(LimitSettings(rate="1/s"), LimitSettings(rate="x"))), r"web.limits\[1\]: invalid rate 'x'"),
        (changed(proxy_headers=True, trusted_proxies=("x",)), "web.trusted_proxies: 'x'"),
        (changed(root_path="x"), "web.root_path: 'x'"),
    ],
)
@on_loop
async def test_settings_that_cannot_be_used_change_nothing(wrong: WebSettings, place: str) -> None:
    app = App()
    router = make_router(app=app)
    with pytest.raises(SettingsError, match=f"^{place}"):
        router.reload(wrong, apps={"m:app": app})
    assert ask(router).status == 200
    with pytest.raises(SettingsError, match=f"^{place}"):
        make_router(wrong, app=app)


@on_loop
async def test_a_log_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    router = make_router(changed(access_log=str(path)))
    with pytest.raises(LogUnusable):
        router.reload(changed(access_log=str(tmp_path / "no" / "log"), app="m:new"), apps={"m:new": App()})
    ask(router)
    await router.close()
    assert path.read_text().count("\n") == 1


@on_loop
async def test_targets_are_ticked_and_closed() -> None:
    class Upstream:
        def __init__(self) -> None:
            self.ticks: list[float] = []
            self.closed = asyncio.Event()

        def __call__(self, exchange: Exchange) -> None: ...

        def advance(self, now_s: float) -> None:
            self.ticks.append(now_s)

        async def close(self) -> None:
            self.closed.set()

    router, first, second = make_router(), Upstream(), Upstream()
    route = RouteSettings(path="/p", proxy=("http://a",))
    router._target_of = {(route, True, 1, 1.0): first}
    router.advance(5.0)
    router.reload(QUIET, apps={"m:app": App()})
    await first.closed.wait()
    router._target_of = {(route, True, 1, 1.0): second}
    await router.close()
    assert (first.ticks, second.closed.is_set()) == ([5.0], True)
