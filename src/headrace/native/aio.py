"""The client for an event loop: the twin of `client.py`. Same names, same arguments, same errors; calls are awaited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from headrace.errors import Unavailable
from headrace.native import calls, endpoint, topic_calls
from headrace.native.aio_queue import AsyncQueue, AsyncReceivedMessage
from headrace.native.aio_topic import AsyncTopic
from headrace.native.client import PATIENCE_S, TIMEOUT_S
from headrace.native.embedded import AsyncEmbeddedTransport
from headrace.native.http_async import AsyncHttpTransport
from headrace.native.protocol import BrokerStatistics
from headrace.native.settings import SettingValues, to_fields, to_ms
from headrace.native.signing import Credentials
from headrace.native.summary import QueueSummary, summary_of
from headrace.native.topic_calls import TopicSummary, TopicValues
from headrace.native.transaction import Collected
from headrace.native.transport import AsyncTransport
from headrace.queue import operations as ops
from headrace.queue.model import HolderState, MoveTask, arn_of, topic_arn_of


def connect_async(
    target: str | Path,
    *,
    timeout: float = TIMEOUT_S,
    patience: float = PATIENCE_S,
    key: tuple[str, str] | None = None,
    cooldowns: bool = True,
) -> AsyncClient:
    """A client for the running event loop: `async with headrace.connect_async(target) as client:`.

    Arguments and errors as in `connect`; a folder is opened when the block is entered, and its broker runs on this loop.
    """
    credentials = Credentials(*key) if key is not None else None
    return AsyncClient(target, timeout_s=timeout, patience_s=patience, credentials=credentials, cooldowns=cooldowns)


class AsyncClient:
    """A broker's client; made by `connect_async`, open within its `async with` block. Methods are those of Client."""

    def __init__(
        self,
        target: str | Path,
        *,
        timeout_s: float,
        patience_s: float,
        credentials: Credentials | None,
        cooldowns: bool,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._credentials = credentials
        self._cooldowns = cooldowns
        self._opened: AsyncTransport | None = None

    async def queue(
        self,
        name: str,
        *,
        create: bool = False,
        tags: Mapping[str, str] | None = None,
        **settings: Unpack[SettingValues],
    ) -> AsyncQueue:
        arn = arn_of(name)
        if create:
            await self._transport.call(ops.CreateQueue(arn, to_fields(settings), tags=dict(tags or {})))
        else:
            calls.check_no_settings(settings, tags)
            await self._transport.call(ops.GetQueue(arn))
        return AsyncQueue(self._transport, arn)

    async def queues(self, prefix: str = "") -> list[QueueSummary]:
        found: list[QueueSummary] = []
        while True:
            page = await self._transport.call(calls.list_queues(prefix, found))
            found += [summary_of(description) for description in page]
            if len(page) < calls.PAGE:
                return found

    async def receive_any(
        self,
        queues: Iterable[str],
        max: int = 10,  # noqa: A002 - as in Queue.receive
        *,
        wait: float = 20,
        visibility_timeout: float | None = None,
        holder: str | None = None,
    ) -> list[AsyncReceivedMessage]:
        operation = calls.receive_any(queues, limit=max, visibility_timeout=visibility_timeout, holder=holder)
        given = await self._transport.call(operation, to_ms("wait", wait))
        return [AsyncReceivedMessage(AsyncQueue(self._transport, arn), one) for arn, some in given for one in some]

    async def holders(self, kind: str = "") -> list[HolderState]:
        found: list[HolderState] = await self._transport.call(ops.ListHolders(kind))
        return found

    async def topic(self, name: str, *, create: bool = False, **settings: Unpack[TopicValues]) -> AsyncTopic:
        arn = topic_arn_of(name)
        if create:
            await self._transport.call(ops.CreateTopic(arn, topic_calls.to_fields(settings)))
        else:
            calls.check_no_settings(settings, None)
            await self._transport.call(ops.GetTopic(arn))
        return AsyncTopic(self._transport, arn)

    async def topics(self, prefix: str = "") -> list[TopicSummary]:
        found: list[TopicSummary] = []
        while True:
            page = await self._transport.call(topic_calls.list_topics(prefix, found))
            found += [topic_calls.summary_of(description) for description in page]
            if len(page) < calls.PAGE:
                return found

    def transact(self, name: str = "", *, epoch: int | None = None) -> AsyncTransaction:
        return AsyncTransaction(self._transport, name, epoch)

    async def fence(self, name: str) -> int:
        epoch: int = await self._transport.call(ops.Fence(name))
        return epoch

    async def state(
        self, name: str, prefix: bytes | str = b"", *, limit: int | None = None, wait: float = 0
    ) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        while True:
            operation = calls.get_state(name, prefix, found, limit)
            page = await self._transport.call(operation, 0 if found else to_ms("wait", wait))
            found.update(page)
            if len(page) < operation.limit or len(found) == limit:
                return found

    async def call(self, operation: ops.Operation, *, wait: float = 0) -> Any:
        return await self._transport.call(operation, to_ms("wait", wait))

    async def cancel_move(self, task: MoveTask | str) -> MoveTask:
        moved: MoveTask = await self._transport.call(ops.CancelMove(task if isinstance(task, str) else task.handle))
        return moved

    async def statistics(self) -> BrokerStatistics:
        return await self._transport.statistics()

    async def open(self) -> None:
        """For where `async with` does not fit; then `close` is yours to call."""
        place = endpoint.parse(self._target)
        if isinstance(place, Path):
            self._opened = await AsyncEmbeddedTransport.open(place, cooldowns=self._cooldowns)
        else:
            self._opened = AsyncHttpTransport(
                place, timeout_s=self._timeout_s, patience_s=self._patience_s, credentials=self._credentials
            )

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _transport(self) -> AsyncTransport:
        if self._opened is None:
            raise Unavailable("this client is not open; use it as: async with headrace.connect_async(…) as client")
        return self._opened


class AsyncTransaction(Collected):
    """`async with client.transact() as tx:`; what it collects is not awaited, the commit comes at the block's end."""

    def __init__(self, transport: AsyncTransport, name: str, epoch: int | None) -> None:
        super().__init__(name, epoch)
        self._transport = transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        operation = self._operation() if error is None else None
        if operation is not None:
            self._committed(await self._transport.call(operation))
