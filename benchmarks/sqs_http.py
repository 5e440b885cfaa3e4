"""The SQS API over HTTP: headrace against emulators, in the same run on the same machine.

Servers take turns (A B C A B C …), each started fresh on an empty folder for its turn and alone while it is measured.
The tables show medians over the rounds. CPU is what all of a server's processes used a message, so that a rate that
was won by burning a second core shows.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.http_load import Measured, Target
from benchmarks.plan import Plan
from benchmarks.servers import Running, Server, running
from benchmarks.sqs_wire import BadAnswer

FILL_LIMIT_S: Final = 30
"""A backlog that takes a server longer than this is cut to what it takes in this time."""


@dataclass(frozen=True)
class Sample:
    """One measurement of one server."""

    server: str
    durable: str
    case: str
    connections: int
    messages_per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    generator_cpu_share: float
    memory_mib: float
    backlog: int = 0


@dataclass(frozen=True)
class Row:
    """The medians of a server's samples of one case, and headrace's rate over this server's."""

    server: str
    durable: str
    case: str
    connections: int
    rounds: int
    messages_per_s: float
    spread: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    generator_cpu_share: float
    backlog: int
    ratio: float | None


def measure(servers: Sequence[Server], plan: Plan, *, cache: Path, data: Path, say: Callable[[str], None]) -> list[Row]:
    """All rounds of all servers. A server that fails is reported by `say` and has no further rounds."""
    samples: list[Sample] = []
    active = list(servers)
    for number in range(plan.rounds):
        for server in list(active):
            say(f"round {number + 1} of {plan.rounds}: {server.name}")
            try:
                with running(server, cache, data / f"{server.name}-{number}") as process:
                    samples += _turn(server, process, plan)
            except (BadAnswer, RuntimeError, OSError) as failed:
                say(f"{server.name} is left out from here on: {failed}")
                active.remove(server)
        if number + 1 >= plan.slow_rounds:
            active = [server for server in active if server.name not in _slow(samples)]
    return list(_summarise(samples))


def _slow(samples: list[Sample]) -> set[str]:
    """Servers below a tenth of the fastest in every case: more rounds of them would only cost time."""
    best: dict[tuple[str, int], float] = defaultdict(float)
    for sample in samples:
        best[sample.case, sample.connections] = max(best[sample.case, sample.connections], sample.messages_per_s)
    quick = {s.server for s in samples if s.messages_per_s > best[s.case, s.connections] / 10}
    return {sample.server for sample in samples} - quick


def _turn(server: Server, process: Running, plan: Plan) -> Iterator[Sample]:
    for connections in plan.connections:
        for mode in ("send", "send_batch", "cycle"):
            target = Target(process.endpoint, f"{mode}-{connections}")
            yield _sample(server, process, target, mode, connections=connections, seconds=plan.seconds)
    target = Target(process.endpoint, "drain")
    waiting = target.fill(plan.backlog, seconds=FILL_LIMIT_S)
    connections = plan.connections[0]
    yield _sample(server, process, target, "drain", connections=connections, seconds=plan.seconds, backlog=waiting)


def _sample(
    server: Server, process: Running, target: Target, mode: str, *, connections: int, seconds: float, backlog: int = 0
) -> Sample:
    started: list[float] = []
    measured: Measured = target.measure(
        mode,
        connections=connections,
        seconds=seconds,
        warmup_s=0.0 if backlog else min(0.5, seconds / 4),
        messages=backlog * 9 // 10 if backlog else float("inf"),
        at_start=lambda: started.append(process.cpu_s()),
    )
    used_s = process.cpu_s() - started[0]
    return Sample(
        server=server.name,
        durable=server.durable,
        case=mode,
        connections=connections,
        messages_per_s=measured.messages_per_s,
        cpu_us=used_s / max(1, measured.messages) * 1e6,
        p50_ms=measured.p50_ms,
        p99_ms=measured.p99_ms,
        generator_cpu_share=measured.generator_cpu_share,
        memory_mib=process.memory_mib(),
        backlog=backlog,
    )


def _summarise(samples: Iterable[Sample]) -> Iterator[Row]:
    groups: dict[tuple[str, int, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.case, sample.connections, sample.server].append(sample)
    rates = {key: statistics.median(s.messages_per_s for s in group) for key, group in groups.items()}
    for (case, connections, server), group in groups.items():
        ours, rate = rates.get((case, connections, "headrace")), rates[case, connections, server]
        every = [sample.messages_per_s for sample in group]
        yield Row(
            server=server,
            durable=group[0].durable,
            case=case,
            connections=connections,
            rounds=len(group),
            messages_per_s=rate,
            spread=(max(every) - min(every)) / rate if rate else 0.0,
            cpu_us=statistics.median(s.cpu_us for s in group),
            p50_ms=statistics.median(s.p50_ms for s in group),
            p99_ms=statistics.median(s.p99_ms for s in group),
            generator_cpu_share=statistics.median(s.generator_cpu_share for s in group),
            backlog=min(s.backlog for s in group),
            ratio=ours / rate if ours and rate else None,
        )
