"""How a client reaches a broker: the contract that the embedded and the HTTP transports keep."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.native.protocol import BrokerStatistics
from headrace.queue.operations import Operation


class Transport(Protocol):
    """Safe for many threads. A call blocks its thread only."""

    def call(self, operation: Operation, wait_ms: int = 0) -> Any:
        """The outcome of `operation`; its error is raised. A batch's list has errors in place.

        Args:
            operation: what is asked.
            wait_ms: for operations that may wait (`operations.Waiting`), how long; 0 to 20,000.

        Raises:
            Unavailable: the broker could not be reached, or is stopping: nothing was done.
            OutcomeUnknown: the connection broke in between.
        """

    def statistics(self) -> BrokerStatistics: ...

    def close(self) -> None:
        """Idempotent. Calls in progress are answered or end with an error; later ones are Unavailable."""


class AsyncTransport(Protocol):
    """As Transport, on one event loop. A cancelled call is abandoned: a cancelled receive takes no messages."""

    async def call(self, operation: Operation, wait_ms: int = 0) -> Any: ...

    async def statistics(self) -> BrokerStatistics: ...

    async def close(self) -> None: ...
