from __future__ import annotations

import pytest

import headrace
import headrace.stream as hs
from headrace.queue.model import arn_of
from headrace.stream.errors import TooManyFailures
from headrace.stream.letters import dead_letter
from headrace.stream.result import Collector
from headrace.stream.schema import Schema
from headrace.stream.sources.base import Dead
from headrace.stream.spark.batches import Batches, Counts
from headrace.stream.spark.claims import reader_of, stage_dead
from headrace.stream.spark.places import prepare_places
from headrace.stream.spark.python_step import DeadRows

SCHEMA = "id bigint"


@pytest.mark.parametrize(
    ("source", "queue"), [(hs.queue("in", schema=SCHEMA), "in"), (hs.topic("t", schema=SCHEMA), "p--t")]
)
def test_messages_that_cannot_be_decoded_are_failures(client: headrace.Client, source: hs.Stream, queue: str) -> None:
    client.queue("in", create=True)
    client.topic("t", create=True)
    pipeline = hs.pipeline("p", source, sink=hs.queue("out"), dead="dead", failures_max=1).plan
    prepare_places(pipeline, client)
    schema = Schema.of(SCHEMA)
    counts = Counts(Collector(schema.arrow(), everything=False))
    batches = Batches(client, pipeline, schema, DeadRows("p", "run", None, queue=True), False, counts)
    letters = [dead_letter(Dead(b"x", "no JSON", "", "", ""), pipeline="p")] * 2
    stage_dead(client, arn_of(queue), reader_of("p"), 1, letters)
    with pytest.raises(TooManyFailures, match=r"2 of .*; the last: no JSON"):
        batches._dead_parts(client, 0)
