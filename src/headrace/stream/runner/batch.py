"""What one step of the engine processes: chunks of the sources, put together."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from headrace.stream.sources.base import Chunk, Dead
from headrace.stream.sources.origins import ManyOrigins


@dataclass(slots=True)
class Batch:
    """Chunks by source. ORIGIN is counted through: it tells the message in all of the batch, not in its chunk.

    `left`: those of `chunks` that a slot had claimed whose process is gone, by slot.
    """

    chunks: dict[str, list[Chunk]] = field(default_factory=dict)
    left: dict[int, dict[str, list[Chunk]]] = field(default_factory=dict)
    rows: int = 0
    size_bytes: int = 0
    _inputs: dict[str, list[pa.Table]] = field(default_factory=dict)
    _origins: ManyOrigins = field(default_factory=ManyOrigins)

    def add(self, source: str, chunk: Chunk, left_by: int | None = None) -> None:
        if left_by is not None:
            self.left.setdefault(left_by, {}).setdefault(source, []).append(chunk)
        self.chunks.setdefault(source, []).append(chunk)
        self._inputs.setdefault(source, []).append(self._origins.add(chunk.rows, chunk.origins))
        self.rows += chunk.rows.num_rows
        self.size_bytes += chunk.size_bytes

    def own(self, source: str) -> list[Chunk]:
        """The chunks that nobody has left."""
        left = {id(chunk) for chunks in self.left.values() for chunk in chunks.get(source, [])}
        return [chunk for chunk in self.chunks.get(source, []) if id(chunk) not in left]

    def inputs(self) -> dict[str, pa.Table]:
        """The rows, by source."""
        return {
            name: tables[0] if len(tables) == 1 else pa.concat_tables(tables) for name, tables in self._inputs.items()
        }

    def dead(self) -> list[Dead]:
        """What could not be decoded."""
        return [dead for chunks in self.chunks.values() for chunk in chunks for dead in chunk.dead]

    def dead_of(self, origin: int, reason: str, step: str) -> Dead:
        """The dead letter of a row's message or line."""
        return self._origins.dead(origin, reason, step)

    def claims(self) -> list[tuple[str, str, int]]:
        return [claim for chunks in self.chunks.values() for chunk in chunks for claim in chunk.claims]
