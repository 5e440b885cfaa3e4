"""Messages that nobody of this app has written: each ends in the dead letters (or does what it says), and all others run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.queue.model import Entry
from headrace.work import envelope as envelopes
from tests.broker_process import wait_until
from tests.work.worker_process import sender, working

pytestmark = pytest.mark.serial

TASKS = """
@app.task(retries=1, backoff=0.01, result_ttl="1h")
def echo(value=None):
    return value

@app.task(retries=1, backoff=0.01)
def fails(text=""):
    raise ValueError(text)

@app.task(rate="1000/s", concurrency=100, key=lambda value=None: "k", retries=1, backoff=0.01)
def limited(value=None):
    pass
"""


def _envelope(task: str = "tasks.echo", **fields: Any) -> bytes:
    made: dict[str, Any] = {"task": task, "id": envelopes.new_id(), "args": {}}
    return json.dumps(made | fields).encode()


def _nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"task": "tasks.echo", "id": "a", "args": {}}
    for _ in range(depth):
        made = {"task": "tasks.echo", "id": "a", "args": {}, "then": [{"queue": "tasks", "envelope": made}]}
    return made


ATTEMPT = {"at_ms": 1, "attempt": 1, "error": "E", "message": "m" * 900, "traceback": "t" * 4_000}
BODIES: dict[str, bytes] = {
    "empty object": b"{}",
    "text": b"hello",
    "no text": b"\xff\xfe\x00",
    "number": b"7",
    "null": b"null",
    "open": b'{"task": "tasks.echo", "id": "x", "args": {',
    "deep": b"[" * 100_000,
    "deep arguments": _envelope().replace(b'"args": {}', b'"args": {"value": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    "deep then": json.dumps(_nested(90)).encode(),
    "lone surrogate": b'{"task": "tasks.echo", "id": "x\\ud800", "args": {}}',
    "no such task": _envelope("nobody.knows", retries_max=1),
    "task is a number": _envelope(task=7),  # type: ignore[arg-type]
    "arguments are a list": _envelope(args=[1]),
    "arguments are a text": _envelope(args="x"),
    "unknown argument": _envelope(args={"other": 1}),
    "empty id": _envelope(id=""),
    "long id": _envelope(id="a" * 5_000),
    "id with a path": _envelope(id="../../x/m/1"),
    "id is a number": _envelope(id=5),
    "id of another row": _envelope(id="a\x00b"),
    "attempt below 0": _envelope(attempt=-5),
    "attempt beyond all": _envelope(attempt=10**30),
    "retries beyond all": _envelope("tasks.fails", retries_max=10**30),
    "retries below 0": _envelope("tasks.fails", retries_max=-1),
    "history of 1 MB": _envelope("tasks.fails", history=[ATTEMPT] * 200),
    "wrong history": _envelope(history="x"),
    "no time": _envelope(timeout_s=0),
    "timeout below 0": _envelope(timeout_s=-1),
    "timeout beyond all": _envelope(timeout_s=1e300),
    "kept beyond all": _envelope(result_ttl_s=1e308),
    "kept below 0": _envelope(result_ttl_s=-1e308),
    "expires beyond all": _envelope(expires_ms=10**30),
    "sent beyond all": _envelope("tasks.fails", sent_ms=10**30),
    "reserved": _envelope("tasks.limited", reserved_ms=-(10**30)),
    "long limit key": _envelope("tasks.limited", limit_key="k" * 100_000),
    "long group": _envelope("tasks.fails", group="g" * 1_000),
    "group of spaces": _envelope("tasks.fails", group="\n \n"),
    "then to nowhere": _envelope(then=[{"queue": "../x", "envelope": {"task": "t", "id": "i", "args": {}}}]),
    "then to a long name": _envelope(then=[{"queue": "q" * 500, "envelope": {"task": "t", "id": "i", "args": {}}}]),
    "then beyond all": _envelope(
        then=[{"queue": "tasks", "delay_ms": 10**15, "envelope": {"task": "tasks.echo", "id": "i", "args": {}}}]
    ),
    "then takes from a list": _envelope(
        then=[{"queue": "tasks", "takes": "value", "envelope": {"task": "tasks.echo", "id": "i", "args": [1]}}]
    ),
    "joins a million": _envelope(joins={"id": "nothing", "count": 10**12, "takes": "value"}),
    "joins with a list": _envelope(args=[1], joins={"id": "nothing", "count": 2, "takes": "value"}),
    "joins below 0": _envelope(joins={"id": "nothing", "count": -1, "takes": "value"}),
    "member of another row": _envelope(workflow={"id": "x/join", "index": 0}),
    "member below 0": _envelope(workflow={"id": "x", "index": -(10**30)}),
    "member of a long group": _envelope(workflow={"id": "x" * 5_000, "index": 0}),
    "unique long": _envelope(unique={"key": "u" * 100_000}),
    "unique until": _envelope(unique={"key": "u", "until": "never"}),
    "unique of a number": _envelope(unique={"key": 5}),
    "parent of 100 kB": _envelope(parent="p" * 100_000, trace="t" * 100_000),
    "full": b"%s" % _envelope("tasks.fails", args={"text": "x" * (1_048_576 - 160)}),
    "full, with a history": _envelope("tasks.fails", args={"text": "x" * 1_000_000}, history=[ATTEMPT] * 9),
    "full, with a flow": _envelope("tasks.fails", args={"text": "x" * 1_048_300}, workflow={"id": "none", "index": 1}),
}

FINE = {"deep then", "unique long", "unique until", "long limit key", "parent of 100 kB"}
"""What is odd, and can be done all the same."""


def test_each_hostile_message_ends_and_all_others_run(tmp_path: Path) -> None:
    with working(tmp_path, "--threads", "4", app=TASKS) as worker, sender(tmp_path) as tasks:
        backend = tasks.app.backend
        _send_all(backend)
        tasks.note.send_many([(n,) for n in range(200)])
        worker.ledger.wait("ended", 200)
        wait_until(lambda: _left(backend) == 0)
        tasks.note.send(200)
        worker.ledger.wait("ended", 201)
        assert set(worker.ledger.counts("began").values()) == {1}
        assert _letters(backend) == len(BODIES) - len(FINE)
        assert not {"work.child.ended", "work.thread.failed", "work.lease.lost"} & set(worker.actions())
        assert worker.stop() == 0


def _letters(backend: Any) -> int:
    return int(backend.client.queue("tasks-dead").counts().visible)


def _send_all(backend: Any) -> None:
    for name, body in BODIES.items():
        [sent] = backend.send("tasks", [Entry(body)])
        assert not isinstance(sent, Exception), f"{name}: {sent}"


def _left(backend: Any) -> int:
    counts = backend.client.queue("tasks").counts()
    return int(counts.visible + counts.in_flight + counts.delayed)
