"""The queues of a pipeline on Spark: what it reads must be there, what it writes is made."""

from __future__ import annotations

from headrace.errors import QueueNotFound
from headrace.native.client import Client
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.plan import Pipeline, QueueSink, QueueSource, TopicSource, sources_of
from headrace.stream.sources.topic import inbox_name, subscribe


def prepare_places(pipeline: Pipeline, client: Client | None) -> None:
    """Check the queues of sources, subscribe to topics; make the queues of sinks and dead rows if they are not there.

    Raises:
        QueueNotFound, TopicNotFound: a source. It is not made: with a slip in its name a pipeline would wait for ever.
        UnsupportedQuery: there are queues, and no broker.
    """
    sources = [source for source in sources_of(pipeline.output) if isinstance(source, QueueSource | TopicSource)]
    sinks = [sink for sink in pipeline.sinks if isinstance(sink, QueueSink)]
    dead = [pipeline.dead_letter_queue] if pipeline.dead_letter_queue is not None else []
    if client is None:
        if sources or sinks or dead:
            raise UnsupportedQuery(
                f"pipeline {pipeline.name!r}", "it has queues, and no broker is named", "run(broker)"
            )
        return
    for source in sources:
        if isinstance(source, QueueSource):
            client.queue(source.queue)
        else:
            subscribe(client, source.topic, inbox_name(pipeline.name, source.topic), start=source.start)
    for queue in [*(sink.queue for sink in sinks if not sink.topic), *dead]:
        _make(client, queue)


def _make(client: Client, queue: str) -> None:
    try:
        client.queue(queue)
    except QueueNotFound:
        client.queue(queue, create=True, fifo=queue.endswith(".fifo"))
