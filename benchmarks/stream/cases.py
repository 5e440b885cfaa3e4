"""The measurements, one after the other, each in processes of its own. What fails is named; the others go on."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import servers
from benchmarks.nexmark.generator import write_parquet
from benchmarks.stream import latency, running
from benchmarks.stream.measuring import Usage
from benchmarks.stream.plan import DISORDER_US, PART_EVENTS, QUERIES, QUEUE_QUERIES, SPARK_BATCH_MESSAGES, Plan
from benchmarks.stream.results import (
    DUCKDB,
    HEADRACE,
    PARTS,
    SPARK,
    SPARK_CASE,
    FileRow,
    FixedRow,
    QueueRow,
    StreamResults,
)

Say = Callable[[str], None]


def measure(results: StreamResults, plan: Plan, parts: Sequence[str], *, peers: bool, data: Path, say: Say) -> None:
    """Fill in the results, part by part. `peers`: Spark and DuckDB, too."""
    every = {
        "files": lambda: _files(results, plan, peers=peers, data=data, say=say),
        "queues": lambda: _queues(results, plan, data, say),
        "latency": lambda: _latency(results, plan, data, say),
        "fixed": lambda: _fixed(results, plan, data, say),
        "spark": lambda: _spark(results, plan, data, say) if peers else None,
    }
    for part in PARTS:
        if part in parts:
            with _tried(part, say):
                every[part]()


@contextmanager
def _tried(what: str, say: Say) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as failed:
        say(f"{what} is left out: {failed}")


def _files(results: StreamResults, plan: Plan, *, peers: bool, data: Path, say: Say) -> None:
    folder = data / "nexmark"
    say(f"writing {plan.events:,} events")
    write_parquet(folder, plan.events, parts=max(1, plan.events // PART_EVENTS), disorder_us=DISORDER_US)
    for query in QUERIES:
        rounds = {HEADRACE: plan.rounds, **({SPARK: 1, DUCKDB: plan.rounds} if peers else {})}
        found: dict[str, list[Usage]] = {engine: [] for engine in rounds}
        for number in range(plan.rounds):
            for engine in (engine for engine, count in rounds.items() if number < count):
                say(f"{query}, {engine}")
                with _tried(f"{engine}, {query}", say):
                    found[engine].append(_file_usage(engine, query, folder, plan, data / "files.log"))
        results.files += [FileRow(query, engine, plan.events, _median(some)) for engine, some in found.items() if some]
        _compare(query, {engine: some[0].rows for engine, some in found.items() if some}, say)


def _file_usage(engine: str, query: str, folder: Path, plan: Plan, log: Path) -> Usage:
    return Usage(**running.run("nexmark_files", engine, query, folder, timeout_s=plan.timeout_s, log=log))


def _median(some: Sequence[Usage]) -> Usage:
    middle = statistics.median_low(usage.seconds for usage in some)
    return next(usage for usage in some if usage.seconds == middle)


def _compare(query: str, rows: dict[str, int], say: Say) -> None:
    """A speed at which the wrong rows come out is none."""
    if HEADRACE in rows and DUCKDB in rows and rows[HEADRACE] != rows[DUCKDB]:
        say(f"{HEADRACE}, {query} is left out: {rows[HEADRACE]:,} rows came out, {rows[DUCKDB]:,} are right")


def _queues(results: StreamResults, plan: Plan, data: Path, say: Say) -> None:
    for form, title, events in (("arrow", "Arrow", plan.arrow_events), ("json", "JSON", plan.json_events)):
        for query in QUEUE_QUERIES:
            case = f"{query}, {title} bodies" if form == "arrow" else f"{query}, one {title} event a message"
            say(case)
            with _tried(f"{HEADRACE}, {case}", say), _broker(data) as broker:
                log = data / "queues.log"
                filled = _fill(broker, form, events, plan, log)
                used_s = broker.cpu_s()
                arguments = ("run", broker.endpoint, form, query)
                usage = Usage(**running.run("through_queue", *arguments, timeout_s=plan.timeout_s, log=log))
                results.queues.append(QueueRow(case, **filled, broker_cpu_s=broker.cpu_s() - used_s, usage=usage))


def _latency(results: StreamResults, plan: Plan, data: Path, say: Say) -> None:
    say("latency")
    with _broker(data) as broker:
        results.latency.append(latency.measure(broker.endpoint, seconds=plan.latency_s, log=data / "latency.log"))


def _fixed(results: StreamResults, plan: Plan, data: Path, say: Say) -> None:
    for query in QUEUE_QUERIES:
        say(f"batches of one row, {query}")
        log = data / "fixed.log"
        with _tried(f"{HEADRACE}, batches of one row, {query}", say), _broker(data) as broker:
            for state, place in (("in memory", ()), ("durable", (broker.endpoint,))):
                got = running.run("fixed_cost", query, plan.batches, *place, timeout_s=plan.timeout_s, log=log)
                results.fixed.append(FixedRow(query, state, got["cpu_ms"]))


def _spark(results: StreamResults, plan: Plan, data: Path, say: Say) -> None:
    say("the data source of Spark")
    with _broker(data) as broker:
        log = data / "spark.log"
        filled = _fill(broker, "json", plan.spark_messages, plan, log)
        used_s = broker.cpu_s()
        usage = Usage(**running.run("spark_source", broker.endpoint, timeout_s=plan.timeout_s, log=log))
        first = SPARK_BATCH_MESSAGES if filled["messages"] > SPARK_BATCH_MESSAGES else 0
        row = QueueRow(SPARK_CASE, **filled, broker_cpu_s=broker.cpu_s() - used_s, usage=usage, first_events=first)
        results.queues.append(row)


def _fill(broker: servers.Running, form: str, events: int, plan: Plan, log: Path) -> dict[str, int]:
    return running.run("through_queue", "fill", broker.endpoint, form, events, timeout_s=plan.timeout_s, log=log)


@contextmanager
def _broker(data: Path) -> Iterator[servers.Running]:
    with servers.running(servers.headrace(), data, data / "broker") as broker:
        yield broker
