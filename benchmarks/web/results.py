"""All that a run measured, on disk as JSON, and whether it is what was aimed at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

from benchmarks.runs import Run, Verdict
from benchmarks.web.files import FileRow
from benchmarks.web.open_loop import Outcomes
from benchmarks.web.speed import SpeedRow
from benchmarks.web.trouble import MixedRow, OverloadRow

OURS: Final = ("headrace", "headrace --direct")
GOODPUT: Final = 0.95
ACCEPTED_P99_MS: Final = 500.0
SMALL_FILES: Final = 0.5
LARGE_FILES: Final = 0.95
"""Of nginx's throughput: both send by sendfile, so that equal is the aim, and 5 % is noise."""


@dataclass
class WebResults(Run):
    """One run."""

    prefix: ClassVar[str] = "web-"

    speed: list[SpeedRow] = field(default_factory=list)
    overload: list[OverloadRow] = field(default_factory=list)
    mixed: list[MixedRow] = field(default_factory=list)
    files: list[FileRow] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        found = json.loads(path.read_text())
        figures = {
            "speed": [SpeedRow(**row) for row in found["speed"]],
            "overload": [OverloadRow(**row | {"outcomes": Outcomes(**row["outcomes"])}) for row in found["overload"]],
            "mixed": [MixedRow(**row | {"outcomes": Outcomes(**row["outcomes"])}) for row in found["mixed"]],
            "files": [FileRow(**row) for row in found["files"]],
        }
        return cls(**found | figures)


def verdicts(results: WebResults) -> list[Verdict]:
    """Every aim that this run has figures for."""
    return [
        *_speed(results.speed),
        *_overload(results.overload),
        *_mixed(results.mixed),
        *_files(results.files),
    ]


def _speed(rows: Sequence[SpeedRow]) -> Iterator[Verdict]:
    cost = {(row.app, row.server): row.cpu_us for row in rows}
    for app in ("Flask", "Django", "FastAPI"):
        peers = {server: us for (of, server), us in cost.items() if of == app and server not in OURS}
        if not peers or (app, OURS[1]) not in cost:
            continue
        best = min(peers, key=peers.__getitem__)
        yield _at_most(f"{app}, direct: CPU as the best peer ({best})", cost[app, OURS[1]], peers[best], "µs")
    yield from _against(cost, "Django", "granian WSGI", share=1.0, ours=OURS[:1])
    yield from _against(cost, "Flask", "gunicorn gthread", share=0.5, ours=OURS[:1])
    yield from _against(cost, "Flask", "nginx + gunicorn gthread", share=1.0, ours=OURS)
    yield from _against(cost, "Django", "nginx + gunicorn gthread", share=1.0, ours=OURS)
    yield from _against(cost, "FastAPI", "nginx + uvicorn", share=1.0, ours=OURS)


def _against(
    cost: dict[tuple[str, str], float], app: str, peer: str, *, share: float, ours: Sequence[str]
) -> Iterator[Verdict]:
    for server in ours:
        if (app, peer) in cost and (app, server) in cost:
            part = "" if share == 1.0 else f"{share:g} × "
            yield _at_most(
                f"{app}, {server}: CPU at most {part}{peer}", cost[app, server], cost[app, peer] * share, "µs"
            )


def _at_most(aim: str, value: float, bound: float, unit: str) -> Verdict:
    return Verdict(aim, f"{value:.0f} {unit}", f"≤ {bound:.0f} {unit}", value <= bound)


def _overload(rows: Sequence[OverloadRow]) -> Iterator[Verdict]:
    for row in rows:
        if row.server in OURS:
            got, name = row.outcomes, f"Overload, {row.app}, {row.server}"
            yield Verdict(f"{name}: goodput", f"{row.goodput:.0%}", f"≥ {GOODPUT:.0%}", row.goodput >= GOODPUT)
            yield _at_most(f"{name}: p99 of the answered", got.p99_ms, ACCEPTED_P99_MS, "ms")
            lost = got.hang + got.cut
            yield Verdict(f"{name}: neither answered nor refused in time", f"{lost:.1%}", "0.0%", lost < 0.0005)


def _mixed(rows: Sequence[MixedRow]) -> Iterator[Verdict]:
    for row in rows:
        peers = [each.outcomes.p99_ms for each in rows if each.app == row.app and each.server not in OURS]
        if row.server in OURS and peers:
            name = f"Mixed, {row.app}, {row.server}: p99 of the fast below every peer's"
            yield _at_most(name, row.outcomes.p99_ms, min(peers), "ms")


def _files(rows: Sequence[FileRow]) -> Iterator[Verdict]:
    rates = {(row.server, row.file_bytes): row.requests_per_s for row in rows}
    for size in sorted({row.file_bytes for row in rows}):
        if ("nginx", size) in rates and ("headrace", size) in rates:
            ratio, bound = rates["headrace", size] / rates["nginx", size], LARGE_FILES if size > 2**20 else SMALL_FILES
            yield Verdict(f"Files of {size:,} B: of nginx's rate", f"{ratio:.2f}x", f"≥ {bound:g}x", ratio >= bound)
