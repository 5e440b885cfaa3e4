"""Pipelines: how far each is, what it does as a graph, who runs it; pause and resume. By their state in the broker alone."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import figures
from headrace.console.charts import chart
from headrace.console.page import Action, Done, Facts, NotFound, Page, PageContext, PageRequest
from headrace.console.pages.workers import holder_facts
from headrace.console.rates import time_to_empty_s
from headrace.console.rendering import part
from headrace.console.snapshot import Snapshot
from headrace.stream_state import PipelineState, pausing, read_paused, read_plan

_RECENTLY_MS: Final = 60_000
"""A pipeline that nobody shows (on Spark, or of an older version) runs if it has committed within this."""


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """`?find=` keeps names with that text."""
    find = request.query.get("find", "").lower()
    states = [state for state in context.snapshot().pipelines if find in state.name.lower()]
    return {
        "find": find,
        "total": len(context.snapshot().pipelines),
        "streams": [line_facts(context, state) for state in states],
    }


async def stream_page(context: PageContext, request: PageRequest) -> Facts:
    state = state_named(context, request.names["pipeline"])
    snapshot, name = context.snapshot(), state.name
    return {
        "stream": line_facts(context, state),
        "sources": [
            {**msgspec.structs.asdict(source), "waiting": _waiting(snapshot, source.queue)} for source in state.sources
        ],
        "processes": [holder_facts(holder, snapshot.at_ms) for holder, _ in figures.streams(snapshot, name)],
        "members": [msgspec.structs.asdict(process) for process in state.processes],
        "charts": [
            chart(context, "Rows", "a second", (f"stream/{name}/in", "in"), (f"stream/{name}/out", "out")),
            chart(context, "Lag", "messages that wait", (f"stream/{name}/lag", "lag")),
            chart(context, "State", "bytes", (f"stream/{name}/state_bytes", "state")),
        ],
    }


async def plan(context: PageContext, request: PageRequest) -> Facts:
    """Its plan, and whether it is to be paused or resumed: by its state now, as the snapshot is older than the last click."""
    name = request.names["pipeline"]
    found, paused = await read_plan(context.client.call, name), await read_paused(context.client.call, name)
    if found is None:
        return {"plan": None, "paused": paused}
    boxes = msgspec.to_builtins(found.boxes)
    return {"plan": {"text": found.text, "shards": found.shards, "boxes": boxes}, "paused": paused}


def line_facts(context: PageContext, state: PipelineState) -> dict[str, Any]:
    snapshot = context.snapshot()
    rows_in_s, rows_out_s = snapshot.pipeline_rates.get(state.name, (0.0, 0.0))
    lag = figures.lag_of(snapshot, state.name)
    running = figures.streams(snapshot, state.name)
    return {
        "name": state.name,
        "standing": standing(state, snapshot),
        "lag": lag,
        "eta_s": eta_s(lag, _gain(snapshot, state)),
        "rows_in": state.rows_in,
        "rows_out": state.rows_out,
        "rows_in_s": rows_in_s,
        "rows_out_s": rows_out_s,
        "watermark_ms": state.watermark_us // 1_000 if state.watermark_us is not None else None,
        "late": state.late,
        "dead": state.dead,
        "state_bytes": state.state_bytes,
        "batches": state.batches,
        "committed_s": max(0.0, (snapshot.at_ms - state.committed_ms) / 1_000) if state.committed_ms else None,
        "undelivered": sum(told.undelivered for _, told in running),
        "processes": len(running) or len(state.processes),
        "paused": state.paused,
        "recent": context.history.recent(f"stream/{state.name}/in", until_s=context.now_s()),
    }


def standing(state: PipelineState, snapshot: Snapshot) -> str:
    """In a word: `running`, `paused`, `stopped`; `lost`: its processes have not said that they end, and are not there."""
    present = bool(figures.streams(snapshot, state.name))
    recent = bool(state.committed_ms) and snapshot.at_ms - state.committed_ms < _RECENTLY_MS
    if state.paused:
        return "paused"
    if present or (recent and state.processes):
        return "running"
    return "lost" if state.processes else "stopped"


def eta_s(lag: int | None, gain: float) -> float | None:
    """When the backlog will be gone; 0 without one, None: never as things are, or nobody knows."""
    return None if lag is None else time_to_empty_s(lag, 0.0, gain)


def _gain(snapshot: Snapshot, state: PipelineState) -> float:
    """By how many messages a second its queues become shorter."""
    lines = [snapshot.queue(source.queue) for source in state.sources]
    return sum(line.deleted_rate - line.sent_rate for line in lines if line is not None)


def _waiting(snapshot: Snapshot, queue: str) -> int | None:
    line = snapshot.queue(queue)
    return line.visible if line is not None else None


def state_named(context: PageContext, name: str) -> PipelineState:
    """Raises NotFound."""
    found = next((state for state in context.snapshot().pipelines if state.name == name), None)
    if found is None:
        raise NotFound(f"no pipeline {name!r} has state here; `headrace stream run FILE.py` runs one")
    return found


# --- what can be done ---


async def pause(context: PageContext, request: PageRequest) -> Done:
    return await _control(context, request, paused=True)


async def resume(context: PageContext, request: PageRequest) -> Done:
    return await _control(context, request, paused=False)


async def _control(context: PageContext, request: PageRequest, *, paused: bool) -> Done:
    name = state_named(context, request.names["pipeline"]).name
    await context.client.call(pausing(name, paused=paused))
    told = "begins no more batches; what is under way is finished" if paused else "goes on"
    return Done(f"{name} {told}, within a few seconds.", f"/streams/{part(name)}")


PAGES: Final = (
    Page("/streams", "streams.html", facts, section="streams"),
    Page("/streams/{pipeline}", "stream.html", stream_page, plan, section="streams"),
)
ACTIONS: Final = (Action("/streams/{pipeline}/pause", pause), Action("/streams/{pipeline}/resume", resume))
