"""Steady time: milliseconds since 1970 that never step.

A deadline on a wall clock hides messages for an hour when somebody sets the clock back, and ends leases early when
somebody sets it forward. Steady time is anchored to the wall clock once and then runs with a clock that nobody can set.
Across a restart of the process on the same boot it goes on exactly (`CLOCK_BOOTTIME`, told apart by the boot id); after
a reboot it is the wall clock, but never earlier than what was stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

Clock = Callable[[], int]
"""Steady milliseconds since 1970. Tests pass a hand-moved one."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Anchor(msgspec.Struct, frozen=True):
    """What ties steady time to a boot: at `uptime_ns` of boot `boot`, steady time was `steady_ms`."""

    boot: str
    uptime_ns: int
    steady_ms: int


def uptime_ns() -> int:
    """Nanoseconds since boot, suspends included where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime_ns(clock) if clock is not None else time.monotonic_ns()


def boot_id() -> str:
    """A name for this boot of the machine; empty where the system gives none (then an anchor is never trusted)."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def resume(anchor: Anchor | None, *, boot: str, uptime: int, wall_ms: int, floor_ms: int = 0) -> int:
    """Steady time now, after a restart: exact on the same boot, else the wall clock; never before the anchor, nor
    before `floor_ms`, the latest time that was stored."""
    if anchor is None:
        return max(wall_ms, floor_ms)
    if boot and anchor.boot == boot and uptime >= anchor.uptime_ns:
        return max(floor_ms, anchor.steady_ms + (uptime - anchor.uptime_ns) // 1_000_000)
    return max(wall_ms, anchor.steady_ms, floor_ms)


class SteadyClock:
    """The clock of a store. Calling it gives steady ms; `anchor()` is what to store for the next start."""

    def __init__(self, anchor: Anchor | None = None, *, floor_ms: int = 0) -> None:
        self._boot = boot_id()
        started = uptime_ns()
        wall_ms = time.time_ns() // 1_000_000
        now = resume(anchor, boot=self._boot, uptime=started, wall_ms=wall_ms, floor_ms=floor_ms)
        self._offset_ns = now * 1_000_000 - started

    def __call__(self) -> int:
        return (uptime_ns() + self._offset_ns) // 1_000_000

    def anchor(self) -> Anchor:
        uptime = uptime_ns()
        return Anchor(self._boot, uptime, (uptime + self._offset_ns) // 1_000_000)


class ManualClock:
    """A clock that only a test moves."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> int:
        self.now_ms += ms
        return self.now_ms
