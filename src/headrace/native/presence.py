"""Being present at a broker: a loop of `Hold`s that says "I am here" and what is going on; for a thread, for an event loop.

It never disturbs whoever is present: a broker that is away is tried again, quietly; facts that are refused are told once
in the log, and left out.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

from headrace.errors import CallerError, HeadraceError
from headrace.native.aio import AsyncClient
from headrace.native.client import Client
from headrace.queue.operations import Hold

_log: Final = logging.getLogger("headrace.native")

NEWS_EACH_S: Final = 2.0
"""A Hold waits so long, then the next brings newer facts."""
_PAUSE_FIRST_S: Final = 0.5
_PAUSE_MAX_S: Final = 10.0

FactsNow = Callable[[], dict[str, Any]]
"""What is true now, as plain data, at most 64 KiB of JSON. Called every NEWS_EACH_S."""


class _Course:
    """What the next Hold says, and how long to pause after one that failed. No I/O."""

    def __init__(self, holder: str, kind: str, facts: FactsNow) -> None:
        self._holder, self._kind, self._facts = holder, kind, facts
        self._pause_s = _PAUSE_FIRST_S
        self._refused = False
        self._failing = False

    def next(self) -> Hold:
        return Hold(self._holder, self._kind, {} if self._refused else self._current_facts())

    def _current_facts(self) -> dict[str, Any]:
        """The facts; none if they cannot be collected. The process stays present all the same, since leases depend on it."""
        try:
            facts = self._facts()
        except Exception:  # noqa: BLE001 - whatever it is, it must not end the presence
            if not self._failing:
                ids = {"action": "presence.facts.failed", "holder": self._holder}
                _log.exception("cannot collect the facts of this process for the broker", extra=ids)
            self._failing = True
            return {}
        self._failing = False
        return facts

    def held(self) -> None:
        self._pause_s = _PAUSE_FIRST_S

    def failed(self, error: HeadraceError) -> float:
        """Returns: seconds until the next try."""
        if isinstance(error, CallerError) and not self._refused:
            self._refused = True
            ids = {"action": "presence.refused", "holder": self._holder}
            _log.warning("the broker takes no facts of this process: %s", error, extra=ids)
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)
        return pause_s


class Presence:
    """A thread that is present until `stop`. The client is somebody else's; `stop` before closing it."""

    def __init__(self, client: Client, *, holder: str, kind: str, facts: FactsNow) -> None:
        """Args:
        client: with little patience: this tries again by itself.
        holder: a name that nobody else has (`headrace.presence.holder_name`); leases may be tied to it.
        kind: such as `worker`; see `headrace.presence.KINDS`.
        facts: called on the thread.
        """
        self._client = client
        self._course = _Course(holder, kind, facts)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace presence {kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more Holds. Does not wait: the one under way ends with the client's connection, or within NEWS_EACH_S."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._client.call(self._course.next(), wait=NEWS_EACH_S)
                self._course.held()
            except HeadraceError as error:
                self._over.wait(self._course.failed(error))


async def be_present(client: AsyncClient, *, holder: str, kind: str, facts: FactsNow) -> NoReturn:
    """As Presence, on an event loop, until cancelled."""
    course = _Course(holder, kind, facts)
    while True:
        try:
            await client.call(course.next(), wait=NEWS_EACH_S)
            course.held()
        except HeadraceError as error:
            await asyncio.sleep(course.failed(error))
