"""The progress of a pipeline, which each commit writes under `progress/SLOT` and expects to find there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.stream.engine.operator import END, NEVER

BACKFILL_TOPIC: Final = "topic"
"""The value of `backfill` that reads a topic's log from its beginning, instead of files."""


class SourceProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """The progress of one source.

    Attributes:
        watermark: µs; END once it has ended.
        position: where its reader continues; empty: the beginning, or (queues) the claims that the store knows.
        rows: the number of rows since the pipeline's first start.
        heard_ms: steady time of its last input, or of the start: the durable timer of idle closing.
        backfill: what is read before new rows: the path of files, or BACKFILL_TOPIC; None: nothing.
    """

    watermark: int = NEVER
    position: bytes = b""
    rows: int = 0
    heard_ms: int = 0
    backfill: str | None = None

    @property
    def ended(self) -> bool:
        return self.watermark >= END

    @property
    def files(self) -> str | None:
        """The files that are read before the source itself. If there are some, `position` is a BackfillPosition."""
        return None if self.backfill == BACKFILL_TOPIC else self.backfill


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """The progress of a slot. No two commits write equal bytes, so reading them shows whose commit succeeded.

    Attributes:
        commit: the number of commits. `by`: a random name of the run that made the last one.
        batch: the number of processed batches.
        sources: by name.
        rows_out, late, dead: rows since the pipeline's first start.
        outbox: index of a sink → number of the last batch that was staged for it.
        redo, redone: a commit that was too large for one is written in `redo` pieces, of which `redone` are applied.
        committed_ms: steady time.
        state_bytes: of the state that this slot had.
        shards: the shards whose state this slot held at this commit; None: all.
        reached: source → the watermark by which the state of these shards was judged; None: the sources' own. They
            differ where several slots share the work.
        gave: shard that this slot had before → source → the watermark by which its state was judged then. Who has the shard
            now may not have committed yet, so nobody else may know.
        left: slot whose process was gone → source → the watermark of the rows that were read in its place. Not this slot's
            own: it may have claimed older rows that it has not read yet.
        seen: slot → the last of its batches of which this slot has all rows that were for it.
    """

    commit: int = 0
    by: str = ""
    batch: int = 0
    sources: dict[str, SourceProgress] = {}
    rows_out: int = 0
    late: int = 0
    dead: int = 0
    outbox: dict[int, int] = {}
    redo: int = 0
    redone: int = 0
    committed_ms: int = 0
    state_bytes: int = 0
    shards: tuple[int, ...] | None = None
    reached: dict[str, int] | None = None
    gave: dict[int, dict[str, int]] = {}
    left: dict[int, dict[str, int]] = {}
    seen: dict[int, int] = {}

    @property
    def unfinished(self) -> bool:
        """Its last commit was written in pieces, and not all of them are applied yet."""
        return self.redone < self.redo

    def reached_of(self, source: str) -> int:
        if self.reached is not None:
            return self.reached.get(source, NEVER)
        return self.sources.get(source, SourceProgress()).watermark

    def judged_by(self, shard: int, source: str) -> int:
        """The watermark by which the shard's state was judged last, as far as this slot knows."""
        if self.shards is None or shard in self.shards:
            return self.reached_of(source)
        return self.gave.get(shard, {}).get(source, NEVER)

    @property
    def rows_in(self) -> int:
        return sum(source.rows for source in self.sources.values())


def merged(records: Iterable[Progress]) -> Progress:
    """The progress of all slots together, for reports: the sum of rows, the latest times."""
    records = list(records)
    names = dict.fromkeys(name for record in records for name in record.sources)
    return Progress(
        batch=sum(record.batch for record in records),
        sources={name: _merged_source(name, [one for one in records if name in one.sources]) for name in names},
        rows_out=sum(record.rows_out for record in records),
        late=sum(record.late for record in records),
        dead=sum(record.dead for record in records),
        committed_ms=max((record.committed_ms for record in records), default=0),
    )


def _merged_source(name: str, records: list[Progress]) -> SourceProgress:
    found = [record.sources[name] for record in records]
    return SourceProgress(
        watermark=max(record.reached_of(name) for record in records),
        rows=sum(source.rows for source in found),
    )


def encode_progress(progress: Progress) -> bytes:
    return msgspec.json.encode(progress)


def decode_progress(data: bytes | None) -> Progress:
    """The inverse of `encode_progress`; an empty Progress for None."""
    return Progress() if data is None else msgspec.json.decode(data, type=Progress)
