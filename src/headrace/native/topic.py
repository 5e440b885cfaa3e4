"""A topic's handle: for threads. `aio_topic` is the twin for an event loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Unpack

from headrace.errors import HeadraceError
from headrace.native import calls, topic_calls
from headrace.native.bodies import AttributeValue, Body
from headrace.native.messages import Outgoing, SentMessage, StoredMessage, entries_of
from headrace.native.topic_calls import LOG_PAGE, Start, TopicSummary, TopicValues
from headrace.native.transport import Transport
from headrace.queue import operations as ops
from headrace.queue.model import arn_of, short_name


class Topic:
    """A topic's handle; made by `Client.topic`. It holds no state: two handles of a topic are the same."""

    __slots__ = ("_transport", "arn")

    def __init__(self, transport: Transport, arn: str) -> None:
        self._transport = transport
        self.arn = arn

    @property
    def name(self) -> str:
        return short_name(self.arn)

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"

    # Publishing

    def publish(
        self,
        body: Body,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        delay: float | None = None,
        group: str | None = None,
        dedup_id: str | None = None,
    ) -> SentMessage:
        """Put one message into every subscribed queue that lets it in, and into the log: one commit, on the disk when this
        returns. Arguments and errors as in Queue.send; `delay` None takes each queue's own.

        Returns:
            Its id, the same in every queue, and its sequence number in the topic.
        """
        entry = Outgoing(body, attributes, delay, group, dedup_id).entry()
        return calls.sent(self._transport.call(ops.Send(self.arn, [entry])))[0]

    def publish_many(
        self, messages: Iterable[Body | Outgoing], *, delay: float | None = None, group: str | None = None
    ) -> list[SentMessage]:
        """Publish messages, up to 10,000 in one call and one commit. As Queue.send_many."""
        outcomes: list[Any] = []
        try:
            for send in calls.sends(self.arn, entries_of(messages, delay=delay, group=group)):
                outcomes += self._transport.call(send)
        except HeadraceError as error:
            calls.note_done(error, outcomes)
            raise
        return calls.sent(outcomes)

    # Subscribing

    def subscribe(
        self,
        queue: str,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - reads best where it is called
        scope: str = "MessageAttributes",
        start: Start = "now",
        purge: bool = False,
        if_absent: bool = False,
    ) -> None:
        """Give a queue what is published; or change how it is given. Durable.

        Args:
            queue: name or ARN. A FIFO queue takes from FIFO topics only.
            filter: a filter policy, as SNS's; {} lets everything in; None leaves it as it is (at first: everything).
            scope: what the filter looks at: MessageAttributes or MessageBody.
            start: "now"; or "beginning", a datetime, or a sequence number behind which to begin: then the queue is given
                the log from there, in order, and goes on live, without a gap or a duplicate.
            purge: delete what is in the queue first, in the same commit.
            if_absent: leave a subscription that is there as it is, and give it nothing: idempotent, whatever `start` is.

        Raises:
            SubscriptionRefused: the two do not fit, or there is no log to begin from.
            InvalidFilter: the policy is none; the error names the place.
        """
        operation = topic_calls.subscribe(
            self.arn, queue, filter_=filter, scope=scope, start=start, purge=purge, if_absent=if_absent
        )
        self._transport.call(operation)

    def replay(self, queue: str, start: Start = "beginning", *, purge: bool = False) -> None:
        """Give a queue the log once more, from `start`. Its filter stays. As `subscribe`."""
        self.subscribe(queue, start=start, purge=purge)

    def unsubscribe(self, queue: str) -> None:
        """End the queue's subscription; what it holds stays. Durable, idempotent."""
        self._transport.call(ops.Unsubscribe(self.arn, arn_of(queue)))

    # Reading and managing

    def read_log(self, after: int = 0, max: int = LOG_PAGE) -> list[StoredMessage]:  # noqa: A002 - as in Queue.receive
        """Logged messages behind sequence number `after`, oldest first, about 16 MiB of them; empty at the log's end."""
        return topic_calls.stored(self._transport.call(ops.ReadLog(self.arn, after, max)))

    def log(self, after: int = 0) -> Iterator[StoredMessage]:
        """Every logged message behind sequence number `after`, oldest first, up to the log's end."""
        while page := self.read_log(after):
            yield from page
            after = page[-1].sequence

    def describe(self) -> TopicSummary:
        """Settings, counts, subscriptions and how far each is."""
        return topic_calls.summary_of(self._transport.call(ops.GetTopic(self.arn)))

    def change(self, **settings: Unpack[TopicValues]) -> TopicSummary:
        """Change the settings given, at once. Returns the topic as it is then. Raises InvalidSetting, UnknownSetting."""
        self._transport.call(ops.ChangeTopic(self.arn, topic_calls.to_fields(settings)))
        return self.describe()

    def remove(self) -> None:
        """Delete the topic, its log and its subscriptions; what subscribed queues hold stays. Durable."""
        self._transport.call(ops.DeleteTopic(self.arn))
