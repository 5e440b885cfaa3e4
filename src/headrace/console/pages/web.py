"""Web servers: requests by route, what waits and what is shed, workers, upstreams, durable requests."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import figures
from headrace.console.charts import chart, latency_charts
from headrace.console.page import Facts, NotFound, Page, PageContext, PageRequest
from headrace.console.snapshot import Snapshot
from headrace.presence import WebFacts
from headrace.queue.model import HolderState


async def facts(context: PageContext, request: PageRequest) -> Facts:  # noqa: ARG001 - a page is given what was asked
    snapshot = context.snapshot()
    servers = figures.webs(snapshot)
    told = [one for _, one in servers]
    routes = figures.route_lines(snapshot)
    return {
        "totals": totals(told, routes),
        "routes": [route_facts(context, line) for line in routes if line.requests],
        "shed": figures.summed(one.shed for one in told),
        "limited": figures.summed(one.limited for one in told),
        "servers": [server_facts(*pair) for pair in servers],
        "workers": [worker_facts(server, one) for server in told for one in server.workers],
        "upstreams": [msgspec.structs.asdict(one) for server in told for one in server.upstreams],
        "durable": durable(snapshot, told),
        "charts": [
            *charts(context, "web"),
            chart(context, "In the server", "requests", ("web/waiting", "waiting"), ("web/in_flight", "in flight")),
        ],
    }


async def route_page(context: PageContext, request: PageRequest) -> Facts:
    name = request.names["route"]
    line = next((line for line in figures.route_lines(context.snapshot()) if line.route == name), None)
    if line is None:
        raise NotFound(f"no web server that is present has had a request for a route {name!r}; see /web")
    return {"route": route_facts(context, line), "charts": charts(context, f"route/{name}")}


def charts(context: PageContext, series: str) -> list[dict[str, Any]]:
    """Rates and latencies of a route, or of all."""
    shed = [("web/shed", "shed")] if series == "web" else []
    requests = chart(context, "Requests", "a second", (f"{series}/requests", "requests"), *shed)
    return [requests, *latency_charts(context, series, running="With a worker")]


def totals(told: list[WebFacts], routes: list[figures.RouteLine]) -> dict[str, Any]:
    """All servers together."""
    requests = sum(one.requests for one in told)
    shed = sum(sum(one.shed.values()) for one in told)
    return {
        "requests_s": sum(one.requests_s for one in told),
        "shed_s": sum(one.shed_s for one in told),
        "shed_share": shed / requests if requests else 0.0,
        "waiting": sum(one.queue_length for one in told),
        "oldest_wait_s": max((one.oldest_wait_s for one in told), default=0.0),
        "in_flight": sum(one.in_flight for one in told),
        "connections": sum(one.connections for one in told),
        "redelivered": sum(one.redelivered for one in told),
        "failed": sum(one.failed for one in told),
        "hung": sum(one.hung for one in told),
        "restarts": sum(one.restarts for one in told),
        "wait": msgspec.structs.asdict(figures.together(line.wait for line in routes)),
        "run": msgspec.structs.asdict(figures.together(line.run for line in routes)),
    }


def route_facts(context: PageContext, line: figures.RouteLine) -> dict[str, Any]:
    recent = context.history.recent(f"route/{line.route}/requests", until_s=context.now_s())
    return {**msgspec.structs.asdict(line), **latencies(line), "recent": recent, "shares": shares(line.statuses)}


def latencies(line: figures.RouteLine) -> dict[str, Any]:
    return {name: msgspec.structs.asdict(getattr(line, name)) for name in ("total", "wait", "run")}


def shares(statuses: dict[str, int]) -> list[dict[str, Any]]:
    """Status classes side by side: where each begins and how wide it is, of 100."""
    whole = sum(statuses.values()) or 1
    found, at = [], 0.0
    for name, number in statuses.items():
        width = 100 * number / whole
        found.append({"name": name, "count": number, "x": round(at, 2), "width": round(width, 2)})
        at += width
    return found


def server_facts(holder: HolderState, told: WebFacts) -> dict[str, Any]:
    return {
        "holder": holder.holder,
        "host": told.host,
        "pid": told.pid,
        "url": told.url,
        "apps": told.apps,
        "ready": told.ready,
        "requests_s": told.requests_s,
        "connections": told.connections,
        "workers": len(told.workers),
        "generation": told.generation,
        "restarts": told.restarts,
        "rss_bytes": told.rss_bytes,
    }


def worker_facts(server: WebFacts, one: Any) -> dict[str, Any]:
    return {**msgspec.structs.asdict(one), "host": server.host}


def durable(snapshot: Snapshot, told: list[WebFacts]) -> list[dict[str, Any]]:
    """The queues of durable requests: what waits, what runs, what has failed for good."""
    found = []
    for name in sorted({one.durable_queue for one in told if one.durable_queue}):
        line = snapshot.queue(name)
        if line is None:
            continue
        dead = snapshot.queue(line.dead_letters or f"{name}-dead")
        found.append(
            {
                "queue": name,
                "waiting": line.visible,
                "running": line.in_flight,
                "retrying": line.delayed,
                "oldest_s": line.oldest_s,
                "done_s": line.deleted_rate,
                "failed": dead.depth if dead is not None else 0,
                "dead_queue": dead.name if dead is not None else "",
            }
        )
    return found


PAGES: Final = (
    Page("/web", "web.html", facts, section="web"),
    Page("/web/routes/{route}", "route.html", route_page, section="web"),
)
