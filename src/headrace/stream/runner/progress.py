"""How far a pipeline is: what each commit writes under `progress/SLOT`, and expects to find there."""

from __future__ import annotations

import msgspec

from headrace.stream.engine.operator import END, NEVER


class SourceProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one source is.

    Attributes:
        watermark: µs; END once it has ended.
        position: where its reader goes on; empty: its beginning, or (queues) what the store knows.
        rows, messages: how many came, since the pipeline's beginning.
        heard_ms: steady time of its last input, or of the start: the durable timer of idle closing.
        backfill: the files that are read before the source itself; None: none. Then `position` is a Backfill's.
    """

    watermark: int = NEVER
    position: bytes = b""
    rows: int = 0
    messages: int = 0
    heard_ms: int = 0
    backfill: str | None = None

    @property
    def ended(self) -> bool:
        return self.watermark >= END


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a slot is. No two commits write equal bytes, so that reading them tells whose commit was done.

    Attributes:
        commit: how many commits there were. `by`: who made the last one: a random name of the run.
        batch: how many batches were processed.
        sources: by name.
        rows_out, late, dead: rows since the pipeline's beginning.
        outbox: sink (by its place) → number of the last batch that it was given.
        redo, redone: a commit that was too large for one is written down in so many pieces, of which so many are done.
        committed_ms: steady time.
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

    @property
    def rows_in(self) -> int:
        return sum(source.rows for source in self.sources.values())


def encode(progress: Progress) -> bytes:
    return msgspec.json.encode(progress)


def decode(data: bytes | None) -> Progress:
    """What `encode` wrote; the very beginning for None."""
    return Progress() if data is None else msgspec.json.decode(data, type=Progress)
