"""Messages as rows of `message`, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, LiteralString

from headrace.queue.model import Message

BODY: Final[LiteralString] = (
    "coalesce(m.body, (SELECT p.body FROM published p WHERE p.topic = m.body_topic AND p.seq = m.body_seq))"
)
"""The body, its own or one that is shared: looked for only where it has none of its own."""
COLUMNS: Final[LiteralString] = (
    "m.seq, m.id, "
    + BODY
    + ", m.attributes, m.sent_ms, m.due_ms, m.grp, m.dedup_id, m.trace, m.sender, m.prior_receives,"
    " m.prior_first_ms, m.source"
)
"""What makes a Message, of a table that is called m."""
WIDTH: Final = 13
GROUP: Final = 6  # the place of the group


def message_of(row: tuple[Any, ...]) -> Message:
    """The message in the first WIDTH columns of a row that selected COLUMNS."""
    seq, id_, body, attributes, sent_ms, due_ms, grp, dedup_id, trace, sender, receives, first_ms, source = row[:WIDTH]
    return Message(
        seq, id_, body, attributes or b"", sent_ms, due_ms, grp, dedup_id, trace, sender, receives, first_ms, source
    )


def in_order(found: Iterable[tuple[Any, ...]]) -> list[Message]:
    """The messages of rows that selected COLUMNS and then their place."""
    return [message_of(row) for row in sorted(found, key=lambda row: row[WIDTH])]
