"""Plans of FIFO queues' statements: made while there is little, they touch what they are about when there is much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from headrace.clock import ManualClock
from headrace.queue import operations as ops
from headrace.queue.model import Entry
from headrace.queue.store.postgres import connecting, fifo, fifo_lease, group_binding, groups, settling
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.statements import _numbered
from headrace.queue.store.postgres.store import PostgresStore
from tests.queue.postgres.fifo_queue import QUEUE, SETTINGS
from tests.queue.postgres.nodes import ask

NODES = 1
GROUPS = 60
OF_A_GROUP = 10
PAGES_MAX = 30 * OF_A_GROUP  # some 12 a message; a look through all of them would be thousands


@dataclass
class Known:
    """What statements are about: messages of one group."""

    queue: int
    now: int
    seqs: Sequence[int]

    def lease(self) -> Mapping[str, Any]:
        return {
            "queue": self.queue, "now": self.now, "until": self.now + 1, "busy": self.now + 1, "shown": self.now, "floor": 0,
            "oldest": 0, "dead": 1_000, "bytes": 1 << 30, "each": OF_A_GROUP, "all": OF_A_GROUP,
        }  # fmt: skip

    def change(self) -> Mapping[str, Any]:
        ones = [1] * len(self.seqs)
        return {
            "places": list(range(len(self.seqs))), "queues": self._queues(), "seqs": self.seqs, "receives": ones,
            "hidden": [0] * len(self.seqs), "timeouts": ones, "now": self.now, "claimed": CLAIMED_MS, "longest": 1 << 40,
        }  # fmt: skip

    def delete(self) -> Mapping[str, Any]:
        ones = [1] * len(self.seqs)
        return {
            "queues": self._queues(), "seqs": self.seqs, "receives": ones, "floors": ones, "now": self.now,
            "claimed": CLAIMED_MS,
        }  # fmt: skip

    def lock(self) -> Sequence[Any]:
        return self._queues(), self.seqs

    def lock_both(self) -> Sequence[Any]:
        return *self.lock(), [self.queue], ["new"]

    def _queues(self) -> list[int]:
        return [self.queue] * len(self.seqs)


STATEMENTS = {
    "lease": (fifo_lease._LEASE, Known.lease),
    "first": (fifo._FIRST, Known.lease),
    "claim": (group_binding._FIRST_FREE, Known.lease),
    "delete": (settling._DELETE_LEASED, Known.delete),
    "change": (settling._MOVE, Known.change),
    "lock": (groups._LOCK_OF, Known.lock),
    "lock_both": (groups._LOCK_BOTH, Known.lock_both),
}


def prepare(database: psycopg.Connection[Any], name: str, known: Known) -> None:
    """As nodes do: planned once, for any values."""
    for setting in connecting.BY_INDEX:
        database.execute(f"SET {setting} = off")
    database.execute("SET plan_cache_mode = force_generic_plan")
    sql, values = _bound(name, known)
    types = ", ".join(_type_of(value) for value in values)
    database.execute(f"PREPARE {name} ({types}) AS {sql}".encode())
    pages(database, name, known)  # the plan is made when it is first needed


def pages(database: psycopg.Connection[Any], name: str, known: Known) -> int:
    """How many pages it touches; nothing stays of it."""
    _, values = _bound(name, known)
    written = ", ".join(_written(value) for value in values)
    with database.transaction(force_rollback=True):
        plan = database.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} ({written})".encode()
        ).fetchall()
    root = plan[0][0][0]["Plan"]
    return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])


def _bound(name: str, known: Known) -> tuple[str, list[Any]]:
    text, values_of = STATEMENTS[name]
    sql, names = _numbered(text)
    values: Any = values_of(known)
    return sql.decode(), [values[one] for one in names] if isinstance(values, Mapping) else list(values)


def _type_of(value: Any) -> str:
    if isinstance(value, list):
        return "text[]" if value and isinstance(value[0], str) else "bigint[]"
    return "bigint"


def _written(value: Any) -> str:
    return "'{" + ",".join(map(str, value)) + "}'" if isinstance(value, list) else str(value)


@pytest.mark.parametrize("little", [1, 40])
def test_statements_touch_what_they_are_about(
    nodes: list[PostgresStore], database: psycopg.Connection[Any], clock: ManualClock, little: int
) -> None:
    (store,) = nodes
    database.execute("VACUUM headrace.message")  # else pages that are counted may hold what other tests have left
    ask(store, ops.CreateQueue(QUEUE, SETTINGS))
    (number,) = store._shared.catalog.by_number
    _fill(store, little)
    for name in STATEMENTS:
        prepare(database, name, Known(number, clock(), []))
    _fill(store, GROUPS)
    (leased,) = ask(store, ops.Receive(QUEUE, OF_A_GROUP))
    known = Known(number, clock(), [one.message.seq for one in leased])
    touched = {name: pages(database, name, known) for name in STATEMENTS}
    assert all(touched.values()), touched
    assert not {name: count for name, count in touched.items() if count > PAGES_MAX}


def _fill(store: PostgresStore, groups: int) -> None:
    for group in range(groups):
        entries = [
            Entry(b"%d of %d-%d" % (groups, group, place), group=f"group-{groups}-{group}")
            for place in range(OF_A_GROUP)
        ]
        ask(store, ops.Send(QUEUE, entries))
