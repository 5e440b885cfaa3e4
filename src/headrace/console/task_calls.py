"""Tasks' own functions, which are made for threads, on the console's one connection, which is a loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from headrace.console import limits
from headrace.errors import OutcomeUnknown
from headrace.native.aio import AsyncClient
from headrace.queue.operations import Operation
from headrace.work.broker_backend import BrokerBackend

T = TypeVar("T")

_GRACE_S: Final = 5.0
"""The client's own timeout comes first, and says more."""


class _OnLoop:
    """A Caller for threads: each call is made on the loop."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def call(self, operation: Operation, *, wait: float = 0) -> Any:
        request = asyncio.run_coroutine_threadsafe(self._client.call(operation, wait=wait), self._loop)
        try:
            return request.result(wait + limits.BROKER_TIMEOUT_S + _GRACE_S)
        except TimeoutError:
            request.cancel()
            raise OutcomeUnknown("the broker did not answer") from None

    def close(self) -> None:
        """The connection is the console's."""


async def work_on(client: AsyncClient, work: Callable[[BrokerBackend], T]) -> T:
    """What `work` returns, or raises; it runs in a thread, and may block there."""
    backend = BrokerBackend(_OnLoop(client, asyncio.get_running_loop()))
    try:
        return await asyncio.to_thread(work, backend)
    finally:
        backend.close()
