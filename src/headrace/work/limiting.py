"""How many tasks may start, and run, at a time, over all workers. Pure: state and time are arguments.

A rate is kept by GCRA (the generic cell rate algorithm): one number, the time at which the next start would be on
schedule. To ask is to reserve: whoever may not start now is told when, and the number moves on, so a task waits in the
broker until its time and does not ask again.

Concurrency is slots, each a row of its own: taking one is a comparison of that row alone, and giving it back touches no
other. A slot is leased, so a killed worker's ends; and the same task, delivered again, takes its own slot over at once.
Who finds no slot comes again when one is about to be free, by how long slots were held lately, one after another: then a few
questions are asked a start, however many wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from headrace.errors import InvalidParameter

LATE_MAX_MS: Final = 1_000
LATE_SHARE: Final = 20
"""A reserved start holds for a twentieth of the period, a second at most. Starts that are later ask again: reservations that
pile up while no worker runs must not all be used at once. By as much tasks are further apart than the rate says, so that
it is never exceeded however late they come: a limit of 20/s lets 19 start."""
SLOT_LEASE_MS: Final = 60_000
"""As long as a message's lease: workers extend both together."""
DEFER_MAX_MS: Final = 7 * 86_400_000
"""Half of what a task queue retains. Whoever would wait longer reserves nothing and asks again then."""
WAIT_MAX_MS: Final = 60_000
"""Who waits for a slot looks again after this at the latest: slots may come free sooner than those before did."""
ASKS_PER_START: Final = 3
"""Those who wait come so much more often than slots come free. One that comes free just after somebody has asked is idle until
the next one asks: with 1, half of the time; with 3, under 20 %."""
RUN_GUESS_MS: Final = 100
"""How long a slot is held, before any has been given back."""
IDLE_MS: Final = 86_400_000
"""Rows of a key that nobody used for so long are swept."""
_PERIODS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RATE: Final = re.compile(r"\s*(\d+)\s*/\s*(\d*)\s*([smhd])(?:\w*)\s*(?:burst\s+(\d+))?\s*", re.ASCII)

Puts: TypeAlias = list[tuple[bytes, bytes | None]]
"""Keys of a row set and their new values; None deletes. As `expects`, for a Transact."""


class Rate(msgspec.Struct, frozen=True):
    """At most `count` starts in any `period_ms`; with `burst` above 1, up to `burst - 1` more after a pause.

    Tasks start evenly spaced, about `period / count` apart; `burst` (1 to `count`) may start together after a pause.
    """

    count: int
    period_ms: int
    burst: int = 1

    @property
    def late_ms(self) -> int:
        """A reserved start may be used so much later."""
        return min(LATE_MAX_MS, self.period_ms // LATE_SHARE)

    @property
    def interval_us(self) -> int:
        """Between two reserved starts, rounded up: any period, and the time by which starts may be late, holds `count`."""
        return -(-(self.period_ms + self.late_ms) * 1_000 // self.count)


def parse_rate(text: str) -> Rate:
    """`"100/m"`, `"5/30s"`, `"1000/h burst 50"`. Raises InvalidParameter."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise InvalidParameter("rate", repr(text), "write it as '100/m', '5/30s' (s, m, h or d) or '100/m burst 20'")
    count, periods, burst = int(match[1]), int(match[2] or 1), int(match[4] or 1)
    if not (1 <= count <= 1_000_000 and periods >= 1 and periods * _PERIODS_MS[match[3]] <= DEFER_MAX_MS):
        raise InvalidParameter("rate", repr(text), "1 to 1,000,000 starts, in at most 7 days")
    if not 1 <= burst <= count:
        raise InvalidParameter("rate", repr(text), f"burst must be from 1 to {count}, the starts of a period")
    return Rate(count, periods * _PERIODS_MS[match[3]], burst)


class Limit(msgspec.Struct, frozen=True):
    """What bounds the tasks that share a key. `concurrency`: 1 to 10,000 that run at a time."""

    rate: Rate | None = None
    concurrency: int | None = None


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the places of a concurrency limit. Free if `task` is empty or `until_ms` has passed.

    `run_ms`: for how long it was held the last time.
    """

    task: str = ""
    until_ms: int = 0
    since_ms: int = 0
    run_ms: int = RUN_GUESS_MS


class Admitted(msgspec.Struct, frozen=True):
    """It may start, once `puts` are committed where `expects` hold. `slot`: which row it holds, if any."""

    puts: Puts
    expects: Puts
    slot: bytes | None = None


class Waits(msgspec.Struct, frozen=True):
    """It may start at `until_ms` if `reserved`, else ask again then; `puts` and `expects` as in Admitted."""

    until_ms: int
    reserved: bool
    puts: Puts
    expects: Puts


Rows: TypeAlias = Mapping[bytes, bytes]
"""The rows of one limit and key, by what their keys end with: `rate`, `wait`, `slot/0` and on."""


def reserve(next_us: int | None, *, interval_us: int, burst: int, now_us: int) -> tuple[int, int]:
    """GCRA: (when it may start, the number for whoever comes next). `next_us` is the number that stands; None: none."""
    on_schedule = max(now_us, next_us or 0)
    start_us = max(now_us, on_schedule - (burst - 1) * interval_us)
    return start_us, on_schedule + interval_us


def admit(limit: Limit, rows: Rows, *, task: str, now_ms: int, reserved_ms: int | None = None) -> Admitted | Waits:
    """Whether the task may start now.

    Args:
        rows: all that stand under the limit's key, read before.
        task: its id, whose slot this is.
        reserved_ms: when it was told to start, if it was.
    """
    slot = _free_slot(limit, rows, task, now_ms) if limit.concurrency is not None else None
    if limit.concurrency is not None and slot is None:
        return _wait_for_slot(limit.concurrency, rows, now_ms)
    rated = _rate(limit.rate, rows, now_ms, reserved_ms)
    if isinstance(rated, Waits):
        return rated
    puts, expects = rated
    if slot is None:
        return Admitted(puts, expects)
    before = _slot(rows, slot)
    held = Slot(task, now_ms + SLOT_LEASE_MS, now_ms, before.run_ms)
    return Admitted([*puts, (slot, _encode(held))], [*expects, (slot, rows.get(slot))], slot)


def renewed(value: bytes, *, task: str, now_ms: int) -> bytes | None:
    """A slot's row with its lease extended; None if the task does not hold it any more."""
    slot = msgspec.json.decode(value, type=Slot)
    if slot.task != task:
        return None
    return _encode(msgspec.structs.replace(slot, until_ms=now_ms + SLOT_LEASE_MS))


def released(value: bytes | None, *, task: str, now_ms: int) -> bytes | None:
    """A slot's row once the task has given it back; None if there is nothing that it holds."""
    slot = msgspec.json.decode(value, type=Slot) if value is not None else Slot()
    if slot.task != task:
        return None
    return _encode(Slot(run_ms=max(1, now_ms - slot.since_ms)))


def idle(rows: Rows, now_ms: int) -> bool:
    """Whether the rows say no more than if there were none."""
    for name, value in rows.items():
        if name.startswith(b"slot/"):
            slot = msgspec.json.decode(value, type=Slot)
            if slot.task and slot.until_ms > now_ms:
                return False
        elif int(value) > now_ms * 1_000:
            return False
    return True


def _rate(rate: Rate | None, rows: Rows, now_ms: int, reserved_ms: int | None) -> tuple[Puts, Puts] | Waits:
    if rate is None or (reserved_ms is not None and reserved_ms <= now_ms <= reserved_ms + rate.late_ms):
        return [], []
    row = rows.get(b"rate")
    start_us, next_us = reserve(_number(row), interval_us=rate.interval_us, burst=rate.burst, now_us=now_ms * 1_000)
    start_ms = -(-start_us // 1_000)
    if start_ms - now_ms > DEFER_MAX_MS:
        return Waits(now_ms + DEFER_MAX_MS, reserved=False, puts=[], expects=[])
    puts: Puts = [(b"rate", b"%d" % next_us)]
    expects: Puts = [(b"rate", row)]
    return (puts, expects) if start_ms <= now_ms else Waits(start_ms, reserved=True, puts=puts, expects=expects)


def _free_slot(limit: Limit, rows: Rows, task: str, now_ms: int) -> bytes | None:
    """The task's own slot, if it has one still; else the first free one. A limit that was lowered uses the first ones."""
    slots = {name: _slot(rows, name) for name in _slot_names(limit.concurrency or 0)}
    held = {name: _slot(rows, name) for name in rows if name.startswith(b"slot/")}
    own = next((name for name, slot in held.items() if slot.task == task and slot.until_ms > now_ms), None)
    if own is not None:
        return own
    busy = sum(slot.task != "" and slot.until_ms > now_ms for slot in held.values())
    if busy >= len(slots):
        return None
    return next(name for name, slot in slots.items() if not slot.task or slot.until_ms <= now_ms)


def _wait_for_slot(concurrency: int, rows: Rows, now_ms: int) -> Waits:
    held = [_slot(rows, name) for name in rows if name.startswith(b"slot/")]
    runs_ms = [max(slot.run_ms, now_ms - slot.since_ms) if slot.task else slot.run_ms for slot in held]
    interval_us = max(1, sum(runs_ms) * 1_000 // len(runs_ms) // concurrency // ASKS_PER_START)
    row = rows.get(b"wait")
    now_us = now_ms * 1_000
    start_us, next_us = reserve(_number(row), interval_us=interval_us, burst=1, now_us=now_us + interval_us)
    horizon_us = now_us + WAIT_MAX_MS * 1_000
    if start_us > horizon_us:  # the line is long: what was reckoned at its end is no use
        return Waits(now_ms + WAIT_MAX_MS, reserved=False, puts=[], expects=[])
    return Waits(-(-start_us // 1_000), reserved=False, puts=[(b"wait", b"%d" % next_us)], expects=[(b"wait", row)])


def _slot_names(concurrency: int) -> Sequence[bytes]:
    return [b"slot/%d" % number for number in range(concurrency)]


def _slot(rows: Rows, name: bytes) -> Slot:
    value = rows.get(name)
    return msgspec.json.decode(value, type=Slot) if value is not None else Slot()


def _number(row: bytes | None) -> int | None:
    return int(row) if row is not None else None


def _encode(slot: Slot) -> bytes:
    return msgspec.json.encode(slot)
