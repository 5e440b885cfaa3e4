"""Dead letters: messages and rows that cannot be processed, on both engines."""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from headrace.queue.model import Entry
from headrace.stream.sources.base import Dead

BODY_BYTES_MAX: Final = (
    512 * 1024
)  # of a body in a letter: with base64 or escapes it still fits into a message of 1 MiB
REASON_CHARACTERS_MAX: Final = 2_000


def dead_letter(dead: Dead, *, pipeline: str) -> Entry:
    """The dead letter as JSON: pipeline, source, step, reason, message_id, and the body as text (`body`) or `body_base64`.

    A body longer than BODY_BYTES_MAX is cut, and `body_size_bytes` says how long it was.
    """
    letter: dict[str, object] = {
        "pipeline": pipeline,
        "source": dead.source,
        "step": dead.step,
        "reason": dead.reason[:REASON_CHARACTERS_MAX],
        "message_id": dead.message_id,
        **_body(dead.body[:BODY_BYTES_MAX]),
    }
    if len(dead.body) > BODY_BYTES_MAX:
        letter["body_size_bytes"] = len(dead.body)
    return Entry(msgspec.json.encode(letter))


def _body(body: bytes) -> dict[str, object]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
    # A quotation mark takes two bytes as JSON, a control character six: such a body is shorter as base64.
    if len(msgspec.json.encode(text)) > 1.5 * len(body) + 2:
        return {"body_base64": base64.b64encode(body).decode()}
    return {"body": text}
