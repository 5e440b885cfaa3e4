"""Messages for tests of the rules: only what a rule looks at is given."""

from __future__ import annotations

from typing import Any, Final

from headrace.queue.model import Message

NOW: Final = 1_700_000_000_000


def message(seq: int, *, group: str | None = None, sent_ms: int = NOW, **fields: Any) -> Message:
    return Message(seq, bytes(16), b"body", b"", sent_ms, group=group, **fields)
