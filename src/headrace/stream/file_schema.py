"""What files say of themselves, before anybody reads them: the format by the suffix, the columns by Parquet's own schema."""

from __future__ import annotations

import glob
from pathlib import Path

from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import FileFormat
from headrace.stream.schema import Schema
from headrace.stream.sources.listing import format_of


def file_format(path: str | Path) -> FileFormat:
    """The format of a file, or of the first in a folder, by its suffix. Raises UnsupportedQuery."""
    found = format_of(Path(path))
    if found is None:
        raise UnsupportedQuery(
            f"files({str(path)!r})",
            "the suffix does not say the format",
            "format='parquet', 'csv', 'jsonl' or 'access_log'",
        )
    return found


def file_schema(path: str | Path, found: FileFormat) -> Schema:
    """The columns that a Parquet file, or the first in a folder or of a glob, says it has. Raises UnsupportedQuery."""
    import pyarrow.parquet as pq  # noqa: PLC0415 # only where a file is read

    if found != "parquet":
        raise UnsupportedQuery(
            f"files({str(path)!r})",
            f"a {found} file does not say its columns' types",
            'schema="id bigint, ts timestamp"',
        )
    pattern = str(Path(path) / "**" / "*.parquet") if Path(path).is_dir() else str(path)
    first = next(iter(sorted(glob.glob(pattern, recursive=True))), None)  # noqa: PTH207 # an absolute pattern
    if first is None:
        raise UnsupportedQuery(
            f"files({str(path)!r})", "there is no such file yet that would say the columns", "schema=…"
        )
    return Schema.of(pq.read_schema(first))
