"""Dead letters are read and grouped by what went wrong, whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.console import dead_letters
from headrace.queue import attributes
from headrace.queue.model import Message, Peeked, arn_of


def peeked(body: bytes, *, source: str | None = "orders", **more: str) -> Peeked:
    blob = (
        attributes.encode({name.replace("_", "-"): ("String", value) for name, value in more.items()}) if more else b""
    )
    return Peeked(Message(1, bytes(16), body, blob, 1_000, source=arn_of(source) if source else None), "visible", 0)


def test_a_tasks_letter_is_grouped_by_task_and_exception() -> None:
    found = [
        dead_letters.read(peeked(b"{}", headrace_error="ValueError", headrace_task="shop.pay", headrace_reason=reason))
        for reason in ("ValueError: card 1", "ValueError: wholly different")
    ]
    assert (found[0].kind, found[0].of, found[0].error) == ("task", "shop.pay", "ValueError")
    assert found[0].key == found[1].key


def test_a_pipelines_letter_is_grouped_by_reason_but_for_its_numbers() -> None:
    bodies = [
        json.dumps({"pipeline": "p", "step": "parse", "reason": f"row {row}: no number", "body": "x"}).encode()
        for row in (17, 4_711)
    ]
    found = [dead_letters.read(peeked(body, source=None)) for body in bodies]
    assert (found[0].kind, found[0].of, found[0].error) == ("stream", "p", "step parse")
    assert found[0].key == found[1].key
    other = dead_letters.read(peeked(json.dumps({"pipeline": "p", "step": "parse", "reason": "no JSON"}).encode()))
    assert other.key != found[0].key


@pytest.mark.parametrize("body", [b"plain", b"\xff\xfe", b"{broken", b'{"pipeline": 7, "reason": []}', b"[" * 9_999])
def test_any_other_letter_tells_the_queue_that_gave_it_up(body: bytes) -> None:
    assert dead_letters.read(peeked(body)) == dead_letters.Letter("queue", "orders", "received too often", "")
    assert dead_letters.history_of(peeked(body)) == []


def test_groups_are_counted_the_largest_first() -> None:
    some = [peeked(b"a"), peeked(b"b"), peeked(b"c", source="mails")]
    groups = dead_letters.group([(one, dead_letters.read(one)) for one in some])
    assert [(group.of, group.count) for group in groups] == [("orders", 2), ("mails", 1)]


@pytest.mark.parametrize("history", ["x", 7, [1, "a"], [{"at_ms": "soon", "attempt": None, "error": {"a": 1}}]])
def test_a_history_may_be_anything(history: Any) -> None:
    found = dead_letters.history_of(peeked(json.dumps({"history": history}).encode()))
    assert all(entry["at_ms"] is None and isinstance(entry["error"], str) for entry in found)
