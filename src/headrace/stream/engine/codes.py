"""Numbers for combinations of key values: equal rows have equal numbers. What numpy needs to group by any columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Codes = npt.NDArray[np.int64]


def codes_of(rows: pa.Table, keys: Sequence[str]) -> Codes:
    """A number for each row; those of equal keys are equal. NULL is a value like others. Good within one call."""
    codes = np.zeros(rows.num_rows, np.int64)
    for place, key in enumerate(keys):
        found, count = _codes(rows[key])
        codes = found if place == 0 else _dense(codes) * count + found
    return codes


def _codes(column: pa.ChunkedArray) -> tuple[Codes, int]:
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.add(column, 0.0)  # makes -0.0 be 0.0
    elif pa.types.is_nested(kind):
        column = pa.chunked_array([pa.array([repr(value) for value in column.to_pylist()])])
    encoded = _whole(column).dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _dense(codes: Codes) -> Codes:
    """The same without gaps, so that they can be multiplied: below the number of rows."""
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _whole(column: pa.ChunkedArray) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
