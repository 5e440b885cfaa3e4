"""What is known of a node's rows without running it: columns and event time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from headrace.stream.schema import Schema


@dataclass(frozen=True, slots=True)
class Roles:
    """Which columns say when.

    Attributes:
        time: the event time in the sense of the watermark; None if there is none any more.
        start, end: the bounds of a closed window, from which `window_time` follows (its last microsecond).
        size_us: how long each of these windows is; None if they differ (sessions) or it is not known.
        slide_us: how far apart they begin; the size, if they do not overlap.
    """

    time: str | None = None
    start: str | None = None
    end: str | None = None
    size_us: int | None = None
    slide_us: int | None = None

    def renamed(self, names: dict[str, str]) -> Roles:
        """The roles after a projection: `names` old column → new column, of the columns that pass unchanged."""
        return replace(
            self,
            time=names.get(self.time) if self.time else None,
            start=names.get(self.start) if self.start else None,
            end=names.get(self.end) if self.end else None,
        )

    @property
    def timed(self) -> bool:
        return bool(self.time or self.end)


NO_ROLES: Final = Roles()


@dataclass(frozen=True, slots=True)
class Analysis:
    """A node's output: its columns, and its event-time column, or None."""

    schema: Schema
    roles: Roles = NO_ROLES

    @property
    def time(self) -> str | None:
        return self.roles.time


def is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind))
