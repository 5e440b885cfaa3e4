"""A message as a row, and back: with a checksum over everything that is stored of it.

SQLite does not check its pages. Without the checksum a flipped bit is delivered as if it were what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

import msgspec

from headrace.queue.model import Message
from headrace.queue.store.disk import Key, key_of, seq_of
from headrace.queue.timers import SEQ_BITS

Row: TypeAlias = tuple[Any, ...]

COLUMNS: Final = (
    "key, id, body, attributes, sent_ms, visible_ms, message_group, dedup_id, trace, sender, receives,"
    " first_received_ms, source, checksum"
)
_VALUES: Final = "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
BODY: Final = (
    "CASE typeof(body) WHEN 'integer' THEN (SELECT whole.body FROM message AS whole WHERE whole.key = message.body)"
    " ELSE body END"
)
"""The body of a row, wherever it stands: in the row, or in the topic's row that it refers to."""

SELECTED: Final = COLUMNS.replace(" body,", f" {BODY},")
"""What `from_row` reads."""

INSERTS: Final = {
    count: f"INSERT INTO message ({COLUMNS}, commit_seq) VALUES {','.join([_VALUES] * count)}"  # noqa: S608
    for count in (100, 10, 1)
}
"""Statements that insert so many rows, largest first. One of a hundred rows takes a quarter less than a hundred of one,
and gives the interpreter's lock up once."""

_encode = msgspec.msgpack.Encoder().encode


def checksum(queue: int, message: Message) -> int:
    """CRC-32 of the whole message, its queue included: a row that strays into another queue does not check."""
    return crc32(_encode(message), queue)


def to_row(queue: int, m: Message, commit_seq: int) -> Row:
    return (
        key_of(queue, m.seq), m.id, m.body, m.attributes or None, m.sent_ms, m.visible_ms, m.group, m.dedup_id,
        m.trace, m.sender, m.receives or None, m.first_received_ms, m.source, crc32(_encode(m), queue), commit_seq,
    )  # fmt: skip


def refers(row: Sequence[Any]) -> bool:
    """Whether a row as stored has a reference in its body's place."""
    return type(row[2]) is int


def refer(row: Row, references: Mapping[Key, Key]) -> Row:
    """The row with a reference in its body's place, if its body is stored elsewhere. The checksum stays the whole one."""
    reference = references.get(row[0])
    return row if reference is None else (*row[:2], reference, *row[3:])


def from_row(row: Row) -> tuple[Key, Message | None]:
    """(key, the message), or (key, None) when the row is damaged."""
    (key, id_bytes, body, attributes, sent_ms, visible_ms, group, dedup_id, trace, sender, receives, first_ms, source,
     stored) = row  # fmt: skip
    message = Message(
        seq_of(key), id_bytes, body, attributes or b"", sent_ms, visible_ms, group, dedup_id, trace, sender,
        receives or 0, first_ms, source,
    )  # fmt: skip
    try:
        whole = crc32(_encode(message), key >> SEQ_BITS) == stored
    except (TypeError, UnicodeEncodeError):
        whole = False  # a column of another type than was written
    return key, message if whole else None
