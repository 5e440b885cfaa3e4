"""Messages that tasks have staged, published once: the sink's half of exactly once.

Tasks run anywhere, and perhaps twice; only the driver's commit knows which of them count, and for which batch. So a task
writes its messages as *parts* into the broker's state, under random names, where no reader sees them, and reports the names
to the driver. The driver publishes the parts of a batch and keeps a *record*: the checkpoint that writes, its last batch,
and the parts of this batch that are still to be published.

Each message is published exactly once, although a batch may need several transactions (one takes 10,000 messages):

* Every transaction expects the record as it was read, and replaces it. Of two that start from the same record one
  commits. An unknown outcome is resolved by reading the record again.
* The first one *decides*: it writes the batch's number and all its parts into the record. Spark may run the batch again
  after a crash, with other stages; the record shows that the batch is decided, and the new stages are dropped.
* A part is sent, deleted, and removed from the record in one transaction. So it is sent once, by any process.
* Spark writes its own commit log after the driver's commit, and runs batch n + 1 after that. So a batch that is older than
  the record's is a repetition, and a newer one never comes before the older is completely published.
* Batches are numbered by checkpoint. The record knows its checkpoint (the query's id, random, kept in the checkpoint);
  another one is refused.

Readers may see the first parts of a large batch before the last. Parts that are in no record are stale when a commit ends:
Spark has no task of a later batch yet. They are deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

import msgspec

from headrace.errors import OutcomeUnknown, StateChanged
from headrace.native.client import Client
from headrace.queue.model import Entry
from headrace.queue.operations import GetState, Transact
from headrace.stream.spark import limits
from headrace.stream.spark.errors import CheckpointChanged, StageLost

T = TypeVar("T")


def split_parts(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[tuple[list[T], int]]:
    """The items in their order, in parts of at most PART_MESSAGES_MAX and about PART_BYTES_MAX; with each its size."""
    part: list[T] = []
    size = 0
    for item in items:
        length = size_of(item)
        if part and (len(part) == limits.PART_MESSAGES_MAX or size + length > limits.PART_BYTES_MAX):
            yield part, size
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part, size


def keep_dead_letters(client: Client, name: str, prefix: str, letters: Iterable[Entry]) -> None:
    """In a task: dead letters into the state `name`, as keys that start with `prefix`. Idempotent."""
    for number, (part, _) in enumerate(split_parts(letters, lambda letter: len(letter.body))):
        put(client, name, [(f"{prefix}{number:06d}".encode(), msgspec.msgpack.encode(part))])


def put(client: Client, name: str, state: list[tuple[bytes, bytes | None]]) -> None:
    """Write state that no other process writes. Done twice it is as done once, so it is tried until it is known to be done."""
    for attempt in range(1, limits.UNKNOWN_MAX + 1):
        try:
            client.call(Transact(name=name, state=state))
        except OutcomeUnknown:
            if attempt == limits.UNKNOWN_MAX:
                raise
        else:
            return


def dead_letters_of(kept: dict[bytes, bytes]) -> list[Entry]:
    """The letters of a state's keys and values."""
    return [letter for part in kept.values() for letter in msgspec.msgpack.decode(part, type=list[Entry])]


# --- Stages and their record ---


RECORD: Final = b"record"
STAGE: Final = b"stage/"

Sends = list[tuple[str, list[Entry]]]
"""(ARN, messages): what a part is, as msgpack."""


class StagedPart(msgspec.Struct, frozen=True, array_like=True):
    """A part that is staged: its key in the state, how many messages it has, and how long it is."""

    key: str
    messages: int
    size_bytes: int


class PublishRecord(msgspec.Struct, frozen=True):
    """What a sink has published.

    Attributes:
        checkpoint: who writes.
        batch: its last batch, decided.
        parts: of it, still to be published; none: it is done.
        messages: published, over all batches.
        base: how many batches checkpoints before this one had: base + batch numbers the output for ever.
    """

    checkpoint: str
    batch: int
    parts: tuple[StagedPart, ...] = ()
    messages: int = 0
    base: int = 0


def state_name(name: str) -> str:
    return f"spark:{name}"


def stage(client: Client, name: str, sends: Iterable[tuple[str, Entry]]) -> list[StagedPart]:
    """In a task: keep messages (ARN and entry) where only `publish` finds them. Holds one part in memory."""
    stage_id = uuid.uuid4().hex
    parts: list[StagedPart] = []
    for number, (batch, size) in enumerate(split_parts(sends, _size)):
        key = f"{STAGE.decode()}{stage_id}/{number:06d}"
        value = msgspec.msgpack.encode(_grouped(batch))
        put(client, state_name(name), [(key.encode(), value)])
        parts.append(StagedPart(key, len(batch), size))
    return parts


def publish(
    client: Client, name: str, *, checkpoint: str, batch: int, parts: Iterable[StagedPart], adopt: bool = False
) -> None:
    """On the driver: batch `batch` is these parts. Idempotent; whole when it returns.

    Args:
        adopt: take the name over from another checkpoint.

    Raises:
        CheckpointChanged: the name is another checkpoint's.
        StageLost: a part is gone.
    """
    wanted = PublishRecord(checkpoint, batch, tuple(parts))
    unknown = 0
    while True:
        stored, record = read_record(client, name)
        record = decide(name, record, wanted, adopt=adopt)
        if record is None:
            collect(client, name)
            return
        try:
            client.call(_publication(client, name, stored, record))
        except (StateChanged, StageLost):
            if read_record(client, name)[0] == stored:
                raise
        except OutcomeUnknown:
            unknown += 1
            if unknown == limits.UNKNOWN_MAX:
                raise
        else:
            unknown = 0


def decide(name: str, record: PublishRecord | None, wanted: PublishRecord, *, adopt: bool) -> PublishRecord | None:
    """What to go on with: the record, if its batch is not published whole; else the wanted batch; None: all is done.

    A batch that is decided is finished even for another checkpoint: its messages are those of claims that may be
    acknowledged.
    """
    if record is None:
        return wanted
    if record.checkpoint != wanted.checkpoint and not adopt:
        raise CheckpointChanged(name, record.batch)
    if record.parts:
        return record
    if record.checkpoint == wanted.checkpoint and record.batch >= wanted.batch:
        return None
    return msgspec.structs.replace(wanted, messages=record.messages, base=_base(record, wanted.checkpoint))


def number_of(name: str, record: PublishRecord | None, checkpoint: str, batch: int, *, adopt: bool) -> int:
    """The number of a checkpoint's batch among all that were ever written under the name. Raises CheckpointChanged."""
    if record is None:
        return batch
    if record.checkpoint != checkpoint and not adopt:
        raise CheckpointChanged(name, record.batch)
    return _base(record, checkpoint) + batch


def fitting(parts: Iterable[StagedPart]) -> list[StagedPart]:
    """The first parts, as many as one transaction takes; at least one, if there is one."""
    taken: list[StagedPart] = []
    messages = size = 0
    for part in parts:
        messages += part.messages
        size += part.size_bytes
        if taken and (messages > limits.PART_MESSAGES_MAX or size > limits.COMMIT_BYTES_MAX):
            break
        taken.append(part)
    return taken


def discard(client: Client, name: str, parts: Iterable[StagedPart]) -> None:
    """Delete parts that will not be published. Idempotent."""
    put(client, state_name(name), [(part.key.encode(), None) for part in parts])


def collect(client: Client, name: str) -> None:
    """Delete the parts that no record names: those of tasks and drivers that died. To be called between two batches."""
    record = read_record(client, name)[1]
    kept = {part.key.encode() for part in record.parts} if record else set()
    _delete(client, name, [key for key in _keys(client, name, STAGE) if key not in kept])


def delete(client: Client, name: str, prefix: bytes) -> None:
    """Delete all values under a name whose keys start so."""
    _delete(client, name, _keys(client, name, prefix))


def forget(client: Client, name: str) -> None:
    """Delete the record: nothing will be written under this name again."""
    put(client, state_name(name), [(RECORD, None)])


def read_record(client: Client, name: str) -> tuple[bytes | None, PublishRecord | None]:
    """The record as it is stored, and read; (None, None) if nothing was ever published."""
    stored = client.state(state_name(name), RECORD, limit=1).get(RECORD)
    return stored, msgspec.json.decode(stored, type=PublishRecord) if stored is not None else None


def _base(record: PublishRecord, checkpoint: str) -> int:
    return record.base if record.checkpoint == checkpoint else record.base + record.batch + 1


def _publication(client: Client, name: str, stored: bytes | None, record: PublishRecord) -> Transact:
    """The transaction that sends the first of the record's parts, and strikes them."""
    group = fitting(record.parts)
    messages = record.messages + sum(part.messages for part in group)
    after = msgspec.structs.replace(record, parts=record.parts[len(group) :], messages=messages)
    return Transact(
        name=state_name(name),
        sends=[send for part in group for send in _read_part(client, name, part)],
        state=[(RECORD, msgspec.json.encode(after)), *((part.key.encode(), None) for part in group)],
        expect=[(RECORD, stored)],
    )


def _read_part(client: Client, name: str, part: StagedPart) -> Sends:
    key = part.key.encode()
    value = client.state(state_name(name), key, limit=1).get(key)
    if value is None:
        raise StageLost(name, part.key)
    return msgspec.msgpack.decode(value, type=Sends)


def _size(send: tuple[str, Entry]) -> int:
    return len(send[1].body) + len(send[1].attributes)


def _grouped(sends: Iterable[tuple[str, Entry]]) -> Sends:
    """By ARN, in the order in which they came."""
    found: dict[str, list[Entry]] = {}
    for arn, entry in sends:
        found.setdefault(arn, []).append(entry)
    return list(found.items())


def _keys(client: Client, name: str, prefix: bytes) -> list[bytes]:
    """The keys that start so. A few at a time: their values come with them."""
    keys: list[bytes] = []
    while True:
        after = keys[-1] if keys else b""
        page = client.call(GetState(state_name(name), prefix, limits.LISTED_AT_ONCE, after))
        keys += [key for key, _ in page]
        if len(page) < limits.LISTED_AT_ONCE:
            return keys


def _delete(client: Client, name: str, keys: list[bytes]) -> None:
    if keys:
        put(client, state_name(name), [(key, None) for key in keys])
