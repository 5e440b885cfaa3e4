"""Tasks: what ran, what runs, what waits; each task over all workers, and the runs of the last day."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any, Final

import msgspec

from headrace.console import figures, limits
from headrace.console.charts import chart, latency_charts
from headrace.console.messages import HIDDEN
from headrace.console.page import Facts, NotFound, Page, PageContext, PageRequest, paged
from headrace.console.runs import having
from headrace.console.snapshot import QueueLine, Snapshot, names_of
from headrace.console.task_calls import work_on
from headrace.work import inspecting, names
from headrace.work.broker_backend import Caller
from headrace.work.run_log import Run


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """`?task=`, `?status=` and `?find=` (in id, worker, error) keep fitting runs; `?page=` goes on in the tasks."""
    snapshot = context.snapshot()
    lines = figures.task_lines(snapshot)
    shown, pages = paged(request, lines)
    return {
        "totals": totals(snapshot, lines),
        **pages,
        "tasks": [line_facts(context, line) for line in shown],
        "queues": [queue_facts(snapshot, line) for line in task_queues(snapshot)],
        "charts": charts(context, "tasks"),
        **await run_facts(context, request, task=request.query.get("task", "")),
    }


async def task_facts(context: PageContext, request: PageRequest) -> Facts:
    name = request.names["task"]
    snapshot = context.snapshot()
    line = next((line for line in figures.task_lines(snapshot) if line.task == name), None)
    found = await run_facts(context, request, task=name)
    if line is None and not any(run.task == name for run in await context.runs.read(context.client)):
        raise NotFound(f"no worker knows a task {name!r}, and it has not run in the last day; see /tasks")
    return {
        "task": name,
        "line": line_facts(context, line) if line is not None else None,
        "running": [
            {**msgspec.structs.asdict(one), "worker": holder.holder, "age_s": age_s(one.started_ms)}
            for holder, one in figures.running(snapshot)
            if one.task == name
        ],
        "charts": charts(context, f"task/{name}"),
        **found,
    }


async def waiting_facts(context: PageContext, request: PageRequest) -> Facts:
    """`?queue=` and `?find=` (the beginning of a task's name) keep fitting ones; the oldest of each queue."""
    chosen, find = request.query.get("queue", ""), request.query.get("find", "").strip()
    known = [line.name for line in task_queues(context.snapshot())]
    queues = [name for name in known if chosen in ("", name)]

    def look(client: Caller) -> list[inspecting.Waiting]:
        found: list[inspecting.Waiting] = []
        for queue in queues:
            seen = islice(inspecting.waiting(client, [queue]), limits.TASKS_LOOKED_MAX)
            found += islice((one for one in seen if one.envelope.task.startswith(find)), limits.WAITING_ROWS)
        return found

    waiting = await work_on(context.client, lambda backend: look(backend.client))
    return {
        "queue": chosen,
        "find": find,
        "queues": known,
        "most": limits.WAITING_ROWS,
        "waiting": [waiting_row(one, hide=context.settings.hide_bodies) for one in waiting],
    }


def waiting_row(one: inspecting.Waiting, *, hide: bool) -> dict[str, Any]:
    envelope = one.envelope
    due_s = (one.visible_ms - now_ms()) / 1_000 if one.state == "delayed" and one.visible_ms is not None else None
    return {
        "id": envelope.id,
        "task": envelope.task,
        "queue": one.queue,
        "seq": one.seq,
        "state": state_of(one),
        "attempt": envelope.attempt + 1,
        "age_s": age_s(envelope.sent_ms or one.sent_ms),
        "due_s": due_s,
        "arguments": "" if hide else bytes(envelope.args).decode(errors="replace"),
    }


def state_of(one: inspecting.Waiting) -> str:
    """As people call it: queued, delayed, running; dead."""
    return (
        "dead" if names.is_dead(one.queue) else {"visible": "queued", "in_flight": "running"}.get(one.state, one.state)
    )


async def run_facts(context: PageContext, request: PageRequest, *, task: str) -> Facts:
    """The newest runs that fit, and what they were looked for by."""
    status, find = request.query.get("status", ""), request.query.get("find", "").strip()
    runs = await context.runs.read(context.client)
    hide = context.settings.hide_bodies
    found = having(runs, task=task, status=status, text=find, errors=not hide)
    return {
        "filter": {"task": task, "status": status, "find": find},
        "kept": len(runs),
        "fitting": len(found),
        "runs": [run_row(run, hide=hide) for run in found[: limits.RUNS_ROWS]],
    }


def run_row(run: Run, *, hide: bool) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(run),
        "error": HIDDEN if hide and run.error else run.error,
        "waited_s": max(0, run.started_ms - run.enqueued_ms) / 1_000,
        "took_s": max(0, run.ended_ms - run.started_ms) / 1_000,
    }


def charts(context: PageContext, series: str) -> list[dict[str, Any]]:
    """Rates and latencies of a task, or of all."""
    done = chart(context, "Succeeded", "a second", (f"{series}/succeeded", "succeeded"))
    return [done, *latency_charts(context, series, running="Running")]


def line_facts(context: PageContext, line: figures.TaskLine) -> dict[str, Any]:
    recent = context.history.recent(f"task/{line.task}/succeeded", until_s=context.now_s())
    return {**msgspec.structs.asdict(line), "recent": recent}


def task_queues(snapshot: Snapshot) -> list[QueueLine]:
    """Those that workers take tasks from, and those that were made for tasks: their dead letters are called as tasks' are."""
    taken = {queue for _, facts in figures.workers(snapshot) for queue in facts.queues}
    others = {name for one in snapshot.holders if one.kind != "worker" for name in names_of(one.facts.get("queues"))}
    return [
        line
        for line in snapshot.queues
        if not names.is_dead(line.name)
        and (line.name in taken or (line.dead_letters == names.dead(line.name) and line.name not in others))
    ]


def queue_facts(snapshot: Snapshot, line: QueueLine) -> dict[str, Any]:
    # One queue has the letters of all priorities: told with the normal one.
    dead = snapshot.queue(names.dead(line.name)) if names.base(line.name) == line.name else None
    return {
        "name": line.name,
        "waiting": line.visible,
        "delayed": line.delayed,
        "in_flight": line.in_flight,
        "oldest_s": line.oldest_s,
        "dead": dead.depth if dead is not None else 0,
        "dead_queue": dead.name if dead is not None else "",
    }


def totals(snapshot: Snapshot, lines: list[figures.TaskLine]) -> dict[str, Any]:
    """All workers and task queues together."""
    workers = [facts for _, facts in figures.workers(snapshot)]
    queues = task_queues(snapshot)
    letters = {names.dead(line.name) for line in queues}
    return {
        "workers": len(workers),
        "slots": sum(facts.slots for facts in workers),
        "running": sum(line.running for line in lines),
        "succeeded_s": sum(line.succeeded_s for line in lines),
        "waiting": sum(line.visible for line in queues),
        "delayed": sum(line.delayed for line in queues),
        "dead": sum(line.depth for line in snapshot.queues if line.name in letters),
        "wait": msgspec.structs.asdict(figures.together(line.wait for line in lines)),
        "run": msgspec.structs.asdict(figures.together(line.run for line in lines)),
    }


def age_s(since_ms: int) -> float:
    """Since a wall clock time, as workers write them."""
    return max(0.0, (now_ms() - since_ms) / 1_000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


PAGES: Final = (
    Page("/tasks", "tasks.html", facts, section="tasks"),
    Page("/tasks/{task}", "task.html", task_facts, section="tasks"),
    Page("/waiting", "waiting.html", waiting_facts, live=False, section="tasks"),
)
