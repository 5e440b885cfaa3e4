"""The options of the data source: read once, checked, frozen. Spark users write them as `.option(name, value)`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from headrace.native.client import Client, connect
from headrace.native.endpoint import parse
from headrace.queue.limits import NATIVE_BATCH_MAX
from headrace.queue.model import arn_of
from headrace.stream.limits import BATCH_ROWS_MAX
from headrace.stream.plan import QueueSink
from headrace.stream.sources.queue import METADATA, inbox_name
from headrace.stream.spark import limits
from headrace.stream.spark.errors import OptionInvalid

BodyFormat: TypeAlias = Literal["auto", "json", "arrow", "raw"]
WriteFormat: TypeAlias = Literal["json", "arrow"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What `spark.read` and `spark.readStream` take.

    Attributes:
        broker: URL of the broker, as every executor reaches it.
        queue: ARN; of a topic the reader's inbox.
        topic: its name, or None; streams only.
        reader: whose claims; streams only.
        form: what bodies are; `raw`: they are not decoded.
        metadata: columns of the schema that are the message's own.
        dead: ARN of the queue for messages that cannot be decoded; None: they fail the query.
        pipeline: the name in dead letters.
        batch_messages, claim_messages: bounds of a batch, and of each partition of it.
    """

    broker: str
    queue: str
    topic: str | None
    reader: str
    form: BodyFormat
    metadata: tuple[str, ...]
    dead: str | None
    pipeline: str
    batch_messages: int
    claim_messages: int

    @classmethod
    def of(cls, options: Mapping[str, str]) -> ReadOptions:
        dead = options.get("deadLetterQueue")
        reader, topic = options.get("reader", ""), options.get("topic")
        pipeline = options.get("pipeline", reader)
        queue = inbox_name(pipeline, topic) if topic else _required(options, "queue", "the queue or topic to read")
        return cls(
            broker=broker_url(options),
            queue=arn_of(queue),
            topic=topic,
            reader=reader,
            form=cast("BodyFormat", _one_of(options, "format", "auto", get_args(BodyFormat))),
            metadata=_metadata(options.get("metadata", "")),
            dead=arn_of(dead) if dead else None,
            pipeline=pipeline,
            batch_messages=_number(
                options, "maxMessagesPerTrigger", limits.BATCH_MESSAGES_DEFAULT, greatest=BATCH_ROWS_MAX
            ),
            claim_messages=_number(
                options, "maxMessagesPerPartition", limits.CLAIM_MESSAGES_DEFAULT, greatest=NATIVE_BATCH_MAX
            ),
        )


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What `df.write` and `df.writeStream` take.

    Attributes:
        queue: name or ARN of the queue or topic.
        topic: whether it is one.
        name: whose output it is: batches are published once under a name. Streams only.
        form: a JSON object a row, or Arrow record batches.
        group: the column for the message group.
        rows_max: rows of an Arrow message at most.
        adopt: take the name over from another checkpoint.
    """

    broker: str
    queue: str
    topic: bool
    name: str
    form: WriteFormat
    group: str | None
    rows_max: int
    adopt: bool

    @classmethod
    def of(cls, options: Mapping[str, str]) -> WriteOptions:
        return cls(
            broker=broker_url(options),
            queue=options.get("topic") or _required(options, "queue", "the queue or topic to write to"),
            topic="topic" in options,
            name=options.get("name", ""),
            form=cast("WriteFormat", _one_of(options, "format", "json", get_args(WriteFormat))),
            group=options.get("group"),
            rows_max=_number(options, "maxRowsPerMessage", limits.ARROW_ROWS_DEFAULT, greatest=BATCH_ROWS_MAX),
            adopt=_one_of(options, "adopt", "false", ("false", "true")) == "true",
        )

    def sink(self) -> QueueSink:
        """The same as a pipeline says it."""
        return QueueSink(self.queue, self.topic, format=self.form, group=self.group, rows_max=self.rows_max)


def broker_url(options: Mapping[str, str]) -> str:
    """The broker's URL. Raises OptionInvalid for a folder: one process alone can open it, and Spark has many."""
    broker = options.get("broker") or os.environ.get("HEADRACE_BROKER", "")
    if not broker:
        raise OptionInvalid("broker", "", "give the URL of a running broker, such as http://HOST:9324")
    if isinstance(parse(broker), Path):
        reason = "a folder is opened by one process alone, and Spark has many; run `headrace broker`, and give its URL"
        raise OptionInvalid("broker", broker, reason)
    return broker


def connect_to(broker: str) -> Client:
    """A client of it, patient: a task that fails may end the query (`local[N]` has no retries)."""
    key = os.environ.get("HEADRACE_ACCESS_KEY"), os.environ.get("HEADRACE_SECRET_KEY")
    pair = (key[0], key[1]) if key[0] and key[1] else None
    return connect(broker, patience=limits.PATIENCE_S, key=pair)


def _required(options: Mapping[str, str], name: str, what: str) -> str:
    if not options.get(name):
        raise OptionInvalid(name, "", f"give {what}")
    return options[name]


def _metadata(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in METADATA:
            raise OptionInvalid("metadata", name, f"it is one of {', '.join(METADATA)}")
    return names


def _one_of(options: Mapping[str, str], name: str, default: str, known: tuple[str, ...]) -> str:
    value = options.get(name, default).lower()
    if value not in known:
        raise OptionInvalid(name, value, f"it is one of {', '.join(known)}")
    return value


def _number(options: Mapping[str, str], name: str, default: int, *, greatest: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= greatest:
        raise OptionInvalid(name, text, f"it is a number from 1 to {greatest}")
    return int(text)
