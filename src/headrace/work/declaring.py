"""Schedules as the code declares them: options checked, and the task that each firing sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from headrace.durations import Duration
from headrace.work import schedules
from headrace.work.errors import InvalidOption
from headrace.work.options import milliseconds
from headrace.work.schedules import Cron, Definition, Every, Missed, Overlap, Timing

if TYPE_CHECKING:
    from headrace.work.composing import Call
    from headrace.work.task import Task


class ScheduleValues(TypedDict, total=False):
    """What schedules take.

    Attributes:
        name: the schedule's: the task's name unless said otherwise. One that is renamed is another schedule.
        tz: the zone whose wall clock a cron line means: UTC unless said otherwise.
        missed: of times at which no worker was there: "once" (default) makes up for the newest, "skip" for none that is
            older than a minute, "all" for each, the newest 100.
        overlap: "skip": not sent while the task of the time before is waiting or running; "allow" (default).
        jitter: each firing is later by 0 to this, the same for all workers.
    """

    name: str
    tz: str
    missed: Missed
    overlap: Overlap
    jitter: Duration


def timing(cron: str | None, every: Duration | None, values: ScheduleValues) -> Timing:
    """Raises InvalidParameter, InvalidOption."""
    if (cron is None) == (every is None):
        raise InvalidOption("cron", repr(cron), "give either cron= or every=")
    if cron is not None:
        return schedules.check_timing(Cron(cron, values.get("tz", "UTC")))
    if "tz" in values:
        raise InvalidOption("tz", values["tz"], "an interval has no zone; a cron line has")
    return Every(milliseconds("every", every, low=1_000, high=366 * 86_400_000))


def of_call(call: Call[Any], cron: str | None, every: Duration | None, values: ScheduleValues) -> Definition:
    """Raises InvalidArguments if the call leaves arguments open."""
    task = call.app.tasks[call.task]
    task.arguments.call(call.signature.envelope.args)
    return _definition(call, timing(cron, every, values), values)


def of_task(task: Task[..., Any], when: Timing, values: ScheduleValues) -> Definition:
    """Raises InvalidArguments: the task cannot be called without arguments."""
    return _definition(task.si(), when, values)


def _definition(call: Call[Any], when: Timing, values: ScheduleValues) -> Definition:
    unknown = set(values) - set(ScheduleValues.__annotations__)
    if unknown:
        known = ", ".join(ScheduleValues.__annotations__)
        raise InvalidOption(min(unknown), "…", f"a schedule has no such option; it has {known}")
    written = call.signature.envelope
    since_ms = written.sent_ms + call.signature.delay_ms  # a firing has no delay
    expires_ms = written.expires_ms - since_ms if written.expires_ms is not None else None
    template = msgspec.structs.replace(written, id="", sent_ms=0, expires_ms=expires_ms)
    return schedules.check_definition(
        Definition(
            values.get("name", template.task),
            "",
            when,
            call.signature.queue,
            template,
            values.get("missed", "once"),
            values.get("overlap", "allow"),
            milliseconds("jitter", values.get("jitter", 0), low=0, high=schedules.JITTER_MAX_MS),
        )
    )
