"""The list of queues."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console.page import Asked, Desk, Facts, Page, paged
from headrace.console.snapshot import QueueLine

_ORDERS: Final = {
    "name": lambda line: line.name,
    "waiting": lambda line: -line.visible,
    "oldest": lambda line: -(line.oldest_s or 0.0),
    "in": lambda line: -line.sent_rate,
    "out": lambda line: -line.deleted_rate,
}


async def facts(desk: Desk, asked: Asked) -> Facts:
    """`?find=` keeps names with that text, `?by=` orders: name, waiting, oldest, in, out; `?page=` goes on."""
    find, by = asked.query.get("find", "").lower(), asked.query.get("by", "name")
    lines = [line for line in desk.snapshot().queues if find in line.name.lower()]
    lines.sort(key=_ORDERS.get(by, _ORDERS["name"]))
    shown, pages = paged(asked, lines)
    return {
        **pages,
        "find": find,
        "by": by if by in _ORDERS else "name",
        "total": len(desk.snapshot().queues),
        "queues": [line_facts(desk, line) for line in shown],
    }


def line_facts(desk: Desk, line: QueueLine) -> dict[str, Any]:
    """A queue's numbers, and its depth of the last ten minutes."""
    recent = desk.history.recent(f"queue/{line.name}/visible", until_s=desk.now_s())
    return {**msgspec.structs.asdict(line), "depth": line.depth, "for_letters": line.for_letters, "recent": recent}


PAGES: Final = (Page("/queues", "queues.html", facts, section="queues"),)
