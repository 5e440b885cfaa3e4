"""Messages as rows of `message`, and back."""

from __future__ import annotations

from typing import Any, Final, LiteralString

from headrace.queue.model import Message

COLUMNS: Final[LiteralString] = (
    "m.seq, m.id, m.body, m.attributes, m.sent_ms, m.due_ms, m.grp, m.dedup_id, m.trace, m.sender, m.prior_receives,"
    " m.prior_first_ms, m.source"
)
"""What makes a Message, of a table that is called m."""
WIDTH: Final = 13


def message_of(row: tuple[Any, ...]) -> Message:
    """The message in the first WIDTH columns of a row that selected COLUMNS."""
    seq, id_, body, attributes, sent_ms, due_ms, grp, dedup_id, trace, sender, receives, first_ms, source = row[:WIDTH]
    return Message(
        seq, id_, body, attributes or b"", sent_ms, due_ms, grp, dedup_id, trace, sender, receives, first_ms, source
    )
