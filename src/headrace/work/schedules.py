"""When schedules fire. Pure: time is an argument.

A schedule is one row: what it sends, when next, when last. Its fire times are a property of the definition alone, never
of who looks when: an interval's are multiples of it since 1970 (UTC), a cron line's are the zone's wall clock. So every
scheduler agrees on them, and the time fired last is behind all that come.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from headrace.errors import InvalidParameter
from headrace.work.envelope import Envelope

MISSED_MAX: Final = 100
"""Fire times that `missed="all"` makes up for at once: the newest. A schedule that was off for a month must not flood."""
LATE_MS: Final = 60_000
"""A fire time is missed when nobody has fired it for so long: a worker that restarts is back sooner."""
JITTER_MAX_MS: Final = 86_400_000
NAME_MAX: Final = 200
_STEP_MS: Final = 3_600_000

Missed: TypeAlias = Literal["once", "skip", "all"]
Overlap: TypeAlias = Literal["allow", "skip"]


class Cron(msgspec.Struct, frozen=True, tag="cron"):
    """`text`: five fields (minute, hour, day, month, weekday) or six (seconds first), in zone `tz`."""

    text: str
    tz: str = "UTC"


class Every(msgspec.Struct, frozen=True, tag="every"):
    """Multiples of `period_ms` since 1970, UTC."""

    period_ms: int


Timing: TypeAlias = Cron | Every


class Definition(msgspec.Struct, frozen=True):
    """What the code says of a schedule.

    Attributes:
        app: whose it is: a schedule that its app has no more is orphaned.
        queue: where the task is sent.
        envelope: the task, without id and times.
        missed: of fire times that nobody saw: "once" fires the newest, "skip" none that is older than a minute, "all"
            each, at most the newest 100.
        overlap: "skip": not while the one fired before is waiting or running.
        jitter_ms: each firing is later by 0 to this, the same for all schedulers.
    """

    name: str
    app: str
    timing: Timing
    queue: str
    envelope: Envelope
    missed: Missed = "once"
    overlap: Overlap = "allow"
    jitter_ms: int = 0


class Row(msgspec.Struct, frozen=True):
    """A schedule as the broker keeps it, under `s/<name>`.

    Attributes:
        next_ms: the next fire time, without jitter; None: never again.
        last_ms: the fire time fired last; `last_id`: the task that it sent.
        skipped: how many firings `overlap="skip"` has left out.
        orphaned: its app does not have it any more; it does not fire.
    """

    definition: Definition
    next_ms: int | None
    last_ms: int | None = None
    last_id: str = ""
    skipped: int = 0
    paused: bool = False
    orphaned: bool = False


class Due(msgspec.Struct, frozen=True):
    """What a row comes to: `fires` now, oldest first, and the row afterwards. `dropped`: missed ones that are not made up
    for, as far as they were counted."""

    fires: list[int]
    row: Row
    dropped: int = 0


def check_timing(timing: Timing) -> Timing:
    """The timing itself, or InvalidParameter."""
    if isinstance(timing, Every):
        if timing.period_ms < 1_000:
            raise InvalidParameter("every", f"{timing.period_ms} ms", "an interval is at least a second")
        return timing
    _zone(timing.tz)
    try:
        if next_after(timing, 0) is None:
            raise CronSimError("it never fires")
    except CronSimError as error:
        reason = f"{error}; write minute hour day month weekday, for example '*/5 * * * *' or '30 9 * * MON-FRI'"
        raise InvalidParameter("cron", repr(timing.text), reason) from None
    return timing


def check_definition(definition: Definition) -> Definition:
    """The definition itself, or InvalidParameter."""
    check_timing(definition.timing)
    if not 1 <= len(definition.name) <= NAME_MAX:
        raise InvalidParameter("schedule name", repr(definition.name), f"1 to {NAME_MAX} characters")
    for parameter, value, allowed in (
        ("missed", definition.missed, ("once", "skip", "all")),
        ("overlap", definition.overlap, ("allow", "skip")),
    ):
        if value not in allowed:
            raise InvalidParameter(parameter, repr(value), f"one of {', '.join(allowed)}")
    if not 0 <= definition.jitter_ms <= JITTER_MAX_MS:
        raise InvalidParameter("jitter", f"{definition.jitter_ms} ms", "0 to 1 day")
    return definition


def next_after(timing: Timing, after_ms: int) -> int | None:
    """The first fire time later than `after_ms`; None if there is none within 50 years."""
    if isinstance(timing, Every):
        return (after_ms // timing.period_ms + 1) * timing.period_ms
    return next(_cron_times(timing, after_ms), None)


def newest(timing: Timing, *, first_ms: int, until_ms: int, count: int) -> list[int]:
    """The newest `count` fire times from `first_ms` to `until_ms`, both included, sorted.

    Looked for from `until_ms` backwards in growing steps, but reckoned forwards: around a change to summer time the two
    directions would disagree.
    """
    step_ms = _STEP_MS
    while True:
        begin_ms = max(first_ms - 1, until_ms - step_ms)
        found = _between(timing, begin_ms, until_ms)
        if len(found) >= count or begin_ms < first_ms:
            return found[-count:]
        step_ms *= 8


def due_ms(row: Row) -> int | None:
    """When the row is to be fired next; None: not as it stands."""
    if row.paused or row.orphaned or row.next_ms is None:
        return None
    return row.next_ms + jitter_of(row.definition, row.next_ms)


def jitter_of(definition: Definition, fire_ms: int) -> int:
    """By how much this firing is later: chance that all schedulers share."""
    seed = f"{definition.name}@{fire_ms}".encode()
    return zlib.crc32(seed) % (definition.jitter_ms + 1)


def due(row: Row, now_ms: int) -> Due | None:
    """What is to be fired now; None if nothing is due."""
    at_ms = due_ms(row)
    if at_ms is None or at_ms > now_ms or row.next_ms is None:
        return None
    definition = row.definition
    # What lies within the jitter is fired by itself when it is due.
    until_ms = max(row.next_ms, now_ms - definition.jitter_ms)
    times = newest(definition.timing, first_ms=row.next_ms, until_ms=until_ms, count=MISSED_MAX) or [row.next_ms]
    fires = times if definition.missed == "all" else times[-1:]
    if definition.missed == "skip":
        fires = [time for time in fires if now_ms - time <= LATE_MS + definition.jitter_ms]
    after = msgspec.structs.replace(row, next_ms=next_after(definition.timing, until_ms))
    if fires:
        after = msgspec.structs.replace(after, last_ms=fires[-1])
    return Due(fires, after, len(times) - len(fires))


def defined(row: Row | None, definition: Definition, now_ms: int) -> Row:
    """The row once the code says `definition`. A new timing counts from now on; what was fired stays behind."""
    if row is None:
        return Row(definition, next_after(definition.timing, now_ms))
    if row.definition == definition and not row.orphaned:
        return row
    next_ms = row.next_ms
    if row.definition.timing != definition.timing or row.orphaned:
        next_ms = next_after(definition.timing, max(now_ms, row.last_ms or 0))
    return msgspec.structs.replace(row, definition=definition, next_ms=next_ms, orphaned=False)


def paused(row: Row, *, pause: bool, now_ms: int) -> Row:
    """The row paused, or resumed: then it goes on with the next fire time; those of the pause are not missed ones."""
    if pause or not row.paused:
        return msgspec.structs.replace(row, paused=pause)
    next_ms = next_after(row.definition.timing, max(now_ms, row.last_ms or 0))
    return msgspec.structs.replace(row, paused=False, next_ms=next_ms)


def upcoming(row: Row, now_ms: int, count: int) -> list[int]:
    """The next `count` fire times, without jitter."""
    times: list[int] = []
    at_ms = row.next_ms
    while at_ms is not None and len(times) < count:
        times.append(at_ms)
        at_ms = next_after(row.definition.timing, max(at_ms, now_ms - 1))
    return times


def timing_text(timing: Timing) -> str:
    """As people write it."""
    if isinstance(timing, Cron):
        return timing.text if timing.tz == "UTC" else f"{timing.text} ({timing.tz})"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if timing.period_ms % size == 0:
            return f"every {timing.period_ms // size}{unit}"
    return f"every {timing.period_ms}ms"


def zone_of(timing: Timing) -> dt.tzinfo:
    """The zone whose wall clock it means."""
    return _zone(timing.tz) if isinstance(timing, Cron) else dt.UTC


def _between(timing: Timing, after_ms: int, until_ms: int) -> list[int]:
    if isinstance(timing, Every):
        period = timing.period_ms
        newest_ms = until_ms // period * period
        first = max(after_ms // period + 1, newest_ms // period - MISSED_MAX)
        return list(range(first * period, newest_ms + 1, period))
    times: list[int] = []
    for time in _cron_times(timing, after_ms):
        if time > until_ms:
            break
        times.append(time)
    return times


def _cron_times(timing: Cron, after_ms: int) -> Iterator[int]:
    """Fire times after `after_ms`, ascending. The hour that comes twice in autumn would give times that are behind."""
    start = dt.datetime.fromtimestamp(after_ms // 1_000, _zone(timing.tz))
    latest_ms = after_ms
    for found in islice(CronSim(timing.text, start), 1_000_000):
        time = round(found.timestamp() * 1_000)
        if time > latest_ms:
            latest_ms = time
            yield time


def _zone(name: str) -> dt.tzinfo:
    if name == "UTC":
        return dt.UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidParameter("tz", repr(name), "write a zone's name, as Europe/Berlin (needs tzdata)") from None
