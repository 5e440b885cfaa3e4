"""Settings in force, of the broker and of this console; versions, the disk, how long commits take."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from headrace._version import __version__
from headrace.broker_about import setting_facts
from headrace.console import limits
from headrace.console.charts import chart
from headrace.console.page import Facts, Page, PageContext, PageRequest
from headrace.queue import limits as queue_limits

_FULL_SHARE: Final = 0.1
"""Of the disk that is free: below it somebody should look."""


async def facts(context: PageContext, request: PageRequest) -> Facts:  # noqa: ARG001 - a page is given what was asked
    snapshot = context.snapshot()
    about = snapshot.about
    return {
        "store": msgspec.structs.asdict(snapshot.store),
        "broker": msgspec.to_builtins(about),
        "uptime_s": (context.now_s() - about.started_ms / 1_000) if about is not None else None,
        "disk_low": about is not None and about.disk_free_bytes < _FULL_SHARE * about.disk_bytes,
        "version": __version__,
        "charts": [
            chart(context, "A commit takes", "ms", ("store/commit_ms", "mean"), ("store/commit_p99_ms", "p99")),
            chart(context, "Commits", "a second", ("store/commits", "commits")),
        ],
    }


async def more(context: PageContext, request: PageRequest) -> Facts:  # noqa: ARG001 - as above
    """What does not change while the console runs."""
    return {
        "console": msgspec.to_builtins(setting_facts(context.settings, {})),
        "limits": limits_facts(),
    }


def limits_facts() -> list[dict[str, Any]]:
    """Those that people run into. Unit: bytes, seconds, or a number."""
    return [
        {"name": "Longest message", "value": queue_limits.MESSAGE_BYTES_MAX, "unit": "bytes"},
        {"name": "Messages of one native batch", "value": queue_limits.NATIVE_BATCH_MAX, "unit": ""},
        {"name": "Longest wait of a receive", "value": queue_limits.WAIT_MAX_MS / 1_000, "unit": "seconds"},
        {"name": "Longest visibility timeout", "value": queue_limits.VISIBILITY_MAX_MS / 1_000, "unit": "seconds"},
        {
            "name": "Longest retention, and delay of a task",
            "value": queue_limits.RETENTION_MAX_MS / 1_000,
            "unit": "seconds",
        },
        {"name": "In flight of a queue", "value": queue_limits.IN_FLIGHT_MAX, "unit": ""},
        {"name": "Who can be present", "value": queue_limits.HOLDERS_MAX, "unit": ""},
        {"name": "Messages looked through by one search", "value": limits.SCAN_MESSAGES_MAX, "unit": ""},
        {"name": "Dead letters that are grouped", "value": limits.LETTERS_GROUPED_MAX, "unit": ""},
        {"name": "Series of history", "value": limits.SERIES_MAX, "unit": ""},
        {"name": "Pages that are watched at once", "value": limits.VIEWERS_MAX, "unit": ""},
    ]


PAGES: Final = (Page("/settings", "settings.html", facts, more, section="settings"),)
