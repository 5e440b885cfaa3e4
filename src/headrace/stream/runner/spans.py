"""A batch of a pipeline as a span, CONSUMER, linked to the messages' traces; and in the metrics.

It is no part of any of these traces: a batch has many messages, and what it sends is made of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace import metering, tracing
from headrace.stream.runner.batch import Batch

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


@contextmanager
def batch_span(pipeline: str, batch: Batch) -> Iterator[None]:
    """The batch is processed in this block, and its commit at least begun; nothing without rows, or without a provider."""
    tracer = tracing.tracer() if batch.chunks else None
    with _metered(pipeline, batch):
        if tracer is None:
            yield
        else:
            with _span(tracer, pipeline, batch):
                yield


@contextmanager
def _span(tracer: Tracer, pipeline: str, batch: Batch) -> Iterator[None]:
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


@contextmanager
def _metered(pipeline: str, batch: Batch) -> Iterator[None]:
    instruments = metering.instruments() if batch.chunks else None
    began_s, error = time.perf_counter(), None
    try:
        yield
    except BaseException as raised:
        error = type(raised).__qualname__
        raise
    finally:
        if instruments is not None:
            queues = ",".join(sorted(batch.chunks))
            seconds, named = time.perf_counter() - began_s, {"headrace.pipeline": pipeline}
            instruments.processed(queues, seconds, named, messages=_messages(batch), error=error)


def _messages(batch: Batch) -> int:
    """Rows, where a source has no messages, or several rows in one."""
    return batch.rows + len(batch.dead())
