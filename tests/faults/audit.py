"""What the database itself saw of FIFO queues: a row for each change of a message, written by a trigger in the same transaction.

Clients judge by their own clocks, and see what they are told. Here is each lease as it was committed: whoever changes something in
a group has it locked, so rows of one group are in the order in which it happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import psycopg

_TABLES: Final = """
CREATE SCHEMA audit;
CREATE TABLE audit.change (
    n bigint GENERATED ALWAYS AS IDENTITY, at_ms bigint DEFAULT extract(epoch FROM clock_timestamp()) * 1000,
    tx xid8 DEFAULT pg_current_xact_id(), queue int, grp text, seq bigint, was_receives int, receives int, visible_ms bigint
);
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit.change (queue, grp, seq, was_receives, receives, visible_ms) VALUES (
        coalesce(NEW.queue, OLD.queue), coalesce(NEW.grp, OLD.grp), coalesce(NEW.seq, OLD.seq), OLD.receives, NEW.receives,
        NEW.visible_ms);
    RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON headrace.message FOR EACH ROW EXECUTE FUNCTION audit.note();
"""
_CHANGES: Final = """
SELECT c.queue, c.grp, c.seq, c.tx::text, c.at_ms, c.was_receives, c.receives, c.visible_ms
FROM audit.change c JOIN headrace.queue q ON q.id = c.queue WHERE (q.info #> '{settings,fifo}')::bool ORDER BY c.n
"""
# Of each group the first message, and what its row says.
_GROUPS: Final = """
WITH truth AS (SELECT queue, grp AS name, min(seq) AS head FROM headrace.message m
    WHERE EXISTS (SELECT FROM headrace.queue q WHERE q.id = m.queue AND (q.info #> '{settings,fifo}')::bool) GROUP BY 1, 2)
SELECT queue, name, t.head, g.head FROM truth t FULL JOIN headrace.message_group g USING (queue, name)
WHERE t.head IS DISTINCT FROM g.head
"""
MARGIN_MS: Final = 1_000
"""Two nodes' clocks differ, and a lease begins before its statement: by so much on a busy machine."""


class Change(msgspec.Struct, frozen=True):
    """Of one message; `was_receives` None: it is new; `receives` None: it is gone."""

    queue: int
    group: str
    seq: int
    tx: str
    at_ms: int
    was_receives: int | None
    receives: int | None
    visible_ms: int | None

    def leases(self) -> bool:
        return self.was_receives is not None and self.receives == self.was_receives + 1


def install(connection: psycopg.Connection[Any]) -> None:
    """Begin to write down what happens; before nodes start."""
    connection.execute(_TABLES)


def violations(connection: psycopg.Connection[Any]) -> list[str]:
    """Of queues without dead letters and purges: leases out of order, leases beside a lease, counts that skip, rows of groups that
    are not as their messages are."""
    groups: dict[tuple[int, str], list[Change]] = defaultdict(list)
    for row in connection.execute(_CHANGES).fetchall():
        change = Change(*row)
        groups[change.queue, change.group].append(change)
    found = [text for changes in groups.values() for text in _judge_group(changes)]
    return found + [f"group {row}" for row in connection.execute(_GROUPS).fetchall()]


def _judge_group(changes: list[Change]) -> Iterator[str]:
    there: dict[int, int] = {}  # until when each message is leased
    leased = {(change.tx, change.seq) for change in changes if change.leases()}
    for change in changes:
        others = {seq: until_ms for seq, until_ms in there.items() if (change.tx, seq) not in leased}
        for what in _judge(change, others, there.get(change.seq, 0)):
            yield f"{change}: {what}"
        if change.receives is None:
            del there[change.seq]
        else:
            there[change.seq] = change.visible_ms or 0


def _judge(change: Change, others: dict[int, int], until_ms: int) -> Iterator[str]:
    """What is wrong with a change, when a group has these other messages, leased until then, and it was leased itself."""
    if change.was_receives is None:
        yield from [f"behind {seq}" for seq in others if seq > change.seq]
    elif change.leases():
        yield from [f"before {seq}" for seq in others if seq < change.seq]
        if until_ms > change.at_ms + MARGIN_MS:
            yield "while it is leased"
    elif change.receives not in (None, change.was_receives):
        yield "its count"
