"""The overview: what flows, what waits, what needs somebody."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace.console import flow, limits
from headrace.console.charts import chart
from headrace.console.page import Facts, Page, PageContext, PageRequest
from headrace.console.pages.queues import line_facts
from headrace.console.rendering import age, count, part
from headrace.console.snapshot import QueueLine, Snapshot, names_of

_STUCK_S: Final = 30.0  # before that it may just be about to be taken
_WARNINGS_MAX: Final = 6


async def facts(context: PageContext, request: PageRequest) -> Facts:  # noqa: ARG001 - a page is given what was asked
    snapshot = context.snapshot()
    return {
        "warnings": warnings(snapshot)[:_WARNINGS_MAX],
        "totals": totals(snapshot),
        "flow": msgspec.to_builtins(flow.draw(snapshot)),
        "queues": [line_facts(context, line) for line in flow.busiest(snapshot.queues, limits.QUEUES_OVERVIEW)],
        "queues_total": len(snapshot.queues),
        "store": msgspec.structs.asdict(snapshot.store),
        "nodes": len(snapshot.holders_of("broker")),
        "charts": [
            chart(context, "Through the broker", "messages a second", ("all/sent", "sent"), ("all/deleted", "done")),
            chart(context, "Waiting", "messages", ("all/visible", "visible"), ("all/in_flight", "in flight")),
        ],
    }


def totals(snapshot: Snapshot) -> dict[str, Any]:
    """All queues together. Dead letters wait, but for a person: they are counted apart."""
    live = [line for line in snapshot.queues if not line.for_letters]
    return {
        "sent_rate": sum(line.sent_rate for line in live),
        "deleted_rate": sum(line.deleted_rate for line in live),
        "waiting": sum(line.visible for line in live),
        "in_flight": sum(line.in_flight for line in live),
        "delayed": sum(line.delayed for line in live),
        "oldest_s": max((line.oldest_s for line in live if line.oldest_s is not None), default=None),
        "letters": sum(line.depth for line in snapshot.queues if line.for_letters),
        "consumers": sum(bool(names_of(holder.facts.get("queues"))) for holder in snapshot.holders),
    }


def warnings(snapshot: Snapshot) -> list[dict[str, str]]:
    """What needs somebody, in words, the worst first: text, and where to look."""
    found = []
    if snapshot.store.failed is not None:
        found.append({"text": f"The store has failed: {snapshot.store.failed}.", "go": "/settings"})
    if snapshot.store.full:
        found.append({"text": "The store is full: sends are refused until there is space again.", "go": "/settings"})
    stuck = [line for line in snapshot.queues if not line.for_letters and flow.state_of(line) == "stuck"]
    stuck.sort(key=lambda line: -(line.oldest_s or 0.0))
    found += [_stuck(line) for line in stuck if (line.oldest_s or 0.0) > _STUCK_S]
    letters = [line for line in snapshot.queues if line.for_letters and line.depth]
    found += [_letters(line) for line in letters]
    return found


def _stuck(line: QueueLine) -> dict[str, str]:
    who = "nobody takes them" if not line.consumers else "its consumers take nothing"
    text = f"{line.name}: {count(line.visible)} waiting, the oldest for {age(line.oldest_s)}; {who}."
    return {"text": text, "go": f"/queues/{part(line.name)}"}


def _letters(line: QueueLine) -> dict[str, str]:
    of = f" of {', '.join(line.letters_of)}" if line.letters_of else ""
    noun = "dead letter" if line.depth == 1 else "dead letters"
    return {"text": f"{count(line.depth)} {noun}{of} in {line.name}.", "go": f"/dead-letters/{part(line.name)}"}


PAGES: Final = (Page("/", "overview.html", facts, section="overview"),)
