"""The entrance behind a real listener: clients over sockets, one of each kind of route, limits and log at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from headrace.http.exchange import Exchange
from headrace.http.fields import Fields
from headrace.http.listener import Listener
from headrace.web.frontend.request_router import RequestRouter, build
from headrace.web.settings import LimitSettings, RouteSettings, WebSettings
from tests.http.support import on_loop, split_answers


def echo(exchange: Exchange) -> None:
    told = f"{exchange.method} {exchange.root_path}|{exchange.target} {exchange.peer} {exchange.secure}\n" * 100
    exchange.respond(200, Fields.of([(b"Content-Type", b"text/plain"), (b"ETag", b'"1"')]), told.encode())


@asynccontextmanager
async def served(**changes: object) -> AsyncIterator[tuple[RequestRouter, int]]:
    settings = msgspec.structs.replace(WebSettings(app="m:app", access_log="off"), **changes)
    router = build(settings, apps={"m:app": echo})
    listener = Listener(target=router.target)
    try:
        yield router, listener.open_tcp("127.0.0.1", 0)
    finally:
        await listener.close(1.0)
        await router.close()


async def talk(port: int, data: bytes) -> bytes:
    """Everything that the server answers until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def statuses(raw: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", raw)]


@on_loop
async def test_every_kind_of_route_over_real_connections(tmp_path: Path) -> None:
    folder, log = tmp_path / "public", tmp_path / "log"
    folder.mkdir()
    (folder / "index.html").write_text("<h1>front</h1>")
    (tmp_path / "secret").write_text("secret")
    routes = (
        RouteSettings(path="/static", static=str(folder)),
        RouteSettings(path="/api", app="m:app", strip=True),
        RouteSettings(host="b.example", app="m:app", path="/b"),
    )
    async with (
        served(routes=routes, access_log=str(log), access_log_format="json", proxy_headers=True) as (router, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as client,
    ):
        answer = await client.get("/static", headers={"accept-encoding": "identity"})
        assert (answer.text, answer.url.path, answer.history[0].status_code) == ("<h1>front</h1>", "/static/", 308)
        answer = await client.post("/api/x?y=1", content=b"z" * 1_000_000, headers={"x-forwarded-for": "1.2.3.4"})
        assert answer.text.startswith("POST /api|/x?y=1 1.2.3.4 False\n")
        assert answer.headers["content-encoding"] in ("zstd", "br", "gzip")
        assert "Accept-Encoding" in answer.headers["vary"] and answer.headers["etag"] == 'W/"1"'
        answer = await client.head("/other")
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await client.get("/b", headers={"host": "B.example:1"})).status_code == 200
        raw = await talk(
            port,
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /static/../../secret HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /static/%2e%2e/secret HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /static/..%2fsecret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        assert statuses(raw) == [204, 200, 200, 404]  # the two in the middle are the app's paths
        assert b"secret\n" not in raw.replace(b"/secret ", b"")
        labels = {route: sum(map(sum, counts.methods.values())) for route, counts in router.statistics().routes.items()}
        assert labels == {"none": 1, "/static": 3, "/api": 1, "b.example/b": 1, "/": 3}
    lines = [msgspec.json.decode(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [308, 200, 200, 200, 200, 204, 200, 200, 404]
    assert [line["target"] for line in lines[:2]] == ["/static", "/static/"]
    assert (lines[2]["client"], lines[2]["target"], lines[2]["route"]) == ("1.2.3.4", "/api/x?y=1", "/api")
    assert 0 < lines[2]["sent_bytes"] < 1_000
    assert all(0 <= line["duration_s"] < 10 for line in lines)


@on_loop
async def test_a_flood_of_one_client_passes_its_burst_and_others_are_not_touched() -> None:
    limit = LimitSettings(rate="1/h", burst=50, by="header:X-Key", name="keys")
    request = b"POST /x HTTP/1.1\r\nHost: h\r\nX-Key: %d\r\nContent-Length: 3\r\n\r\nabc"
    async with served(limits=(limit,)) as (router, port):
        flood = await asyncio.gather(*(talk(port, request % 1 * 40) for _ in range(10)))
        codes = [code for raw in flood for code in statuses(raw)]
        assert (len(codes), codes.count(200), codes.count(429)) == (400, 50, 350)
        assert statuses(await talk(port, request % 2)) == [200]
        assert router.statistics().rate_limited == {"keys": 350}
        refused = split_answers(await talk(port, request % 1))[0]
        assert refused.status == 429


@on_loop
async def test_reloads_under_load_fail_no_request() -> None:
    async with served() as (router, port):
        finished = asyncio.Event()

        async def load() -> list[int]:
            return [statuses(await talk(port, b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * 20))[-1] for _ in range(10)]

        async def reload() -> int:
            count = 0
            while not finished.is_set():
                route = RouteSettings(path=f"/x{count % 3}", app="m:app", priority=count % 3)
                settings = WebSettings(
                    app="m:app", access_log="off", routes=(route,), rate_limit=f"{count + 1_000_000}/s"
                )
                router.reload(settings, apps={"m:app": echo})
                count += 1
                await asyncio.sleep(0)
            return count

        reloading = asyncio.create_task(reload())
        codes = [code for part in await asyncio.gather(*(load() for _ in range(5))) for code in part]
        finished.set()
        assert await reloading > 5
        assert codes == [200] * 50
        assert router.statistics().in_flight == 0
        assert sum(counts.methods["GET"][2] for counts in router.statistics().routes.values()) == 1_000
