from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql.types import StructType

from headrace.queue.model import arn_of
from headrace.stream.plan import QueueSink
from headrace.stream.spark.errors import OptionInvalid
from headrace.stream.spark.options import ReadOptions, WriteOptions
from headrace.stream.spark.source import HeadraceSource

URL = {"broker": "http://127.0.0.1:9324"}


def test_reading_has_defaults_for_all_but_the_place() -> None:
    options = ReadOptions.of({**URL, "queue": "in", "reader": "r", "metadata": "sequence, sent_at"})
    assert (options.queue, options.form, options.dead, options.pipeline) == (arn_of("in"), "auto", None, "r")
    assert options.metadata == ("sequence", "sent_at")
    assert (options.batch_messages, options.claim_messages) == (100_000, 10_000)


def test_topic_is_read_by_an_inbox_of_the_readers_own() -> None:
    assert ReadOptions.of({**URL, "topic": "flights", "reader": "r"}).queue == arn_of("r--flights")


def test_topic_is_read_as_a_stream_only() -> None:
    with pytest.raises(OptionInvalid, match="read as a stream"):
        HeadraceSource({**URL, "topic": "flights"}).reader(StructType())


def test_writing_names_a_queue_or_a_topic() -> None:
    assert WriteOptions.of({**URL, "queue": "out"}).sink() == QueueSink("out")
    topic = WriteOptions.of({**URL, "topic": "t", "format": "arrow", "group": "k"}).sink()
    assert topic == QueueSink("t", topic=True, format="arrow", group="k")


def test_broker_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BROKER", "http://elsewhere:1")
    assert WriteOptions.of({"queue": "out"}).broker == "http://elsewhere:1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"queue": "in", "broker": ""}, r'option\("broker", \'\'\): give the URL'),
        ({"queue": "in", "broker": "./data"}, "a folder is opened by one process alone"),
        ({**URL}, "give the queue or topic to read"),
        ({**URL, "queue": "in", "format": "xml"}, "one of auto, json, arrow, raw"),
        ({**URL, "queue": "in", "metadata": "sequence,offset"}, "'offset'.*one of message_id, sent_at"),
        ({**URL, "queue": "in", "maxMessagesPerTrigger": "0"}, "a number from 1 to 10000000"),
        ({**URL, "queue": "in", "maxMessagesPerPartition": "10001"}, "a number from 1 to 10000"),
        ({**URL, "queue": "in", "maxMessagesPerTrigger": "many"}, "'many'"),
    ],
)
def test_wrong_options_are_named_with_what_they_may_be(
    given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEADRACE_BROKER", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionInvalid, match=message):
        ReadOptions.of(given)
