"""A queue in a list: who it is, how it is set, what is in it."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.native.settings import Settings, from_stored
from headrace.queue.model import QueueCounts, QueueDescription, short_name


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """A queue as `Client.queues` lists it. `created_ms`: milliseconds since 1970, by the broker's clock."""

    name: str
    arn: str
    settings: Settings
    tags: dict[str, str]
    counts: QueueCounts
    created_ms: int


def summary_of(description: QueueDescription) -> QueueSummary:
    info = description.info
    return QueueSummary(
        short_name(info.arn), info.arn, from_stored(info.settings), info.tags, description.counts, info.created_ms
    )
