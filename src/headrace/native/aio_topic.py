"""A topic's handle: for an event loop. The twin of `topic.py`, which documents it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Unpack

from headrace.errors import HeadraceError
from headrace.native import calls, topic_calls
from headrace.native.bodies import AttributeValue, Body
from headrace.native.messages import Outgoing, SentMessage, StoredMessage, entries_of
from headrace.native.topic_calls import LOG_PAGE, Start, TopicSummary, TopicValues
from headrace.native.transport import AsyncTransport
from headrace.queue import operations as ops
from headrace.queue.model import arn_of, short_name


class AsyncTopic:
    """A topic's handle; made by `AsyncClient.topic`. Methods are those of Topic."""

    __slots__ = ("_transport", "arn")

    def __init__(self, transport: AsyncTransport, arn: str) -> None:
        self._transport = transport
        self.arn = arn

    @property
    def name(self) -> str:
        return short_name(self.arn)

    def __repr__(self) -> str:
        return f"AsyncTopic({self.name!r})"

    async def publish(
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

    async def publish_many(
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

    async def subscribe(
        self,
        queue: str,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - reads best where it is called
        scope: str = "MessageAttributes",
        start: Start = "now",
        purge: bool = False,
        if_absent: bool = False,
    ) -> None:
        operation = topic_calls.subscribe(
            self.arn, queue, filter_=filter, scope=scope, start=start, purge=purge, if_absent=if_absent
        )
        await self._transport.call(operation)

    async def replay(self, queue: str, start: Start = "beginning", *, purge: bool = False) -> None:
        await self.subscribe(queue, start=start, purge=purge)

    async def unsubscribe(self, queue: str) -> None:
        await self._transport.call(ops.Unsubscribe(self.arn, arn_of(queue)))

    async def read_log(self, after: int = 0, max: int = LOG_PAGE) -> list[StoredMessage]:  # noqa: A002 - as in Queue.receive
        return topic_calls.stored(await self._transport.call(ops.ReadLog(self.arn, after, max)))

    async def log(self, after: int = 0) -> AsyncIterator[StoredMessage]:
        while page := await self.read_log(after):
            for message in page:
                yield message
            after = page[-1].sequence

    async def describe(self) -> TopicSummary:
        return topic_calls.summary_of(await self._transport.call(ops.GetTopic(self.arn)))

    async def change(self, **settings: Unpack[TopicValues]) -> TopicSummary:
        await self._transport.call(ops.ChangeTopic(self.arn, topic_calls.to_fields(settings)))
        return await self.describe()

    async def remove(self) -> None:
        await self._transport.call(ops.DeleteTopic(self.arn))
