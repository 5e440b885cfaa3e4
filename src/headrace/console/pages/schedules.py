"""Schedules: when each fires next and fired last; pause, resume, fire now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from headrace.console import limits
from headrace.console.page import Action, Done, Facts, NotFound, Page, PageContext, PageRequest, Refused
from headrace.console.pages.tasks import now_ms
from headrace.console.rendering import part
from headrace.console.task_calls import work_on
from headrace.queue.operations import GetState
from headrace.work import keys, scheduler, schedules
from headrace.work.backend import Backend
from headrace.work.scheduler import decode_row
from headrace.work.schedules import Row

_UPCOMING: Final = 5


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """`?find=` keeps names, and tasks, with that text."""
    find = request.query.get("find", "").lower()
    rows = await _rows(context)
    shown = [row for row in rows if find in f"{row.definition.name}\n{row.definition.envelope.task}".lower()]
    return {"find": find, "total": len(rows), "schedules": [row_facts(row) for row in shown]}


async def schedule_page(context: PageContext, request: PageRequest) -> Facts:
    row = _named(await _rows(context), request.names["schedule"])
    zone = schedules.zone_of(row.definition.timing)
    upcoming = schedules.upcoming(row, now_ms(), _UPCOMING)
    hide = context.settings.hide_bodies
    return {
        "schedule": row_facts(row),
        "upcoming": [
            {"at_ms": at_ms, "local": datetime.fromtimestamp(at_ms / 1_000, zone).strftime("%a %Y-%m-%d %H:%M:%S %Z")}
            for at_ms in upcoming
        ],
        "arguments": None if hide else bytes(row.definition.envelope.args).decode(errors="replace"),
    }


def row_facts(row: Row) -> dict[str, Any]:
    definition = row.definition
    due_ms = schedules.due_ms(row)
    return {
        "name": definition.name,
        "when": schedules.timing_text(definition.timing),
        "state": "orphaned" if row.orphaned else "paused" if row.paused else "active",
        "next_ms": due_ms,
        "next_s": (due_ms - now_ms()) / 1_000 if due_ms is not None else None,
        "last_ms": row.last_ms,
        "last_id": row.last_id,
        "task": definition.envelope.task,
        "queue": definition.queue,
        "app": definition.app,
        "missed": definition.missed,
        "overlap": definition.overlap,
        "jitter_s": definition.jitter_ms / 1_000,
        "skipped": row.skipped,
    }


async def _rows(context: PageContext) -> list[Row]:
    stored = await context.client.call(GetState(keys.NAME, keys.SCHEDULE))
    return [row for _, value in stored if (row := _row(value)) is not None]


def _row(stored: bytes) -> Row | None:
    """None: no worker of this version has written it."""
    try:
        return decode_row(stored)
    except msgspec.DecodeError:
        return None


def _named(rows: list[Row], name: str) -> Row:
    """Raises NotFound."""
    found = next((row for row in rows if row.definition.name == name), None)
    if found is None:
        raise NotFound(f"there is no schedule {name!r}; apps declare them with @app.schedule and @app.every")
    return found


# --- what can be done ---


async def pause(context: PageContext, request: PageRequest) -> Done:
    name = request.names["schedule"]
    await work_on(context.client, _changing(name, lambda row: schedules.paused(row, pause=True, now_ms=now_ms())))
    return Done(f"{name} is paused: it does not fire, whatever workers start.", address(name))


async def resume(context: PageContext, request: PageRequest) -> Done:
    name = request.names["schedule"]
    await work_on(context.client, _changing(name, lambda row: schedules.paused(row, pause=False, now_ms=now_ms())))
    return Done(f"{name} fires again, from its next time on; those of the pause are not made up for.", address(name))


async def run(context: PageContext, request: PageRequest) -> Done:
    name = request.names["schedule"]
    row = _named(await _rows(context), name)
    task_id = await work_on(context.client, lambda backend: scheduler.fire_now(backend, row, now_ms=now_ms()))
    if task_id is None:
        raise Refused(f"{name} was not sent: the task that it sent before has not ended")
    return Done(f"{name} was sent as task {task_id}; its times stay as they are.", address(name))


def _changing(name: str, change: Callable[[Row], Row]) -> Callable[[Backend], None]:
    """Work that writes the row as `change` makes it, unless it was changed meanwhile: then anew."""

    def work(backend: Backend) -> None:
        for _ in range(limits.SCHEDULE_TRIES_MAX):
            rows = {row.definition.name: (row, stored) for row, stored in scheduler.read_rows(backend)}
            row = _named([row for row, _ in rows.values()], name)
            if scheduler.write_row(backend, change(row), rows[name][1]):
                return
        raise Refused(f"{name} fires faster than it can be changed; try again")

    return work


def address(name: str) -> str:
    return f"/schedules/{part(name)}"


PAGES: Final = (
    Page("/schedules", "schedules.html", facts, section="schedules"),
    Page("/schedules/{schedule}", "schedule.html", schedule_page, section="schedules"),
)
ACTIONS: Final = (
    Action("/schedules/{schedule}/pause", pause),
    Action("/schedules/{schedule}/resume", resume),
    Action("/schedules/{schedule}/run", run),
)
