"""Messages as SQS has them in its API, and as tasks have them. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headrace.queue import attributes
from headrace.queue.model import Delivery, Entry, Message

BATCH_MAX: Final = 10  # SQS: entries of a batch
BATCH_BYTES_MAX: Final = 262_144  # SQS: all entries of a batch together; 1 MiB since 2025, and endpoints differ
DELAY_MAX_MS: Final = 900_000  # SQS: DelaySeconds


def send_entry(entry: Entry, place: int) -> dict[str, Any]:
    """An entry of SendMessageBatch. A delay is rounded up to seconds, and is 15 minutes at most."""
    made: dict[str, Any] = {"Id": str(place), "MessageBody": entry.body.decode()}
    optional = {
        "DelaySeconds": -(-min(entry.delay_ms or 0, DELAY_MAX_MS) // 1_000),
        "MessageGroupId": entry.group,
        "MessageDeduplicationId": entry.dedup_id,
        "MessageAttributes": _attributes_out(entry.attributes),
    }
    return made | {name: value for name, value in optional.items() if value}


def batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Entries in lists that one SendMessageBatch takes."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        length = len(entry.body) + len(entry.attributes)
        if batch and (len(batch) == BATCH_MAX or size + length > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += length
    if batch:
        yield batch


def delivery(received: Mapping[str, Any]) -> Delivery:
    """A message of ReceiveMessage's answer, which asked for all attributes."""
    facts = received.get("Attributes", {})
    message = Message(
        0,
        id_of(received["MessageId"]),
        received["Body"].encode(),
        _attributes_in(received.get("MessageAttributes", {})),
        int(facts.get("SentTimestamp", 0)),
        group=facts.get("MessageGroupId"),
    )
    return Delivery(
        message,
        received["ReceiptHandle"].encode(),
        int(facts.get("ApproximateReceiveCount", 1)),
        int(facts.get("ApproximateFirstReceiveTimestamp", 0)),
    )


def id_of(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:  # another server's ids may have another form
        return uuid.uuid5(uuid.NAMESPACE_OID, text).bytes


def _attributes_out(blob: bytes) -> dict[str, Any]:
    return {
        name: {"DataType": kind, "BinaryValue" if isinstance(value, bytes) else "StringValue": value}
        for name, (kind, value) in attributes.decode(blob).items()
    }


def _attributes_in(received: Mapping[str, Any]) -> bytes:
    return attributes.encode(
        {
            name: (value["DataType"], value["BinaryValue"] if "BinaryValue" in value else value["StringValue"])
            for name, value in received.items()
        }
    )
