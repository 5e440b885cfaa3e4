"""A broker as it shows itself to the others of its store: a holder of kind `broker`, so whoever lists holders lists the nodes."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from headrace.errors import HeadraceError
from headrace.http.listener import Statistics
from headrace.presence import BrokerFacts, LaneFacts, Recent, about_me, holder_name, write
from headrace.process import rss_bytes
from headrace.queue.broker import Broker
from headrace.queue.operations import Hold
from headrace.queue.store.base import LaneStatistics, StoreStatistics

NEWS_EACH_MS: Final = 2_000
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - looked for, not listened on


async def show(broker: Broker, http: Callable[[], Statistics], url: str) -> NoReturn:
    """Present at its own broker, until cancelled.

    Args:
        http: the listener's statistics.
        url: where it listens.
    """
    name, showing = holder_name("broker"), Showing(reachable(url))
    while True:
        facts = showing.facts(http(), broker.store.statistics())
        try:
            await broker.call(Hold(name, "broker", facts), wait_ms=NEWS_EACH_MS)
        except HeadraceError:  # too many holders: this one comes again when there is room
            await asyncio.sleep(NEWS_EACH_MS / 1_000)


def reachable(url: str) -> str:
    """A listener's address as others know it: of one on all addresses, the host's name."""
    parts = urlsplit(url)
    if parts.hostname not in _EVERYWHERE:
        return url
    return f"{parts.scheme}://{platform.node()}:{parts.port}"


class Showing:
    """Statistics as facts. Remembers the totals of the last seconds, for rates."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._monotonic = monotonic
        self._recent = Recent()

    def facts(self, http: Statistics, store: StoreStatistics) -> dict[str, Any]:
        """BrokerFacts, for `Hold`."""
        totals: dict[Any, int] = {"requests": http.requests}
        for one in store.lanes:
            totals |= {
                (one.lane, "batches"): one.batches,
                (one.lane, "operations"): one.operations,
                (one.lane, "us"): int(one.seconds * 1e6),
            }
        self._recent.note(self._monotonic(), totals)
        facts = BrokerFacts(
            **about_me(),
            url=self._url,
            connections=http.open,
            requests_s=self._recent.rate_s("requests"),
            lanes=[self._lane(one) for one in store.lanes],
            rss_bytes=rss_bytes(),
        )
        return write(facts)

    def _lane(self, lane: LaneStatistics) -> LaneFacts:
        batches = self._recent.grown((lane.lane, "batches"))
        return LaneFacts(
            lane=lane.lane,
            batches_s=self._recent.rate_s((lane.lane, "batches")),
            operations_s=self._recent.rate_s((lane.lane, "operations")),
            batch_s=self._recent.grown((lane.lane, "us")) / 1e6 / batches if batches else 0.0,
            waiting=lane.waiting,
        )
