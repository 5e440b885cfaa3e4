"""A topic as a source: a queue of the pipeline's own, subscribed to it."""

from __future__ import annotations

import time
from typing import Final, Literal

from headrace.errors import QueueNotFound
from headrace.native.client import Client
from headrace.queue import limits as queue_limits
from headrace.queue import operations as ops
from headrace.queue.model import TopicDescription, arn_of, topic_arn_of
from headrace.stream import limits
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import TopicSource
from headrace.stream.sources.queue import QueueReader

_RETENTION_S: Final = (
    queue_limits.RETENTION_MAX_MS / 1_000
)  # so long a pipeline may stand still without losing anything


class TopicReader(QueueReader):
    """See Reader. At the pipeline's first start its queue is subscribed, as the source says.

    `behind` while the broker gives the queue what is in the topic's log; live once, it stays so.
    """

    def __init__(
        self, source: TopicSource, inbox: str, client: Client, *, reader: str, columns: frozenset[str] | None = None
    ) -> None:
        super().__init__(source, inbox, client, reader=reader, columns=columns)
        self._topic = source.topic
        self._start = source.start
        self._inbox = inbox
        self._behind = True  # not known yet

    def open(self, position: bytes | None) -> None:
        subscribe(self._client, self._topic, self._inbox, start=self._start)
        super().open(position)

    @property
    def behind(self) -> bool:
        self._behind = self._behind and is_catching_up(self._client, self._topic, self._inbox)
        return self._behind


def inbox_name(pipeline: str, topic: str) -> str:
    """The queue by which a pipeline reads a topic; FIFO if the topic is. Raises UnsupportedQuery: the names are too long."""
    name = f"{pipeline}--{topic.rsplit(':', 1)[-1]}"
    if len(name) > queue_limits.NAME_CHARACTERS_MAX:
        raise UnsupportedQuery(
            f"topic {topic!r}",
            f"the pipeline's queue for it would be {name!r}, longer than {queue_limits.NAME_CHARACTERS_MAX} characters",
            "a shorter name for the pipeline",
        )
    return name


def subscribe(client: Client, topic: str, inbox: str, *, start: Literal["now", "beginning"] = "now") -> None:
    """Make the queue and subscribe it from `start` on; one that is subscribed already stays as it is. Idempotent.

    Raises TopicNotFound.
    """
    description: TopicDescription = client.call(ops.GetTopic(topic_arn_of(topic)))
    try:
        client.queue(inbox)
    except QueueNotFound:
        client.queue(inbox, create=True, fifo=description.info.settings.fifo, retention=_RETENTION_S)
    client.topic(topic).subscribe(inbox, start=start, if_absent=True)


def is_catching_up(client: Client, topic: str, inbox: str) -> bool:
    """Whether the queue has not been given all that is in the topic's log. Raises TopicNotFound."""
    description: TopicDescription = client.call(ops.GetTopic(topic_arn_of(topic)))
    subscriptions = [state.subscription for state in description.subscriptions]
    return any(one.position is not None for one in subscriptions if one.queue == arn_of(inbox))


def wait_until_live(client: Client, topic: str, inbox: str) -> None:
    """Return when the queue has been given all that was in the topic's log. Raises TopicNotFound."""
    while is_catching_up(client, topic, inbox):
        time.sleep(limits.QUIET_S)
