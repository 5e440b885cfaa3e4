"""What dead letters tell of themselves: by whom, why, what happened before. Pure.

task letters      attributes `headrace-error`, `headrace-task`, `headrace-reason`; the body is the task with its history
durable requests  attribute `Error`
pipeline letters  a JSON body with `pipeline`, `step`, `reason`
all others        received too often: only the queue that gave them up is known
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from headrace.console.messages import attributes_of, json_of
from headrace.queue.model import Peeked, short_name

_NUMBERS: Final = re.compile(r"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*|\d+")
_LINE_CHARACTERS: Final = 200
_HISTORY_MAX: Final = 50


class Letter(msgspec.Struct, frozen=True):
    """Attributes:
    kind: task, web, stream or queue.
    of: the task, the pipeline, or the queue that gave it up.
    error: what went wrong, in a word or two.
    reason: one line more; may be empty.
    """

    kind: str
    of: str
    error: str
    reason: str

    @property
    def key(self) -> str:
        """What letters of one group have in common. Numbers and ids in a reason tell letters apart, not groups."""
        reason = "" if self.kind == "task" else _NUMBERS.sub("#", self.reason)
        return hashlib.sha256(repr((self.kind, self.of, self.error, reason)).encode()).hexdigest()[:12]


class Group(msgspec.Struct, frozen=True):
    """Letters that went wrong alike. `reason` is the newest one's."""

    key: str
    kind: str
    of: str
    error: str
    reason: str
    count: int
    first_ms: int
    last_ms: int


def read(peeked: Peeked) -> Letter:
    """What a letter tells."""
    message = peeked.message
    found = attributes_of(message)
    source = short_name(message.source) if message.source is not None else ""
    if "headrace-error" in found:
        error = found["headrace-error"]
        reason = _line(found.get("headrace-reason")).removeprefix(f"{error}: ")
        return Letter("task", found.get("headrace-task", source), error, reason)
    if "Error" in found:
        return Letter("web", source, "request failed", _line(found["Error"]))
    body = json_of(message.body) if message.body[:1] == b"{" else None
    if isinstance(body, dict) and isinstance(body.get("pipeline"), str) and isinstance(body.get("reason"), str):
        return Letter("stream", body["pipeline"], f"step {body.get('step', '?')}", _line(body["reason"]))
    return Letter("queue", source or "unknown", "received too often", "")


def group(letters: Iterable[tuple[Peeked, Letter]]) -> list[Group]:
    """Groups, the largest first."""
    found: dict[str, Group] = {}
    for peeked, letter in letters:
        sent_ms, old = peeked.message.sent_ms, found.get(letter.key)
        found[letter.key] = Group(
            letter.key,
            letter.kind,
            letter.of,
            letter.error,
            letter.reason or (old.reason if old is not None else ""),
            count=1 + (old.count if old is not None else 0),
            first_ms=min(sent_ms, old.first_ms) if old is not None else sent_ms,
            last_ms=max(sent_ms, old.last_ms) if old is not None else sent_ms,
        )
    return sorted(found.values(), key=lambda one: (-one.count, one.of, one.key))


def history_of(peeked: Peeked) -> list[dict[str, Any]]:
    """The attempts of a task's letter, oldest first, with tracebacks. Whatever stands there: anybody may have sent it."""
    body = json_of(peeked.message.body)
    history = body.get("history") if isinstance(body, dict) else None
    if not isinstance(history, list):
        return []
    return [_attempt(entry) for entry in history[-_HISTORY_MAX:] if isinstance(entry, dict)]


def run_of(peeked: Peeked, letter: Letter) -> str:
    """The id by which the console shows the run of a task's letter; empty: it is no task's, or none stands there."""
    body = json_of(peeked.message.body)
    found = body.get("id") if letter.kind == "task" and isinstance(body, dict) else None
    return found if isinstance(found, str) else ""


def _attempt(entry: dict[str, Any]) -> dict[str, Any]:
    at_ms, attempt = entry.get("at_ms"), entry.get("attempt")
    texts = {name: str(entry.get(name, "")) for name in ("error", "message", "traceback", "worker")}
    return {
        "at_ms": at_ms if isinstance(at_ms, int) and 0 < at_ms < 1 << 45 else None,
        "attempt": attempt if isinstance(attempt, int) else None,
        **texts,
    }


def _line(text: str | None) -> str:
    return (text or "").partition("\n")[0][:_LINE_CHARACTERS]
