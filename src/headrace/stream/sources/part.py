"""One file being read: the contract between the reader of many files and the formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.stream.sources.base import Dead, Origins


@dataclass(slots=True)
class Piece:
    """Rows of one file, as a Chunk has them. `count`: lines or rows that it was."""

    rows: pa.Table
    origins: Origins
    dead: list[Dead]
    count: int


class Part(ABC):
    """An open file. Raises SourceFailed where it cannot be read, or is not what it was."""

    @abstractmethod
    def read(self, rows_max: int, *, whole: bool) -> Piece | None:
        """The next rows; None: there are none now.

        Args:
            whole: nothing will be appended any more: an unfinished line at the end is one.
        """

    @abstractmethod
    def position(self) -> dict[str, Any]:
        """Where the next row is, as plain data, so that the file can be opened there."""

    @property
    @abstractmethod
    def done_bytes(self) -> int:
        """About how many bytes of the file are read."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""
