"""Brokers for these tests: one without a disk in this process, and clients whose answers get lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.errors import OutcomeUnknown, Unavailable
from headrace.native.client import Client
from headrace.native.protocol import BrokerStatistics
from headrace.native.transport import Transport
from headrace.queue.operations import Operation, Transact


class LossyTransport:
    """Loses transactions: `fault(n)` says of the n-th one, from 1, "before" (it was not done), "after" (it was), or ""."""

    def __init__(self, inner: Transport, fault: Callable[[int], str]) -> None:
        self._inner = inner
        self._fault = fault
        self.transactions = 0

    def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        if not isinstance(operation, Transact):
            return self._inner.call(operation, wait_ms)
        self.transactions += 1
        fault = self._fault(self.transactions)
        if fault == "dead":
            raise Unavailable("the driver is dead")
        outcome = self._inner.call(operation, wait_ms) if fault != "before" else None
        if fault:
            raise OutcomeUnknown(fault)
        return outcome

    def statistics(self) -> BrokerStatistics:
        return self._inner.statistics()

    def close(self) -> None:
        """The inner one is its owner's."""


def lossy(client: Client, fault: Callable[[int], str]) -> Client:
    return Client(LossyTransport(client._transport, fault))
