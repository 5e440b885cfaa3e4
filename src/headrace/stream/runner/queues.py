"""The queues that a pipeline names: what it reads must be there, what it writes is made."""

from __future__ import annotations

from headrace.errors import QueueNotFound
from headrace.native.client import Client
from headrace.stream import plan
from headrace.stream.errors import PlanRefused
from headrace.stream.runner.job import Job


def prepare_queues(job: Job, client: Client) -> None:
    """Check sources; make the queues of sinks, late and dead rows, with the default settings, if they are not there.

    A source is not made: with a slip in its name a pipeline would wait for ever for rows that go elsewhere.

    Raises:
        QueueNotFound: a source.
        PlanRefused: a FIFO queue for late or dead rows, which have no group.
    """
    for source in job.sources:
        if isinstance(source, plan.QueueSource):
            client.queue(source.queue)
    for queue in (job.pipeline.late, job.pipeline.dead):
        if queue is not None:
            _check_standard(queue)
            client.queue(queue, create=True)
    for sink in job.pipeline.sinks:
        if isinstance(sink, plan.QueueSink) and not sink.topic:
            make_queue(client, sink.queue)


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
        raise PlanRefused(
            f"queue {queue!r}", "late and dead rows have no group, which a FIFO queue asks for", "a standard queue"
        )
