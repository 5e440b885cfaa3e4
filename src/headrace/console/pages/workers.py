"""Who is present at the broker: workers, web servers, pipelines, consoles, and whoever else holds a name there."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from headrace.console import figures
from headrace.console.page import Facts, NotFound, Page, PageContext, PageRequest
from headrace.console.rendering import count, rate_text
from headrace.presence import BrokerFacts, StreamFacts, WebFacts, WorkerFacts, read
from headrace.presence import Facts as PresenceFacts
from headrace.queue.model import HolderState


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """`?kind=` and `?find=` (in name, host, app) keep fitting ones."""
    kind, find = request.query.get("kind", ""), request.query.get("find", "").lower()
    snapshot = context.snapshot()
    lines = [holder_facts(holder, snapshot.at_ms) for holder in snapshot.holders if kind in ("", holder.kind)]
    return {
        "kind": kind,
        "find": find,
        "kinds": sorted({holder.kind for holder in snapshot.holders}),
        "total": len(snapshot.holders),
        "nodes": [node_facts(holder, told, snapshot.at_ms) for holder, told in figures.nodes(snapshot)],
        "holders": [line for line in lines if find in f"{line['holder']}\n{line['host']}\n{line['what']}".lower()],
        "running": running_rows(context) if kind in ("", "worker") else [],
    }


async def holder_page(context: PageContext, request: PageRequest) -> Facts:
    name = request.names["holder"]
    snapshot = context.snapshot()
    holder = next((holder for holder in snapshot.holders if holder.holder == name), None)
    if holder is None:
        raise NotFound(f"{name} is not present any more: it has ended, or lost its connection; see /workers")
    told = read(holder.kind, holder.facts)
    return {
        "holder": holder_facts(holder, snapshot.at_ms),
        "queues": told.queues,
        "produces": told.produces,
        "running": [row for row in running_rows(context) if row["holder"] == name],
        "tasks": [msgspec.structs.asdict(one) for one in told.tasks] if isinstance(told, WorkerFacts) else [],
        "facts": holder.facts,
    }


def holder_facts(holder: HolderState, at_ms: int) -> dict[str, Any]:
    """A holder in a line; ages in the broker's time."""
    told = read(holder.kind, holder.facts)
    return {
        "holder": holder.holder,
        "kind": holder.kind,
        "host": told.host,
        "pid": told.pid,
        "version": told.version,
        "rss_bytes": told.rss_bytes or None,
        "since_s": max(0.0, (at_ms - holder.since_ms) / 1_000),
        "seen_s": max(0.0, (at_ms - holder.seen_ms) / 1_000),
        "leases": holder.leases,
        "what": what_of(told),
        "load": load_of(told),
        "state": state_of(told),
        "page": page_of(told),
    }


def node_facts(holder: HolderState, told: BrokerFacts, at_ms: int) -> dict[str, Any]:
    """A node in a line: where it is, and what goes through its connections to the database."""
    return {
        **holder_facts(holder, at_ms),
        "url": told.url,
        "connections": told.connections,
        "requests_s": told.requests_s,
        "lanes": [msgspec.structs.asdict(lane) for lane in told.lanes],
    }


def what_of(told: PresenceFacts) -> str:
    """What it is there for: an app, a pipeline, an address."""
    if isinstance(told, WebFacts):
        return ", ".join(told.apps) or told.url
    if isinstance(told, BrokerFacts):
        return told.url.partition("://")[2] or told.url
    return told.pipeline if isinstance(told, StreamFacts) else told.app if isinstance(told, WorkerFacts) else ""


def load_of(told: PresenceFacts) -> str:
    """How busy it is, in words."""
    if isinstance(told, WorkerFacts):
        return f"{len(told.running)} of {told.slots} busy, {rate_text(told.succeeded_s)}/s"
    if isinstance(told, WebFacts):
        return f"{rate_text(told.requests_s)} requests/s, {count(told.in_flight)} in flight"
    if isinstance(told, BrokerFacts):
        return f"{rate_text(told.requests_s)} requests/s, {count(told.connections)} connections"
    return f"{rate_text(told.rows_in_s)} rows/s" if isinstance(told, StreamFacts) else ""


def state_of(told: PresenceFacts) -> str:
    """`draining`, `paused`, `standby`, `starting`; empty if it simply works."""
    if isinstance(told, WorkerFacts):
        return "draining" if told.draining else ""
    if isinstance(told, WebFacts):
        return "" if told.ready else "starting"
    if isinstance(told, StreamFacts):
        return "paused" if told.paused else "standby" if told.standby else ""
    return ""


def page_of(told: PresenceFacts) -> str:
    """The page on what it does."""
    if isinstance(told, StreamFacts) and told.pipeline:
        return "stream"
    return "web" if isinstance(told, WebFacts) else "tasks" if isinstance(told, WorkerFacts) else ""


def running_rows(context: PageContext) -> list[dict[str, Any]]:
    """What runs now, the longest first."""
    now_ms = time.time_ns() // 1_000_000
    rows = [
        {
            **msgspec.structs.asdict(one),
            "holder": holder.holder,
            "age_s": max(0.0, (now_ms - one.started_ms) / 1_000),
        }
        for holder, one in figures.running(context.snapshot())
    ]
    return sorted(rows, key=lambda row: -row["age_s"])


PAGES: Final = (
    Page("/workers", "workers.html", facts, section="workers"),
    Page("/workers/{holder}", "holder.html", holder_page, section="workers"),
)
