"""One task: its life as a timeline, every attempt, its arguments, what it gave; cancel it, or start it anew."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import msgspec

from headrace.console import figures, limits, timeline
from headrace.console.messages import HIDDEN
from headrace.console.page import Action, Done, Facts, NotFound, Page, PageContext, PageRequest, Refused
from headrace.console.pages.tasks import age_s, now_ms, run_row, state_of, task_queues
from headrace.console.rendering import part
from headrace.console.task_calls import work_on
from headrace.queue.model import Peeked, arn_of
from headrace.queue.operations import GetState, Peek
from headrace.work import cancelling, inspecting, keys, names, results
from headrace.work import envelope as envelopes
from headrace.work.errors import EnvelopeInvalid
from headrace.work.inspecting import Waiting
from headrace.work.outcome import ErrorInfo
from headrace.work.run_log import Run


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """What can be told without looking through queues: it is live. `?queue=` and `?seq=` say where its message is."""
    task_id = request.names["id"]
    runs = [run for run in await context.runs.read(context.client) if run.id == task_id]
    now = await _now(context, request)
    result = await _result(context, task_id)
    spans = timeline.spans(runs, now, sent_ms=sent_ms(task_id, runs), now_ms=now_ms())
    return {
        "id": task_id,
        "task": runs[0].task if runs else result["task"] if result else _running_name(context, task_id),
        "state": now.state if now is not None else runs[0].status if runs else result["status"] if result else "",
        "now": msgspec.to_builtins(now),
        "runs": [run_row(run, hide=context.settings.hide_bodies) for run in runs],
        "result": result,
        "sent_ms": sent_ms(task_id, runs),
        "spans": msgspec.to_builtins(spans),
        "bars": msgspec.to_builtins(timeline.bars(spans)),
    }


async def more(context: PageContext, request: PageRequest) -> Facts:
    """Its message, as far as there is one: arguments, history, what it is part of. Raises NotFound: nothing is known."""
    found = await _find(context, request)
    if found is None:
        known = await facts(context, request)
        if not known["runs"] and known["result"] is None and known["now"] is None:
            raise NotFound(
                f"nothing is known of task {request.names['id']}: it waits in no queue, and no run or result is kept of it"
            )
        return {"message": None, "history": [], "arguments": None, "places": []}
    hide = context.settings.hide_bodies
    envelope = found.envelope
    return {
        "message": {
            "task": envelope.task,
            "queue": found.queue,
            "seq": found.seq,
            "state": state_of(found),
            "receives": found.receives,
            "attempt": envelope.attempt + 1,
            "age_s": age_s(envelope.sent_ms or found.sent_ms),
            "due_ms": found.visible_ms if found.state == "delayed" else None,
        },
        "arguments": None if hide else bytes(envelope.args).decode(errors="replace"),
        "hidden": hide,
        "history": [] if hide else msgspec.to_builtins(envelope.history),
        "places": _places(envelope, hide=hide),
    }


def _places(envelope: envelopes.Envelope, *, hide: bool) -> list[dict[str, str]]:
    """What a task belongs to, and its own settings: label, text, and the run that it leads to, if any. A unique key is made
    of arguments."""
    unique = envelope.unique and (HIDDEN if hide else f"{envelope.unique.key}, until {envelope.unique.until}")
    told = [
        ("Parent", envelope.parent, envelope.parent),
        ("Schedule", envelope.scheduled, None),
        ("Group", envelope.group, None),
        ("Workflow", envelope.workflow and f"member {envelope.workflow.index} of {envelope.workflow.id}", None),
        ("Joins", envelope.joins and f"{envelope.joins.count} results of {envelope.joins.id}", None),
        ("Unique", unique, None),
        ("Then", ", ".join(one.envelope.task for one in envelope.then), None),
        ("Retries", None if envelope.retries_max is None else f"at most {envelope.retries_max}", None),
        ("Time limit", envelope.timeout_s and f"{envelope.timeout_s:g} s", None),
        ("Trace", envelope.trace, None),
    ]
    return [{"label": label, "text": text, "run": run or ""} for label, text, run in told if text]


def sent_ms(task_id: str, runs: list[Run]) -> int | None:
    """When it was sent: its id begins with that time. Of an id that somebody chose, when it could first run."""
    try:
        told = int(task_id[:12], 16) if len(task_id) == 32 else 0
    except ValueError:
        told = 0
    first = min((run.enqueued_ms for run in runs), default=None)
    if first is None:
        return told or None
    return told if 0 <= first - told <= 15 * 86_400_000 else first


async def _now(context: PageContext, request: PageRequest) -> timeline.Now | None:
    """Where it is, if it has not ended: a worker says so, or its message stands where the address says."""
    for _, one in figures.running(context.snapshot()):
        if one.id == request.names["id"]:
            return timeline.Now("running", one.started_ms, one.attempt)
    found = await _there(context, request)
    if found is None or names.is_dead(found.queue):
        return None
    envelope = found.envelope
    since_ms = envelope.history[-1].at_ms if envelope.history else envelope.sent_ms or found.sent_ms
    until_ms = found.visible_ms if found.state == "delayed" else None
    state = state_of(found)
    return timeline.Now("queued" if state == "running" else state, since_ms, envelope.attempt + 1, until_ms)


async def _there(context: PageContext, request: PageRequest) -> Waiting | None:
    """The task's message where `?queue=` and `?seq=` say; None: it is not there."""
    queue, seq = request.query.get("queue", ""), request.number("seq")
    if not seq or context.snapshot().queue(queue) is None:
        return None
    page: list[Peeked] = await context.client.call(Peek(arn_of(queue), 1, seq - 1))
    if not page or page[0].message.seq != seq:
        return None
    message = page[0].message
    try:
        envelope = envelopes.decode(message.body)
    except EnvelopeInvalid:
        return None
    if envelope.id != request.names["id"]:
        return None
    return Waiting(
        queue, seq, page[0].state, page[0].receives, message.sent_ms, message.visible_ms, message.source, envelope
    )


async def _find(context: PageContext, request: PageRequest) -> Waiting | None:
    """Where its message is: where the address says, or else looked for in task queues and their dead letters."""
    there = await _there(context, request)
    if there is not None:
        return there
    task_id, queues = request.names["id"], _queues(context)

    def look(backend: Any) -> Waiting | None:
        seen = islice(inspecting.waiting(backend.client, queues), limits.TASKS_LOOKED_MAX)
        return next((one for one in seen if one.envelope.id == task_id), None)

    return await work_on(context.client, look)


def _queues(context: PageContext) -> list[str]:
    found = [line.name for line in task_queues(context.snapshot())]
    return [*found, *dict.fromkeys(names.dead(name) for name in found)]


async def _result(context: PageContext, task_id: str) -> dict[str, Any] | None:
    key = keys.result(task_id)
    rows = await context.client.call(GetState(keys.NAME, key, 1))
    if not rows or rows[0][0] != key:
        return None
    try:
        result = results.decode(rows[0][1])
    except msgspec.DecodeError:  # no worker of this version has written it
        return None
    hide = context.settings.hide_bodies
    return {
        "task": result.task,
        "status": result.status,
        "ended_ms": result.ended_ms,
        "expires_ms": result.expires_ms,
        "value": None if hide or result.status != "succeeded" else bytes(result.value).decode(errors="replace"),
        "error": None if hide or result.error is None else _error(result.error),
    }


def _error(error: ErrorInfo) -> dict[str, str]:
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def _running_name(context: PageContext, task_id: str) -> str:
    return next((one.task for _, one in figures.running(context.snapshot()) if one.id == task_id), "")


# --- what can be done ---


async def cancel(context: PageContext, request: PageRequest) -> Done:
    """One that waits is taken out of its queue at once; one that runs is asked to end."""
    task_id = request.names["id"]
    found = await _find(context, request)
    place: dict[str, Any] = {}
    if found is not None and not names.is_dead(found.queue):
        place = {"queue": found.queue, "seq": found.seq}
    answer = await work_on(
        context.client, lambda backend: cancelling.cancel(backend, task_id, now_ms=now_ms(), **place)
    )
    told = {
        "cancelled": "Cancelled: it has not run, and will not.",
        "cancel_requested": "Cancellation requested: the worker ends the task within about a second, unless it finishes first.",
        "finished": "Nothing to cancel: it had ended already.",
    }
    return Done(told[answer], f"/runs/{part(task_id)}")


async def retry(context: PageContext, request: PageRequest) -> Done:
    """A dead one goes back to its queue, with all its attempts anew."""
    task_id = request.names["id"]
    found = await _find(context, request)
    if found is None or not names.is_dead(found.queue):
        raise Refused("only a dead task can be started anew: this one is among no dead letters")
    queue = await work_on(context.client, lambda backend: inspecting.retry(backend.client, found))
    return Done(f"Started anew: it waits in {queue}. Its history stays.", f"/runs/{part(task_id)}")


PAGES: Final = (Page("/runs/{id}", "run.html", facts, more, section="tasks"),)
ACTIONS: Final = (Action("/runs/{id}/cancel", cancel), Action("/runs/{id}/retry", retry))
