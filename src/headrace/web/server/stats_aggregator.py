"""Aggregates the statistics of all processes of a web server, running and ended; and the record of a server that is ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.web.frontend.metrics import EdgeStatistics, merge, totals_of_ended

if TYPE_CHECKING:
    from headrace.web.server.supervisor import Supervisor

_decode: Final = msgspec.msgpack.Decoder(EdgeStatistics).decode


@dataclass(frozen=True, slots=True)
class Ready:
    """Describes a server that serves requests. `url`: `http://…`, or `unix:/path`."""

    url: str
    port: int
    interface: str
    workers: int
    admin: str


class StatsAggregator:
    """Keeps the totals of processes that have ended: counters must not decrease when a process ends."""

    def __init__(self) -> None:
        self._past = EdgeStatistics()

    def keep(self, record: bytes) -> None:
        """The last report of a process that has ended."""
        self._past = merge(EdgeStatistics, (self._past, totals_of_ended(_decode(record))))

    def all(self, supervisor: Supervisor) -> list[EdgeStatistics]:
        """The statistics of all processes that hold connections, and the totals of those that have ended."""
        records = [record for worker_group in supervisor.worker_groups for record in worker_group.statistics.values()]
        if supervisor.edges is not None:
            records += supervisor.edges.statistics
        return [self._past, *map(_decode, records)]
