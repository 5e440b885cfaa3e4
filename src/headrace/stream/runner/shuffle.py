"""Rows on their way to whoever has the state of their keys: values of the pipeline's own state, put there by the commit
that acknowledges what they were read from, and removed by the one that processes them.

They are kept by shard. So they belong to whoever has the shard when they are read: nothing has to be forwarded when
shards change hands.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from headrace.stream.engine.arrow_tables import nullable, plain
from headrace.stream.engine.shards import shard_of
from headrace.stream.engine.state_backend import pieces
from headrace.stream.runner import keys
from headrace.stream.runner.commit import Put
from headrace.stream.runner.sharing import Cut
from headrace.stream.schema import Schema


class Shuffle:
    """What the engine calls with the rows in front of the cut: it gives those of the own shards, keeps the others'.

    Args:
        cut: where it stands.
        schemas: of the rows, by input.
        shards: how many there are. `owned`: which are this slot's.
    """

    def __init__(self, cut: Cut, schemas: list[Schema], *, shards: int, owned: frozenset[int]) -> None:
        self.place = cut.place
        self._keys = cut.keys
        self._schemas = schemas
        self._shards = shards
        self._owned = owned
        self._come: dict[int, list[pa.Table]] = {}
        self._leaving: list[tuple[int, int, pa.RecordBatch]] = []

    def take_in(self, values: Mapping[bytes, bytes]) -> None:
        """Rows from others: they are in the next step."""
        for key, value in sorted(values.items()):
            port = keys.read_shuffle_port(key)
            batch = pa.ipc.read_record_batch(pa.py_buffer(value), nullable(self._schemas[port]))
            self._come.setdefault(port, []).append(pa.Table.from_batches([batch]))

    def swap(self, port: int, rows: pa.Table | None) -> pa.Table | None:
        """The rows that came for this input, the own ones of `rows` among them."""
        come = self._come.pop(port, [])
        own = self._own(port, rows) if rows is not None and rows.num_rows else None
        if not come:
            return own
        if own is not None:
            come.append(plain(own, self._schemas[port]))
        return pa.concat_tables(come)

    def take_puts(self, slot: int, batch: int) -> list[Put]:
        """What the step's commit puts for others."""
        leaving, self._leaving = self._leaving, []
        found: list[Put] = []
        for number, (shard, port, rows) in enumerate(leaving):
            key = keys.shuffle_key(shard, slot=slot, batch=batch, number=number, port=port)
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
