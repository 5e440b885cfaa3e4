"""The machine: descriptors, processes, what a container may use, the clock, versions."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from headrace.clock import Anchor, boot_id, resume, uptime_ns
from headrace.doctor.lines import Line, ok, problem, size_text, warning
from headrace.queue.store.folder import unpack_anchor

DESCRIPTORS_MIN: Final = 4_096  # a connection each, for a small server
PROCESSES_MIN: Final = 256
MEMORY_MIN_BYTES: Final = 256 * 1_048_576  # a broker with a full cache and one worker
STEP_MS: Final = 5_000  # what clocks that are kept in step drift never reaches
UNSYNCHRONISED: Final = 5  # TIME_ERROR of adjtimex(2)
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?([^;]*)(?:;(.*))?$")
_BOUND: Final = re.compile(r"(>=|<=|<|>|==|!=|~=)\s*([0-9][0-9.]*)")


def look_at_machine(data: Path) -> Iterator[Line]:
    yield judge_limit("descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[1], DESCRIPTORS_MIN, "nofile")
    if hasattr(resource, "RLIMIT_NPROC"):
        yield judge_limit("processes", resource.getrlimit(resource.RLIMIT_NPROC)[0], PROCESSES_MIN, "nproc")
    yield from look_at_cgroup(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    yield judge_synchronised(clock_state())
    anchor = data / "clock.json"
    if anchor.is_file():
        yield judge_step(unpack_anchor(anchor.read_bytes()), wall_ms=time.time_ns() // 1_000_000)
    yield from look_at_versions()


def judge_limit(subject: str, limit: int, least: int, name: str) -> Line:
    if limit == resource.RLIM_INFINITY:
        return ok(subject, "no limit")
    if limit < least:
        return warning(subject, f"at most {limit:,}", f"raise the hard limit of {name} to {least:,} or more")
    return ok(subject, f"at most {limit:,}")


def look_at_cgroup(membership: Path, root: Path) -> Iterator[Line]:
    """Limits of the control group (version 2) that this process is in, and of those above it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory, share = None, None
    for folder in _groups(membership, root):
        memory = _least(memory, _memory_max(folder))
        share = _least(share, _cpu_max(folder))
    yield ok("cpu", f"{cores} cores" + (f", limited to {share:g}" if share is not None else ""))
    if memory is None:
        yield ok(
            "memory", f"{size_text(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))}, no limit of a group"
        )
    elif memory < MEMORY_MIN_BYTES:
        yield warning("memory", f"limited to {size_text(memory)}", f"allow {size_text(MEMORY_MIN_BYTES)} or more")
    else:
        yield ok("memory", f"limited to {size_text(memory)}")


def _groups(membership: Path, root: Path) -> list[Path]:
    try:
        line = next(line for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = root / line.removeprefix("0::").lstrip("/")
    return [group, *[path for path in group.parents if root == path or root in path.parents]]


def _least(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _memory_max(folder: Path) -> float | None:
    text = _text(folder / "memory.max")
    return float(text) if text.isdigit() else None


def _cpu_max(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def clock_state() -> int | None:
    """What adjtimex(2) answers; None where it is not there, or forbidden."""
    try:
        state: int = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (AttributeError, OSError):
        return None
    return state if state >= 0 else None


def judge_synchronised(state: int | None) -> Line:
    if state is None:
        return ok("clock", "whether it is synchronised cannot be told here")
    if state == UNSYNCHRONISED:
        return warning("clock", "nobody keeps the wall clock right", "run chrony or systemd-timesyncd")
    return ok("clock", "synchronised")


def judge_step(anchor: Anchor | None, *, wall_ms: int) -> Line:
    """The store's steady clock goes on where it was; by how much has the wall clock been set since?"""
    if anchor is None:
        return warning("clock of the store", "clock.json is damaged", "`headrace fsck` looks at the rest")
    steady_ms = resume(anchor, boot=boot_id(), uptime=uptime_ns(), wall_ms=wall_ms)
    ahead_ms = steady_ms - wall_ms
    if abs(ahead_ms) > STEP_MS:
        fact = f"{abs(ahead_ms) / 1_000:,.0f} s {'ahead of' if ahead_ms > 0 else 'behind'} the wall clock"
        return warning(
            "clock of the store", fact, "the wall clock was set; sent times differ by that, deadlines are right"
        )
    return ok("clock of the store", "in step with the wall clock")


def look_at_versions() -> Iterator[Line]:
    import apsw  # noqa: PLC0415 - only looked at

    version = importlib.metadata.version("headrace")
    yield ok("versions", f"headrace {version}, Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}")
    yield from judge_libraries(importlib.metadata.requires("headrace") or [], _installed())


def _installed() -> dict[str, str]:
    return {_plain(found.name): found.version for found in importlib.metadata.distributions() if found.name}


def judge_libraries(requirements: list[str], installed: Mapping[str, str]) -> Iterator[Line]:
    """Those that the base needs, and those of extras as far as they are there."""
    wrong = 0
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found is None:
            continue
        name, bounds, marker = found[1], found[2], found[3] or ""
        version = installed.get(_plain(name))
        if version is None and "extra" not in marker:
            wrong += 1
            yield problem("libraries", f"{name} is not installed", f"pip install '{name}{bounds.strip()}'")
        elif version is not None and not within(version, bounds):
            wrong += 1
            yield problem("libraries", f"{name} is {version}", f"pip install '{name}{bounds.strip()}'")
    if not wrong:
        yield ok("libraries", "all within their bounds")


def within(version: str, bounds: str) -> bool:
    """Whether a version fits `>=1.5,<3`. Only numbers are compared."""
    for relation, bound in _BOUND.findall(bounds):
        ours, theirs = _numbers(version), _numbers(bound)
        width = max(len(ours), len(theirs))
        one, other = (numbers + (0,) * (width - len(numbers)) for numbers in (ours, theirs))
        if (relation == ">=" and one < other) or (relation == "<" and one >= other):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
