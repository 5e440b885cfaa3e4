"""How a process shares a pipeline with others: rows are exchanged by key, and all processes have one time.

Rows on their way to the process that has the state of their keys are values of the pipeline's own state. The commit that
acknowledges their input writes them, and the commit that processes them removes them. They are kept by shard and belong to
the process that has the shard when they are read, so nothing is forwarded when shards change hands.

The order in which `SharedRun.look` reads is essential. The others' progress is read first, then the open claims, then the
arrived rows: a commit in between is among these rows, and a claim in between lies behind in the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from headrace.native.client import Client
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, arn_of
from headrace.stream import limits, physical, plan
from headrace.stream.engine.arrow_tables import nullable, plain
from headrace.stream.engine.operator import NEVER
from headrace.stream.engine.shards import shard_of
from headrace.stream.engine.state_backend import pieces
from headrace.stream.runner import sharing, state_keys, watermarks
from headrace.stream.runner.batch import Batch
from headrace.stream.runner.commit import Change, Put
from headrace.stream.runner.job import Job
from headrace.stream.runner.membership import Owners
from headrace.stream.runner.progress import Progress, SourceProgress, decode_progress
from headrace.stream.runner.sharing import Exchange, SourceWatermarks
from headrace.stream.runner.store import RetryPolicy, Store
from headrace.stream.schema import Schema
from headrace.stream.sources.open import inbox_name, reader_name


class Shuffle:
    """The engine calls it with the rows before the exchange: it returns the rows of its own shards and keeps the others'.

    Args:
        exchange: the operator and its keys.
        schemas: the schemas of the rows, by input.
        shards: their number. `owned`: those of this slot.
    """

    def __init__(self, exchange: Exchange, schemas: list[Schema], *, shards: int, owned: frozenset[int]) -> None:
        self.place = exchange.place
        self._keys = exchange.keys
        self._schemas = schemas
        self._shards = shards
        self._owned = owned
        self._come: dict[int, list[pa.Table]] = {}
        self._leaving: list[tuple[int, int, pa.RecordBatch]] = []

    def take_in(self, values: Mapping[bytes, bytes]) -> None:
        """Add rows from other slots to the next step."""
        for key, value in sorted(values.items()):
            port = state_keys.read_shuffle_port(key)
            batch = pa.ipc.read_record_batch(pa.py_buffer(value), nullable(self._schemas[port]))
            self._come.setdefault(port, []).append(pa.Table.from_batches([batch]))

    def swap(self, port: int, rows: pa.Table | None) -> pa.Table | None:
        """The arrived rows for this input, and the own rows of `rows`."""
        come = self._come.pop(port, [])
        own = self._own(port, rows) if rows is not None and rows.num_rows else None
        if not come:
            return own
        if own is not None:
            come.append(plain(own, self._schemas[port]))
        return pa.concat_tables(come)

    def take_puts(self, slot: int, batch: int) -> list[Put]:
        """The rows for other slots, as keys and values for the step's commit."""
        leaving, self._leaving = self._leaving, []
        found: list[Put] = []
        for number, (shard, port, rows) in enumerate(leaving):
            key = state_keys.shuffle_key(shard, slot=slot, batch=batch, number=number, port=port)
            found.append((key, rows.serialize().to_pybytes()))
        return found

    def _own(self, port: int, rows: pa.Table) -> pa.Table | None:
        if len(self._owned) == self._shards:
            return rows
        numbers = shard_of(rows, self._keys[port], self._shards).to_numpy()
        own = np.isin(numbers, list(self._owned))
        for shard in np.unique(numbers[~own]).tolist():
            theirs = plain(rows.filter(pa.array(numbers == shard)), self._schemas[port])
            self._leaving += [
                (shard, port, piece) for batch in theirs.combine_chunks().to_batches() for piece in pieces(batch)
            ]
        return rows.filter(pa.array(own))


# --- A slot's part in a shared run ---


class SharedRun:
    """The part of one slot. Call `look` before a step, `note` for its commit, `committed` after it.

    Attributes:
        owned: the slot's shards.
        reached: the watermarks that their state has reached.
        together: the sources' progress over all slots.
    """

    def __init__(
        self,
        job: Job,
        exchange: Exchange,
        store: Store,
        client: Client,
        *,
        slot: int,
        owners: Owners,
        retry: RetryPolicy,
    ) -> None:
        self._job = job
        self._retry = retry
        self._store = store
        self._client = client
        self._slot = slot
        self._owners = owners
        self.owned = owners.shards_of(slot)
        self._timed: Final = {source.name: source.time for source in job.sources if source.time is not None}
        self._queues = {source.name: _queue_of(source, job.pipeline.name) for source in job.sources}
        self.shuffle = Shuffle(exchange, _exchange_schemas(job.physical, exchange), shards=job.shards, owned=self.owned)
        self._records: dict[int, Progress] = {}
        self._seen: dict[int, int] | None = None
        self._come: list[bytes] = []
        self._left: dict[int, dict[str, int]] = {}
        self.reached: SourceWatermarks = {}
        self.together: dict[str, SourceProgress] = {}
        self._pause_s = limits.SHUFFLE_LOOK_MIN_S

    # --- at the beginning ---

    def behind(self) -> dict[frozenset[int], SourceWatermarks]:
        """The own shards whose state is behind the latest one, by the watermarks that they have reached. They come
        from members that had advanced differently."""
        records = self._read()
        self._left = records.get(self._slot, Progress()).left
        names = list(self._timed)
        reached = {shard: sharing.watermarks_of_shard(records.values(), shard, names) for shard in self.owned}
        self.reached = sharing.latest_watermarks(reached.values(), names)
        groups: dict[tuple[int, ...], set[int]] = {}
        for shard, at in reached.items():
            if at != self.reached:
                groups.setdefault(tuple(at.values()), set()).add(shard)
        return {frozenset(shards): dict(zip(names, at, strict=True)) for at, shards in groups.items()}

    def take_in(self, shards: frozenset[int]) -> None:
        """Pass the arrived rows of these shards to the shuffle."""
        found: dict[bytes, bytes] = {}
        for shard in sorted(shards):
            found |= self._store.read(state_keys.shuffle_key(shard))
        self.shuffle.take_in(found)
        self._come += found

    # --- turns ---

    @property
    def stalled(self) -> bool:
        """Another slot is at the limit of unprocessed rows from this one."""
        mine = self._records.get(self._slot, Progress()).batch
        return any(
            mine - self._records.get(slot, Progress()).seen.get(self._slot, 0) > limits.SHUFFLE_BATCHES_MAX
            for slot in self._owners.slots
            if slot != self._slot
        )

    def look(
        self,
        sources: Mapping[str, SourceProgress],
        batch: Batch,
        *,
        ended: bool,
        pending: Callable[[], int | None],
    ) -> SourceWatermarks:
        """Take in the rows from others. Returns the watermarks for the step.

        Args:
            sources: the sources of this slot, after `batch`, which is about to be processed.
            ended: whether sources without input count as idle at once.
            pending: `Engine.pending`.
        """
        before = self._read()
        holding = {name: self._holding(name) for name in self._timed}
        settled = self._drain() and not any(record.unfinished for record in before.values())
        self._left = self._read_for_others(batch)
        mine = msgspec.structs.replace(before.get(self._slot, Progress()), sources=dict(sources), left=self._left)
        records = before | {self._slot: mine}
        self.together = {name: _together(name, records, holding.get(name, [])) for name in sources}
        if not settled:  # rows are on their way that are not visible yet
            return self._forward({})
        goal = self._forward({name: self.together[name].watermark for name in self._timed})
        rests = not (batch.chunks or self._come or any(holding.values()))
        return self._forward(goal | self._silent(goal, holding, ended=ended and rests, pending=pending))

    def has_changes(self, goal: SourceWatermarks) -> bool:
        """Whether there is something to commit although nothing was read."""
        if self._come or goal != self.reached or self._owes():
            self._pause_s = limits.SHUFFLE_LOOK_MIN_S
            return True
        return False

    def pause_s(self) -> float:
        """The pause before the next look, which grows while nothing happens."""
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, limits.SHUFFLE_LOOK_MAX_S)
        return pause_s

    def note(self, change: Change, progress: Progress, goal: SourceWatermarks) -> Progress:
        change.state += self.shuffle.take_puts(self._slot, progress.batch)
        change.state += [(key, None) for key in self._come]
        shards = None if len(self.owned) == self._job.shards else tuple(sorted(self.owned))
        return msgspec.structs.replace(
            progress,
            shards=shards,
            reached=goal,
            gave=self._given(),
            left=self._left,
            seen=progress.seen | (self._seen or {}),
        )

    def _given(self) -> dict[int, SourceWatermarks]:
        """The watermarks reached by the state of shards that another slot has now and may not have committed yet."""
        others = [record for slot, record in self._records.items() if slot != self._slot]
        mine = self._records.get(self._slot, Progress())
        return sharing.released_watermarks(mine, others, set(range(self._job.shards)) - self.owned, list(self._timed))

    def committed(self, progress: Progress, goal: SourceWatermarks) -> None:
        self._records[self._slot] = progress
        self.reached = goal
        self._come = []
        self._pause_s = limits.SHUFFLE_LOOK_MIN_S

    def _read(self) -> dict[int, Progress]:
        found = self._store.read(state_keys.PROGRESS)
        self._records = {state_keys.read_number(key): decode_progress(value) for key, value in found.items()}
        return self._records

    def _holding(self, source: str) -> list[int]:
        """The slots with open claims of this source."""
        found = []
        for slot in range(self._owners.used):
            asked = ops.GetClaims(self._queues[source], reader_name(self._job.pipeline.name, slot))
            state: ClaimState = self._retry.call(partial(self._client.call, asked))
            if state.acknowledged < state.last:
                found.append(slot)
        return found

    def _read_for_others(self, batch: Batch) -> dict[int, dict[str, int]]:
        """The watermarks of slots whose claims this one reads, by the rows read."""
        found = dict(self._records.get(self._slot, Progress()).left)
        for slot, sources in batch.left.items():
            before = found.get(slot, {})
            found[slot] = before | {
                name: watermarks.of_chunks(chunks, self._timed.get(name), before.get(name, NEVER))
                for name, chunks in sources.items()
            }
        return found

    def _drain(self) -> bool:
        """Take in the rows from others; False: more are on their way."""
        records = self._read()
        others = {slot: record for slot, record in records.items() if slot != self._slot}
        seen = {slot: record.batch for slot, record in others.items() if not record.unfinished}
        if seen != self._seen:
            self.take_in(self.owned)
            self._seen = seen
        return len(seen) == len(others)

    def _owes(self) -> bool:
        """Whether other slots may be waiting for this slot's watermark."""
        said = self._records.get(self._slot, Progress()).seen
        return any(
            batch - said.get(slot, 0) >= limits.SHUFFLE_BATCHES_MAX // 2 for slot, batch in (self._seen or {}).items()
        )

    def _forward(self, goal: Mapping[str, int]) -> SourceWatermarks:
        return {name: max(before, goal.get(name, NEVER)) for name, before in self.reached.items()}

    def _silent(
        self,
        goal: SourceWatermarks,
        holding: Mapping[str, list[int]],
        *,
        ended: bool,
        pending: Callable[[], int | None],
    ) -> dict[str, int]:
        """Where the watermarks of idle sources move to; claimed rows count as activity."""
        sources = {
            name: msgspec.structs.replace(source, watermark=goal.get(name, source.watermark))
            for name, source in self.together.items()
        }
        silent = watermarks.idle_sources(sources, self._timed, self._store.now_ms())
        idle = [name for name in self._timed if ended or (name in silent and not holding[name])]
        return watermarks.idle_watermarks(sources, self._timed, idle, pending()) if idle else {}


def _together(name: str, records: Mapping[int, Progress], holding: list[int]) -> SourceProgress:
    """The progress of a source over all slots."""
    return SourceProgress(
        watermark=sharing.watermark(sharing.watermarks_of_slots(records, name), holding),
        heard_ms=max(record.sources[name].heard_ms for record in records.values() if name in record.sources),
    )


def _queue_of(source: plan.Source, pipeline: str) -> str:
    assert isinstance(source, plan.QueueSource | plan.TopicSource)  # others are not shared
    return arn_of(source.queue if isinstance(source, plan.QueueSource) else inbox_name(pipeline, source.topic))


def _exchange_schemas(plan_: physical.PhysicalPlan, exchange: Exchange) -> list[Schema]:
    return [plan_.operators[place].schema for place in physical.inputs_of(plan_.operators[exchange.place])]
