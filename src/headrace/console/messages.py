"""Messages as the console shows them, looked at without being received: nothing about them changes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from headrace.console import limits
from headrace.console.page import NotFound, PageContext, PageRequest
from headrace.console.rendering import one_line
from headrace.errors import InvalidMessage
from headrace.native.bodies import attributes_values
from headrace.native.protocol import INTEGER_MAX
from headrace.queue.model import Message, Peeked, arn_of, short_name, uuid_text
from headrace.queue.operations import Peek

HIDDEN = "hidden: the console runs with --hide-bodies"


class Found(NamedTuple):
    """What was looked through. `after`: the seq to go on behind; None: that was all. `scanned`: how many were looked at."""

    messages: list[Peeked]
    after: int | None
    scanned: int


async def look(
    context: PageContext, queue: str, *, after: int, count: int, fits: Callable[[Peeked], bool] = lambda _: True
) -> Found:
    """Up to `count` messages that fit, oldest first, of those with a higher seq; bounded in what it reads."""
    found: list[Peeked] = []
    scanned = size = 0
    while scanned < limits.SCAN_MESSAGES_MAX and size < limits.SCAN_BYTES_MAX:
        page: list[Peeked] = await context.client.call(Peek(arn_of(queue), limits.PEEK_BATCH, after))
        for peeked in page:
            if len(found) == count:
                return Found(found, after, scanned)
            after, scanned, size = peeked.message.seq, scanned + 1, size + len(peeked.message.body)
            if fits(peeked):
                found.append(peeked)
        if len(page) < limits.PEEK_BATCH:
            return Found(found, None, scanned)
    return Found(found, after, scanned)


async def find(context: PageContext, queue: str, seq: int) -> Peeked:
    """One message. Raises NotFound: it was deleted, or moved."""
    page: list[Peeked] = await context.client.call(Peek(arn_of(queue), 1, seq - 1))
    if not page or page[0].message.seq != seq:
        raise NotFound(f"message {seq} is not in {queue} any more: it was deleted, moved, or has expired")
    return page[0]


def seq_of(request: PageRequest) -> int:
    """The sequence number in an address. Raises NotFound: it is none."""
    text = request.names["seq"]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= INTEGER_MAX):
        raise NotFound(f"{text!r} is no sequence number of a message")
    return int(text)


def has_text(text: str) -> Callable[[Peeked], bool]:
    """Whether a message has the text in its body or attributes; case does not matter."""
    wanted = text.lower()

    def fits(peeked: Peeked) -> bool:
        message = peeked.message
        return wanted in message.body.decode(errors="replace").lower() or any(
            wanted in f"{name}={value}".lower() for name, value in attributes_of(message).items()
        )

    return fits


def facts_of(peeked: Peeked, *, now_ms: int, hide: bool, whole: bool = False) -> dict[str, Any]:
    """A message for a list, or, `whole`, for a page of its own."""
    message = peeked.message
    text, binary = body_text(message.body)
    shown: dict[str, Any] = {"line": HIDDEN} if hide else {"line": one_line(text)}
    if whole and not hide:
        shown |= {"body": text[: limits.BODY_SHOWN_CHARACTERS], "cut": len(text) > limits.BODY_SHOWN_CHARACTERS}
    return {
        "seq": message.seq,
        "id": uuid_text(message.id),
        "state": peeked.state,
        "receives": peeked.receives,
        "sent_ms": message.sent_ms,
        "age_s": max(0.0, (now_ms - message.sent_ms) / 1_000),
        "visible_ms": message.visible_ms,
        "group": message.group,
        "dedup_id": message.dedup_id,
        "source": short_name(message.source) if message.source is not None else None,
        "size_bytes": len(message.body),
        "binary": binary,
        "attributes": {} if hide else attributes_of(message),
        **shown,
    }


def attributes_of(message: Message) -> dict[str, str]:
    """Message attributes as text: Binary ones in base64."""
    try:
        values = attributes_values(message.attributes)
    except (InvalidMessage, ValueError):
        return {}
    return {name: base64.b64encode(v).decode() if isinstance(v, bytes) else str(v) for name, v in values.items()}


def body_text(body: bytes) -> tuple[str, bool]:
    """A body as text, and whether it is none: then it is shown in base64."""
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(body[: limits.BODY_SHOWN_CHARACTERS]).decode(), True


def json_of(body: bytes) -> Any:
    """A body read as JSON; None: it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
