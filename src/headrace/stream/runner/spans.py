"""A batch of a pipeline as a span: CONSUMER, linked to the messages' traces.

It is no part of any of these traces: a batch has many messages, and what it sends is made of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace import tracing
from headrace.stream.runner.batch import Batch


@contextmanager
def batch_span(pipeline: str, batch: Batch) -> Iterator[None]:
    """The batch is processed in this block, and its commit at least begun; nothing without rows or a tracer provider."""
    tracer = tracing.tracer() if batch.chunks else None
    if tracer is None:
        yield
        return
    facts = tracing.messaging("process", "process", ",".join(sorted(batch.chunks)))
    facts |= {"messaging.batch.message_count": _messages(batch), "headrace.pipeline": pipeline}
    traces = (trace for chunks in batch.chunks.values() for chunk in chunks for trace in chunk.traces)
    span = tracing.start(tracer, f"process {pipeline}", "CONSUMER", facts, links=traces)
    token = tracing.enter(span)
    try:
        yield
    except BaseException as error:
        tracing.failed(span, type(error).__qualname__, str(error))
        raise
    finally:
        tracing.leave(token)
        span.end()


def _messages(batch: Batch) -> int:
    """Rows, where a source has no messages, or several rows in one."""
    return batch.rows + len(batch.dead())
