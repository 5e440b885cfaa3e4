"""The queues that a pipeline names: what it reads must be there, what it writes is made."""

from __future__ import annotations

from headrace.errors import QueueNotFound
from headrace.native.client import Client
from headrace.stream import plan
from headrace.stream.errors import UnsupportedQuery
from headrace.stream.runner.backfill import source_to_backfill
from headrace.stream.runner.job import Job
from headrace.stream.sources.topic import inbox_name, subscribe


def prepare_queues(job: Job, client: Client) -> None:
    """Check sources; make the queues of sinks, late and dead rows, with the default settings, if they are not there.

    A source is made only if it says so: with a slip in its name a pipeline would wait for ever for rows that go elsewhere.

    Raises:
        QueueNotFound: a source.
        UnsupportedQuery: a FIFO queue for late or dead rows, which have no group.
    """
    for source in job.sources:
        if isinstance(source, plan.QueueSource):
            if source.create:
                make_queue(client, source.queue)
            else:
                client.queue(source.queue)
    for queue in (job.pipeline.late_queue, job.pipeline.dead_letter_queue):
        if queue is not None:
            _check_standard(queue)
            client.queue(queue, create=True)
    for sink in job.pipeline.sinks:
        if isinstance(sink, plan.QueueSink) and not sink.topic:
            make_queue(client, sink.queue)


def backfill_topic(job: Job, client: Client, pipeline: str) -> None:
    """Let the pipeline's only topic be read from the beginning of its log; it is subscribed here, before it is read.

    Raises:
        UnsupportedQuery: its only live source is no topic.
        SubscriptionRefused: the topic keeps no log.
    """
    source = source_to_backfill(job.sources)
    if not isinstance(source, plan.TopicSource):
        raise UnsupportedQuery(
            "backfill 'topic'", f"source {source.name!r} is a queue, which keeps no log", "the name of files"
        )
    subscribe(client, source.topic, inbox_name(pipeline, source.topic), start="beginning")


def make_queue(client: Client, name: str) -> None:
    """Make the queue if it is not there, whatever its settings are."""
    try:
        client.queue(name)
    except QueueNotFound:
        if name.endswith(".fifo"):
            client.queue(name, create=True, fifo=True)
        else:
            client.queue(name, create=True)


def _check_standard(queue: str) -> None:
    if queue.endswith(".fifo"):
        raise UnsupportedQuery(
            f"queue {queue!r}", "late and dead rows have no group, which a FIFO queue asks for", "a standard queue"
        )
