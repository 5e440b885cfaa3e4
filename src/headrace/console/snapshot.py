"""What the console knows of the broker at one moment: plain records, frozen. Pages are functions of them."""

from __future__ import annotations

from heapq import nlargest
from typing import Any

import msgspec

from headrace.console import limits
from headrace.console.rates import rate, time_to_empty_s
from headrace.native.protocol import BrokerAbout, BrokerStatistics
from headrace.presence import quantile
from headrace.queue.model import HolderState, QueueDescription, TopicDescription, short_name
from headrace.queue.store.base import StoreStatistics
from headrace.stream_state import PipelineState


class QueueLine(msgspec.Struct, frozen=True):
    """A queue, with what it did between the last two looks, a second.

    Attributes:
        dead_letters: the name of its dead-letter queue; empty without one.
        letters_of: the names of the queues whose dead letters come here.
        oldest_s: how long its oldest waiting message waits; None: none does.
        sent_rate, received_rate, deleted_rate: messages a second.
        to_empty_s: when its backlog will be gone if all goes on so; None: never.
        consumers: the names of the holders that take from it, as far as they say so.
    """

    name: str
    arn: str
    fifo: bool
    visible: int
    in_flight: int
    delayed: int
    oldest_s: float | None
    sent_rate: float
    received_rate: float
    deleted_rate: float
    to_empty_s: float | None
    sent: int
    received: int
    deleted: int
    dead_lettered: int
    expired: int
    damaged: int
    dead_letters: str
    letters_of: tuple[str, ...]
    consumers: tuple[str, ...]

    @property
    def for_letters(self) -> bool:
        """Whether it is there for dead letters: some queue says so, or its name does (tasks' and durable requests')."""
        return bool(self.letters_of) or self.name.removesuffix(".fifo").endswith("-dead")

    @property
    def depth(self) -> int:
        """All its messages, whatever their state."""
        return self.visible + self.in_flight + self.delayed


class StoreLine(msgspec.Struct, frozen=True):
    """The broker's store. Rates are a second, between the last two looks; `commit_ms` is a commit's mean there, and
    `commit_p99_ms` what 99 of 100 took at most."""

    commit_rate: float
    operations_each: float
    commit_ms: float
    size_bytes: int
    damaged: int
    full: bool
    failed: str | None
    commit_p99_ms: float = 0.0


class Look(msgspec.Struct, frozen=True):
    """What one look at the broker brought, as it came."""

    statistics: BrokerStatistics
    queues: list[QueueDescription] = []
    topics: list[TopicDescription] = []
    holders: list[HolderState] = []
    pipelines: list[PipelineState] = []


class Snapshot(msgspec.Struct, frozen=True):
    """The broker at one moment.

    Attributes:
        about: the broker's process; None of an older version.
        number: rises with every look, also one that failed.
        at_ms: the broker's steady time.
        seconds: since the look before; what rates are of. 0: there was none.
        problem: why the last look failed, in words; then the rest is of the last that succeeded. None: all is well.
        queues, topics, holders, pipelines: sorted by name.
        topic_rates: ARN of a topic → messages published a second.
        pipeline_rates: pipeline → rows in and rows out a second.
    """

    number: int = 0
    at_ms: int = 0
    seconds: float = 0.0
    problem: str | None = None
    queues: tuple[QueueLine, ...] = ()
    topics: tuple[TopicDescription, ...] = ()
    holders: tuple[HolderState, ...] = ()
    pipelines: tuple[PipelineState, ...] = ()
    topic_rates: dict[str, float] = {}
    pipeline_rates: dict[str, tuple[float, float]] = {}
    store: StoreLine = StoreLine(0.0, 0.0, 0.0, 0, 0, False, None)
    about: BrokerAbout | None = None

    def queue(self, name: str) -> QueueLine | None:
        return next((line for line in self.queues if line.name == name), None)

    def holders_of(self, kind: str) -> tuple[HolderState, ...]:
        return tuple(holder for holder in self.holders if holder.kind == kind)


def build(before: Look | None, now: Look, *, number: int) -> Snapshot:
    """The snapshot of a look. Pure.

    Args:
        before: the look before, for rates; None: there was none.
    """
    seconds = 0.0 if before is None else (now.statistics.now_ms - before.statistics.now_ms) / 1_000
    old = {} if before is None else {description.info.arn: description for description in before.queues}
    letters_of: dict[str, list[str]] = {}
    for description in now.queues:
        redrive = description.info.settings.redrive
        if redrive is not None:
            letters_of.setdefault(redrive.target, []).append(short_name(description.info.arn))
    consumers = _consumers(now)
    return Snapshot(
        number=number,
        at_ms=now.statistics.now_ms,
        seconds=seconds,
        queues=tuple(
            _queue(
                old.get(description.info.arn),
                description,
                now.statistics.now_ms,
                seconds,
                tuple(letters_of.get(description.info.arn, ())),
                tuple(consumers.get(short_name(description.info.arn), ())),
            )
            for description in sorted(now.queues, key=lambda description: short_name(description.info.arn))
        ),
        topics=tuple(now.topics),
        holders=tuple(now.holders),
        pipelines=tuple(now.pipelines),
        topic_rates=_topic_rates(before.topics if before is not None else [], now.topics, seconds),
        pipeline_rates=_pipeline_rates(before.pipelines if before is not None else [], now.pipelines, seconds),
        about=now.statistics.about,
        store=_store(before.statistics if before is not None else None, now.statistics, seconds),
    )


def _topic_rates(before: list[TopicDescription], now: list[TopicDescription], seconds: float) -> dict[str, float]:
    old = {topic.info.arn: topic.counts.published for topic in before}
    return {topic.info.arn: rate(old.get(topic.info.arn), topic.counts.published, seconds) for topic in now}


def _pipeline_rates(
    before: list[PipelineState], now: list[PipelineState], seconds: float
) -> dict[str, tuple[float, float]]:
    old = {state.name: state for state in before}
    found = {}
    for state in now:
        known = old.get(state.name)
        rows_in, rows_out = (None, None) if known is None else (known.rows_in, known.rows_out)
        found[state.name] = (rate(rows_in, state.rows_in, seconds), rate(rows_out, state.rows_out, seconds))
    return found


def series_of(snapshot: Snapshot) -> dict[str, float]:
    """What of a snapshot goes into the history, by series: `queue/NAME/visible`, `all/sent`, `store/commit_ms`, …"""
    found: dict[str, float] = {}
    for line in nlargest(limits.QUEUES_KEPT_MAX, snapshot.queues, key=_activity):
        found |= {f"queue/{line.name}/{what}": value for what, value in _moving(line).items()}
    live = [line for line in snapshot.queues if not line.for_letters]  # letters wait for a person
    found |= {
        "all/visible": float(sum(line.visible for line in live)),
        "all/in_flight": float(sum(line.in_flight for line in live)),
        "all/sent": sum(line.sent_rate for line in live),
        "all/deleted": sum(line.deleted_rate for line in live),
        "store/commits": snapshot.store.commit_rate,
        "store/commit_ms": snapshot.store.commit_ms,
        "store/commit_p99_ms": snapshot.store.commit_p99_ms,
    }
    for topic in snapshot.topics:
        name = short_name(topic.info.arn)
        found[f"topic/{name}/published"] = snapshot.topic_rates.get(topic.info.arn, 0.0)
        found[f"topic/{name}/logged"] = float(topic.counts.logged)
    for pipeline in snapshot.pipelines:
        found[f"stream/{pipeline.name}/state_bytes"] = float(pipeline.state_bytes)
    return found


def _activity(line: QueueLine) -> float:
    return line.sent_rate + line.received_rate + line.deleted_rate + line.depth


def _moving(line: QueueLine) -> dict[str, float]:
    return {
        "visible": float(line.visible),
        "in_flight": float(line.in_flight),
        "delayed": float(line.delayed),
        "oldest_s": line.oldest_s or 0.0,
        "sent": line.sent_rate,
        "received": line.received_rate,
        "deleted": line.deleted_rate,
    }


def _consumers(look: Look) -> dict[str, list[str]]:
    """Queue name → who takes from it: holders that say so, and pipelines that somebody runs."""
    found: dict[str, list[str]] = {}
    for holder in look.holders:
        for queue in names_of(holder.facts.get("queues")):
            found.setdefault(queue, []).append(pipeline_of(holder) or holder.holder)
    for pipeline in look.pipelines:
        for source in pipeline.sources:
            if source.queue and pipeline.processes:
                found.setdefault(source.queue, []).append(pipeline.name)
    return {queue: list(dict.fromkeys(names)) for queue, names in found.items()}


def pipeline_of(holder: HolderState) -> str:
    """The pipeline that a process runs; empty if it runs none."""
    name = holder.facts.get("pipeline")
    return name if holder.kind == "stream" and isinstance(name, str) else ""


def names_of(value: Any) -> list[str]:
    """Facts are what somebody says: anything may stand there."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _queue(
    before: QueueDescription | None,
    now: QueueDescription,
    now_ms: int,
    seconds: float,
    letters_of: tuple[str, ...],
    consumers: tuple[str, ...],
) -> QueueLine:
    info, counts = now.info, now.counts
    old = before.counts if before is not None and before.info.created_ms == info.created_ms else None
    sent_rate = rate(old.sent if old is not None else None, counts.sent, seconds)
    deleted_rate = rate(old.deleted if old is not None else None, counts.deleted, seconds)
    return QueueLine(
        name=short_name(info.arn),
        arn=info.arn,
        fifo=info.settings.fifo,
        visible=counts.visible,
        in_flight=counts.in_flight,
        delayed=counts.delayed,
        oldest_s=max(0.0, (now_ms - counts.oldest_ms) / 1_000) if counts.oldest_ms is not None else None,
        sent_rate=sent_rate,
        received_rate=rate(old.received if old is not None else None, counts.received, seconds),
        deleted_rate=deleted_rate,
        to_empty_s=time_to_empty_s(counts.visible, sent_rate, deleted_rate),
        sent=counts.sent,
        received=counts.received,
        deleted=counts.deleted,
        dead_lettered=counts.dead_lettered,
        expired=counts.expired,
        damaged=counts.damaged,
        dead_letters=short_name(info.settings.redrive.target) if info.settings.redrive is not None else "",
        letters_of=letters_of,
        consumers=consumers,
    )


def _store(before: BrokerStatistics | None, now: BrokerStatistics, seconds: float) -> StoreLine:
    new = now.store
    old = before.store if before is not None and before.store.commits <= new.commits else None
    commits = new.commits - (old.commits if old is not None else 0)
    took_s = new.commit_seconds - (old.commit_seconds if old is not None else 0.0)
    operations = new.commit_operations - (old.commit_operations if old is not None else 0)
    return StoreLine(
        commit_rate=commits / seconds if seconds > 0 else 0.0,
        operations_each=operations / commits if commits else 0.0,
        commit_ms=took_s / commits * 1_000 if commits else 0.0,
        size_bytes=new.size_bytes,
        damaged=new.damaged,
        full=new.full,
        failed=new.failed,
        commit_p99_ms=quantile(new.commit_bounds, _growth(old, new), 0.99) * 1_000,
    )


def _growth(old: StoreStatistics | None, new: StoreStatistics) -> list[int]:
    """How many commits came to each bucket of time."""
    before = old.commit_buckets if old is not None else (0,) * len(new.commit_buckets)
    return [after - count for count, after in zip(before, new.commit_buckets, strict=True)]
