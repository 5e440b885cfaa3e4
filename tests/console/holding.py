"""Holders that a console shows, present for as long as a test takes: one that is heard of once is there for five seconds."""

from __future__ import annotations

import threading

from headrace.native.client import Client
from headrace.queue.operations import Hold
from tests.broker_process import wait_until


class Stay:
    """A hold that stays open, from a thread of its own."""

    def __init__(self, client: Client, hold: Hold) -> None:
        self.over = False
        self.holder = hold.holder
        self._client = client
        self._hold = hold
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: any(one.holder == hold.holder for one in client.holders()))

    def end(self) -> None:
        self.over = True
        wait_until(self._ended)

    def _run(self) -> None:
        while not self.over:
            self._client.call(self._hold, wait=20)

    def _ended(self) -> bool:
        self._client.call(self._hold)  # takes over: the open one is answered
        return not self._thread.is_alive()


_stays: list[Stay] = []  # of the running test


def stay(client: Client, hold: Hold) -> None:
    """Until the end of the test, or until the holder tells something else."""
    for one in _stays:
        one.over |= one.holder == hold.holder
    _stays.append(Stay(client, hold))


def leave() -> None:
    """All of them."""
    while _stays:
        _stays.pop().end()
