"""The list of queues."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console.page import Facts, Page, PageContext, PageRequest, paged
from headrace.console.snapshot import QueueLine

_ORDERS: Final = {
    "name": lambda line: line.name,
    "waiting": lambda line: -line.visible,
    "oldest": lambda line: -(line.oldest_s or 0.0),
    "in": lambda line: -line.sent_rate,
    "out": lambda line: -line.deleted_rate,
}


async def facts(context: PageContext, request: PageRequest) -> Facts:
    """`?find=` keeps names with that text, `?by=` orders: name, waiting, oldest, in, out; `?page=` goes on."""
    find, by = request.query.get("find", "").lower(), request.query.get("by", "name")
    lines = [line for line in context.snapshot().queues if find in line.name.lower()]
    lines.sort(key=_ORDERS.get(by, _ORDERS["name"]))
    shown, pages = paged(request, lines)
    return {
        **pages,
        "find": find,
        "by": by if by in _ORDERS else "name",
        "total": len(context.snapshot().queues),
        "queues": [line_facts(context, line) for line in shown],
    }


def line_facts(context: PageContext, line: QueueLine) -> dict[str, Any]:
    """A queue's numbers, and its depth of the last ten minutes."""
    recent = context.history.recent(f"queue/{line.name}/visible", until_s=context.now_s())
    return {**msgspec.structs.asdict(line), "depth": line.depth, "for_letters": line.for_letters, "recent": recent}


PAGES: Final = (Page("/queues", "queues.html", facts, section="queues"),)
