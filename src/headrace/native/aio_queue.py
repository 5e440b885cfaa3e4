"""A queue's handle, and the messages received from it: for an event loop. The twin of `queue.py`, which documents it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from headrace.errors import HeadraceError, OutcomeUnknown
from headrace.native import calls
from headrace.native.bodies import AttributeValue, Body
from headrace.native.messages import Outgoing, PeekedMessage, Received, SentMessage, StoredMessage, entries_of
from headrace.native.retry import PAUSE_FIRST_S
from headrace.native.settings import Settings, SettingValues, from_stored, to_fields, to_ms
from headrace.native.transaction import HasReceipt
from headrace.native.transport import AsyncTransport
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, Delivery, MoveTask, QueueCounts, arn_of, short_name


class AsyncQueue:
    """A queue's handle; made by `AsyncClient.queue`. Methods are those of Queue."""

    __slots__ = ("_transport", "arn")

    def __init__(self, transport: AsyncTransport, arn: str) -> None:
        self._transport = transport
        self.arn = arn

    @property
    def name(self) -> str:
        return short_name(self.arn)

    def __repr__(self) -> str:
        return f"AsyncQueue({self.name!r})"

    async def send(
        self,
        body: Body,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        delay: float | None = None,
        group: str | None = None,
        dedup_id: str | None = None,
    ) -> SentMessage:
        entry = Outgoing(body, attributes, delay, group, dedup_id).entry()
        return calls.sent(await self._transport.call(ops.Send(self.arn, [entry])))[0]

    async def send_many(
        self, messages: Iterable[Body | Outgoing], *, delay: float | None = None, group: str | None = None
    ) -> list[SentMessage]:
        outcomes: list[Any] = []
        try:
            for send in calls.sends(self.arn, entries_of(messages, delay=delay, group=group)):
                outcomes += await self._transport.call(send)
        except HeadraceError as error:
            calls.note_done(error, outcomes)
            raise
        return calls.sent(outcomes)

    async def receive(
        self,
        max: int = 10,  # noqa: A002 - reads best where it is called
        *,
        wait: float = 20,
        visibility_timeout: float | None = None,
        attempt_id: str | None = None,
        holder: str | None = None,
    ) -> list[AsyncReceivedMessage]:
        """As Queue.receive. Cancelled while it waits, it takes no messages."""
        operation = calls.receive(
            self.arn, limit=max, visibility_timeout=visibility_timeout, attempt_id=attempt_id, holder=holder
        )
        deliveries = await self._transport.call(operation, to_ms("wait", wait))
        return [AsyncReceivedMessage(self, delivery) for delivery in deliveries]

    async def take(
        self, sequences: Iterable[int], *, visibility_timeout: float | None = None, holder: str | None = None
    ) -> list[AsyncReceivedMessage]:
        """As Queue.take."""
        operation = calls.take(self.arn, sequences, visibility_timeout=visibility_timeout, holder=holder)
        outcomes = calls.checked(await self._transport.call(operation), wrap=partial(AsyncReceivedMessage, self))
        return [AsyncReceivedMessage(self, delivery) for delivery in outcomes]

    async def consume(
        self, *, prefetch: int = 1, visibility_timeout: float | None = None, idle: float | None = None
    ) -> AsyncIterator[AsyncReceivedMessage]:
        """As Queue.consume: `async for message in queue.consume(): async with message: …`."""
        patience = calls.Idleness(idle)
        while not patience.over:
            batch = await self._receive_surely(prefetch, patience.wait, visibility_timeout)
            patience.note(len(batch))
            given = 0
            try:
                for message in batch:
                    given += 1
                    yield message
            finally:
                if given < len(batch):
                    with contextlib.suppress(HeadraceError):  # they come back by themselves, only later
                        await self.extend(batch[given:], 0)

    async def delete(self, messages: Iterable[HasReceipt]) -> None:
        outcomes: list[Any] = []
        for batch in calls.slices(message.receipt for message in messages):
            outcomes += await self._transport.call(ops.Delete(self.arn, batch))
        calls.checked(outcomes)

    async def extend(self, messages: Iterable[HasReceipt], seconds: float, *, holder: str | None = None) -> None:
        timeout_ms = to_ms("seconds", seconds)
        outcomes: list[Any] = []
        for batch in calls.slices((message.receipt, timeout_ms) for message in messages):
            outcomes += await self._transport.call(ops.ChangeVisibility(self.arn, batch, holder, strict=True))
        calls.checked(outcomes)

    async def peek(self, max: int = 10, *, after: int = 0) -> list[PeekedMessage]:  # noqa: A002 - as in receive
        return [PeekedMessage(peeked) for peeked in await self._transport.call(ops.Peek(self.arn, max, after))]

    async def counts(self) -> QueueCounts:
        counts: QueueCounts = (await self._transport.call(ops.GetQueue(self.arn))).counts
        return counts

    async def settings(self) -> Settings:
        return from_stored((await self._transport.call(ops.GetQueue(self.arn))).info.settings)

    async def change(self, **settings: Unpack[SettingValues]) -> Settings:
        return from_stored((await self._transport.call(ops.ChangeSettings(self.arn, to_fields(settings)))).settings)

    async def purge(self) -> int:
        purged: int = await self._transport.call(ops.Purge(self.arn))
        return purged

    async def remove(self) -> None:
        await self._transport.call(ops.DeleteQueue(self.arn))

    async def redrive(self, to: str | None = None, *, rate: int | None = None) -> MoveTask:
        target = arn_of(to) if to is not None else None
        task: MoveTask = await self._transport.call(ops.StartMove(self.arn, target, rate))
        return task

    async def moves(self, max: int = 1) -> list[MoveTask]:  # noqa: A002 - as in receive
        tasks: list[MoveTask] = await self._transport.call(ops.ListMoves(self.arn, max))
        return tasks

    async def claim(
        self,
        reader: str,
        number: int,
        *,
        max: int = 10_000,  # noqa: A002 - as above
        wait: float = 0,
    ) -> list[StoredMessage]:
        messages = await self._transport.call(ops.Claim(self.arn, reader, number, max), to_ms("wait", wait))
        return [StoredMessage(message) for message in messages]

    async def claims(self, reader: str) -> ClaimState:
        state: ClaimState = await self._transport.call(ops.GetClaims(self.arn, reader))
        return state

    async def acknowledge_claims(self, reader: str, number: int) -> ClaimState:
        state: ClaimState = await self._transport.call(ops.AcknowledgeClaims(self.arn, reader, number))
        return state

    async def release_claims(self, reader: str) -> None:
        await self._transport.call(ops.ReleaseClaims(self.arn, reader))

    async def _receive_surely(
        self, limit: int, wait: float, visibility_timeout: float | None
    ) -> list[AsyncReceivedMessage]:
        try:
            return await self.receive(limit, wait=wait, visibility_timeout=visibility_timeout)
        except OutcomeUnknown:
            await asyncio.sleep(PAUSE_FIRST_S)
            return []


class AsyncReceivedMessage(Received):
    """A received message; as ReceivedMessage, awaited, and `async with`."""

    __slots__ = ("_queue",)

    def __init__(self, queue: AsyncQueue, delivery: Delivery) -> None:
        super().__init__(delivery)
        self._queue = queue

    @property
    def queue_arn(self) -> str:
        return self._queue.arn

    async def delete(self) -> None:
        await self._queue.delete([self])
        self._settled = True

    async def extend(self, seconds: float) -> None:
        await self._queue.extend([self], seconds)

    async def release(self, delay: float = 0) -> None:
        await self._queue.extend([self], delay)
        self._settled = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled:
            return
        if error is None:
            await self.delete()
        else:
            with contextlib.suppress(HeadraceError):  # the block's error matters more; the timeout gives it back
                await self.release()
