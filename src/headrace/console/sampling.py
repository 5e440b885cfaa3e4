"""Asks the broker once a second what there is. Everybody who looks sees the same snapshot: viewers cost the broker nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from headrace.console import figures, history_store, limits
from headrace.console.history import History
from headrace.console.snapshot import Look, Snapshot, build, series_of
from headrace.errors import HeadraceError
from headrace.native.aio import AsyncClient
from headrace.queue.operations import ListHolders, ListQueues, ListTopics
from headrace.stream_state import read_pipelines

_log: Final = logging.getLogger("headrace.console")

_PAGE: Final = 1_000
_MINUTE_S: Final = 60


async def look(client: AsyncClient) -> Look:
    """One look. Raises HeadraceError: the broker is away, or refuses us."""
    statistics = await client.statistics()
    queues, topics = await _all(client, ListQueues), await _all(client, ListTopics)
    holders = await client.call(ListHolders())
    return Look(statistics, queues, topics, holders, await read_pipelines(client.call))


async def _all(client: AsyncClient, listing: type[ListQueues | ListTopics]) -> list[Any]:
    """The descriptions of all that there are, page by page."""
    found: list[Any] = []
    while True:
        page = await client.call(listing(after=found[-1].info.arn if found else "", limit=_PAGE))
        found += page
        if len(page) < _PAGE:
            return found


class Sampler:
    """Looks, remembers, keeps. `snapshot` is the newest; `history` what was.

    A broker that is away changes nothing but `snapshot.problem`: what was last known stays in sight.
    """

    def __init__(
        self, client: AsyncClient, *, now_s: Callable[[], float] = time.time, on_look: Callable[[], None] = lambda: None
    ) -> None:
        """Args:
        now_s: wall time, seconds since 1970: what the history's slots are numbered by.
        on_look: called after each look, also a failed one.
        """
        self._client = client
        self._now_s = now_s
        self._on_look = on_look
        self._before: Look | None = None
        self._loaded = False
        self._keeps = True
        self._saved_minute = int(now_s() // _MINUTE_S) - 1
        self.snapshot = Snapshot(problem="the broker has not been asked yet")
        self.history = History()

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            began_s = loop.time()
            await self.sample()
            # A look that took long is not made up for: pages, and the broker, have half of the time at least.
            due_s = max(due_s + limits.SAMPLE_S, 2 * loop.time() - began_s)
            await asyncio.sleep(due_s - loop.time())

    async def sample(self) -> None:
        """One look, and what follows from it."""
        number = self.snapshot.number + 1
        try:
            async with asyncio.timeout(limits.BROKER_TIMEOUT_S):
                now = await look(self._client)
            await self._take(number, now)
        except (HeadraceError, TimeoutError, OSError) as error:
            self._fail(number, str(error) or f"it did not answer within {limits.BROKER_TIMEOUT_S:.0f} s")
        except Exception as error:  # noqa: BLE001  # a bug, which every page shows: the next look may be of other data
            if self.snapshot.problem is None:
                _log.exception("a look at the broker failed", extra={"action": "console.look_failed"})
            self._fail(number, f"the console failed to read what it told ({type(error).__name__}); its log says how")
        self._on_look()

    def _fail(self, number: int, problem: str) -> None:
        if self.snapshot.problem is None:
            _log.warning("the broker is away: %s", problem, extra={"action": "console.broker_away"})
        self._before = None
        self.snapshot = msgspec.structs.replace(self.snapshot, number=number, problem=problem)

    async def _take(self, number: int, now: Look) -> None:
        snapshot = build(self._before, now, number=number)
        if self._before is not None:  # without a look before, rates are not 0 but unknown
            self.history.add(self._now_s(), series_of(snapshot) | figures.series_of(snapshot))
        if self.snapshot.problem is not None:
            _log.info("the broker is there", extra={"action": "console.broker_back"})
        self.snapshot, self._before = snapshot, now
        await self._keep()

    async def _keep(self) -> None:
        """Looks go on in any case: without, the history is gone when the console ends."""
        try:
            await self._save()
        except HeadraceError as error:
            if self._keeps:
                _log.warning("the history is not kept: %s", error, extra={"action": "console.history_not_kept"})
            self._keeps = False
        else:
            self._keeps = True

    async def _save(self) -> None:
        minute = int(self._now_s() // _MINUTE_S)
        if not self._loaded:
            await self._load(minute)
        if minute - 1 > self._saved_minute:
            await self._client.call(history_store.save(self.history, minute - 1))
            self._saved_minute = minute - 1

    async def _load(self, minute: int) -> None:
        """What was kept, by this console or one before it."""
        kept: list[bytes] = []
        for prefix in history_store.PREFIXES:
            chunks = await self._client.state(history_store.NAME, prefix)
            kept += chunks
            for key, value in chunks.items():
                history_store.load(self.history, key, value)
        old = history_store.outdated(kept, minute)
        if old:
            async with self._client.transact(history_store.NAME) as tx:
                for key in old:
                    tx.remove(key)
        self._loaded = True
