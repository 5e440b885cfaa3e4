"""The groups of FIFO queues: a row each, which keeps everybody else from its messages, and says what they are.

Whoever inserts into a FIFO queue locks the groups before seqs are drawn, so seqs in a group rise in the order of commits.
Whoever changes or deletes messages locks first and settles afterwards, in later statements: these see what those before them
did in the groups. So a row that is not locked is always true:

    head, head_sent_ms   the group's first message that is there, in flight or not
    busy_ms              until when that message is in flight; 0 when it is not
    turn                 the group's place in the queue's rotation: its first head's seq, a new number each time it is served
    reader               whose claims have the group, if busy_ms is CLAIMED_MS: claimed messages are always the first ones

A group without messages has no row. A row with head 0 is only within a transaction, which so locks a group that is new.

Messages behind the head may be in flight, too, and the row does not say so. But whoever hides one of them writes the row: a
row that has not changed since a statement began means that no message of the group has been hidden since (`fifo_lease.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, LiteralString, TypeAlias

from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import Cursor, Transaction

Group: TypeAlias = tuple[int, str]
"""A queue's number, the name of a group in it."""

MAKE_MS: Final = 20
"""So long `try_lock` waits for groups that somebody else makes just now: for a commit under way."""

# The update that never happens locks the row that is there, whoever deletes it meanwhile.
_LOCK: Final[LiteralString] = """
INSERT INTO message_group AS g (queue, name) SELECT queue, name FROM unnest(%s, %s) AS wanted (queue, name)
ON CONFLICT (queue, name) DO UPDATE SET head = g.head WHERE false
"""
# First what the messages say, then their groups: joined at once, a plan that is made while the tables are empty would look
# through all groups of the queue for each message.
_LOCK_BOTH: Final[LiteralString] = """
WITH named AS MATERIALIZED (
    SELECT DISTINCT m.queue, m.grp FROM unnest(%s, %s) AS held (queue, seq)
    JOIN message m ON m.queue = held.queue AND m.seq = held.seq
)
INSERT INTO message_group AS g (queue, name) SELECT queue, name FROM (
    SELECT queue, name FROM unnest(%s, %s) AS wanted (queue, name)
    UNION SELECT g.queue, g.name FROM named JOIN message_group g ON g.queue = named.queue AND g.name = named.grp
) wanted ORDER BY queue, name
ON CONFLICT (queue, name) DO UPDATE SET head = g.head WHERE false RETURNING queue, name
"""
# Of those that are there, the ones that nobody has; of those that are not, all.
_THERE: Final[LiteralString] = """
SELECT g.queue, g.name FROM unnest(%s, %s) AS wanted (queue, name)
JOIN message_group g ON g.queue = wanted.queue AND g.name = wanted.name
"""
_LOCK_FREE: Final[LiteralString] = _THERE + " FOR UPDATE OF g SKIP LOCKED"
_LOCK_OF: Final[LiteralString] = """
WITH named AS MATERIALIZED (
    SELECT DISTINCT m.queue, m.grp FROM unnest(%s, %s) AS held (queue, seq)
    JOIN message m ON m.queue = held.queue AND m.seq = held.seq
)
SELECT g.queue, g.name FROM named JOIN message_group g ON g.queue = named.queue AND g.name = named.grp
ORDER BY g.queue, g.name FOR UPDATE OF g
"""
_NAMES: Final[LiteralString] = """
SELECT DISTINCT m.queue, m.grp FROM unnest(%s, %s) AS held (queue, seq)
JOIN message m ON m.queue = held.queue AND m.seq = held.seq
"""


def settling(
    asked: LiteralString,
    *,
    among: LiteralString = "true",
    stays: LiteralString = "true",
    hidden: LiteralString = "false",
) -> LiteralString:
    """The part of a statement that settles locked groups, and the table `now_is` of what they now are.

    Args:
        asked: tables, the last of them `asked` (queue, name, floor), which names the groups.
        among: what holds of a group g that is settled.
        stays: what holds of a message m that is there when the statement ends.
        hidden: whether messages behind the heads may have been hidden, so that all rows must be written.
    """
    return f"""{asked}, now_is AS MATERIALIZED (
    SELECT g.ctid AS at, g.queue, first.seq AS head, first.sent_ms,
        CASE WHEN first.visible_ms > %(now)s THEN first.visible_ms ELSE 0 END AS busy_ms
    FROM asked JOIN message_group g ON g.queue = asked.queue AND g.name = asked.name AND {among}
    LEFT JOIN LATERAL (
        SELECT m.seq, m.sent_ms, m.visible_ms FROM message m
        WHERE m.queue = g.queue AND m.grp = g.name AND m.seq >= greatest(g.head, asked.floor) AND {stays}
        ORDER BY m.seq LIMIT 1
    ) first ON true
), gone_group AS (
    DELETE FROM message_group g USING now_is WHERE g.ctid = now_is.at AND now_is.head IS NULL
), changed AS (
    UPDATE message_group g SET head = now_is.head, head_sent_ms = now_is.sent_ms, busy_ms = now_is.busy_ms,
        turn = CASE WHEN g.head = 0 THEN now_is.head ELSE g.turn END
    FROM now_is WHERE g.ctid = now_is.at AND now_is.head IS NOT NULL
        AND (g.head <> now_is.head OR g.busy_ms <> now_is.busy_ms OR {hidden})
)"""  # noqa: S608 - our own text


SETTLED: Final[LiteralString] = """
SELECT queue, min(busy_ms), min(sent_ms) FROM now_is WHERE head IS NOT NULL GROUP BY queue, busy_ms = 0
"""
"""The rows that `note` reads: of each queue whose groups are settled."""
_SETTLE: Final[LiteralString] = (
    settling(
        "WITH asked AS (SELECT * FROM unnest(%(queues)s, %(names)s, %(floors)s) AS asked (queue, name, floor))",
        hidden="%(hidden)s",
    )
    + SETTLED
)
_HOLD: Final[LiteralString] = """
WITH held AS MATERIALIZED (
    SELECT *, nextval('message_seq') AS turn
    FROM unnest(%(queues)s, %(names)s, %(heads)s, %(sent)s) AS held (queue, name, head, sent_ms)
)
UPDATE message_group g SET head = held.head, head_sent_ms = held.sent_ms, busy_ms = %(busy)s, turn = held.turn,
    reader = %(reader)s
FROM held WHERE g.queue = held.queue AND g.name = held.name
"""
_DROP_ALL: Final[LiteralString] = """
DELETE FROM message_group WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM message_group WHERE queue = %s ORDER BY queue, name FOR UPDATE
))
"""
_PURGED: Final[LiteralString] = """
SELECT queue, name FROM message_group WHERE queue = %s AND head < %s ORDER BY name LIMIT %s FOR UPDATE SKIP LOCKED
"""
_LOOK: Final[LiteralString] = """
SELECT asked.queue,
    EXISTS (SELECT FROM message_group g
        WHERE g.queue = asked.queue AND g.busy_ms = 0 AND g.head > 0 AND g.head_sent_ms <= asked.shown_ms)
    OR EXISTS (SELECT FROM message_group g
        WHERE g.queue = asked.queue AND g.busy_ms > 0 AND g.busy_ms <= %(now)s AND g.head_sent_ms <= asked.shown_ms),
    least(
        (SELECT min(g.busy_ms) FROM message_group g
            WHERE g.queue = asked.queue AND g.busy_ms > 0 AND g.busy_ms > %(now)s AND g.busy_ms < %(claimed)s),
        CASE WHEN asked.shown_ms < %(now)s THEN (SELECT min(g.head_sent_ms) - asked.shown_ms + %(now)s FROM message_group g
            WHERE g.queue = asked.queue AND g.busy_ms = 0 AND g.head > 0 AND g.head_sent_ms > asked.shown_ms) END
    )
FROM unnest(%(queues)s, %(shown)s) AS asked (queue, shown_ms)
"""


def lock(tx: Transaction, groups: Iterable[Group]) -> None:
    """Keep everybody from these groups until the commit, also those that are new; before seqs are drawn for them, and before
    anything in them changes. Sorted, so that nodes do not deadlock. `settle` them afterwards."""
    columns = _columns(groups)
    if columns is not None:
        tx.execute(_LOCK, columns)


def lock_beside(tx: Transaction, groups: set[Group]) -> Cursor | None:
    """As `lock`, together with the groups of the messages that `tx.beside` names. The rows: those that are new."""
    if not groups or not tx.beside:
        lock(tx, groups)
        return None
    tx.locked, tx.beside = tx.beside, set()
    return lock_both(tx, groups, tx.locked)


def lock_both(tx: Transaction, groups: Iterable[Group], messages: Iterable[tuple[int, int]]) -> Cursor:
    """Lock groups by their names and by messages (queue, seq) in them, in one order. The rows: those that are new."""
    ones = sorted(set(groups))
    named = Ints([queue for queue, _ in ones]), Texts([name for _, name in ones])
    return tx.execute(_LOCK_BOTH, (*_places(sorted(set(messages))), *named))


def try_lock(tx: Transaction, groups: Iterable[Group]) -> set[Group]:
    """As `lock`, but of those that somebody else has none, and without waiting for them: for who holds others already. For
    who makes one that is new, just now, it waits a moment. Returns those that are locked."""
    wanted = set(groups)
    columns = _columns(wanted)
    if columns is None:
        return wanted
    there, free = tx.execute(_THERE, columns), tx.execute(_LOCK_FREE, columns)
    new, locked = wanted.difference(there.fetchall()), set(free.fetchall())
    made = _columns(new)
    return locked if made is None or tx.wait_briefly(_LOCK, made, MAKE_MS) is None else locked | new


def lock_of(tx: Transaction, messages: Sequence[tuple[int, int]]) -> Cursor:
    """Lock the groups of messages (queue, seq) of FIFO queues. The rows are the groups: (queue, name)."""
    return tx.execute(_LOCK_OF, _places(messages))


def names_of(tx: Transaction, messages: Sequence[tuple[int, int]]) -> Cursor:
    """The groups of messages (queue, seq) of FIFO queues, not locked. The rows: (queue, name)."""
    return tx.execute(_NAMES, _places(messages))


def settle(tx: Transaction, groups: Iterable[Group], *, hidden: bool = False) -> None:
    """Let the rows of locked groups be what their messages now say: made, changed, gone. What follows for their queues is
    noted. `hidden`: messages behind the heads may have been hidden."""
    ones = sorted(set(groups))
    columns = _columns(ones)
    if columns is None:
        return
    known = tx.catalog.by_number
    floors = Ints([known[queue].floor if queue in known else 0 for queue, _ in ones])
    asked = {"queues": columns[0], "names": columns[1], "floors": floors, "now": tx.now, "hidden": hidden}
    note(tx, tx.execute(_SETTLE, asked).fetchall())


def note(tx: Transaction, settled: Iterable[tuple[int, int, int]]) -> None:
    """Queues in which a group is free are ready, or due when its lease ends or its head's delay is over."""
    for number, busy_ms, sent_ms in settled:
        queue = tx.catalog.by_number.get(number)
        shown_ms = sent_ms - queue.shown_ms(tx.now) + tx.now if queue is not None else 0
        if busy_ms:
            if busy_ms < CLAIMED_MS:
                tx.due_at(number, busy_ms)
        elif shown_ms > tx.now:
            tx.due_at(number, shown_ms)
        else:
            tx.ready.add(number)


def drop_all(tx: Transaction, queue: int) -> None:
    """Forget the groups of a queue that is purged. They are locked in their order; what is new meanwhile stays."""
    tx.execute(_DROP_ALL, (queue,))


def settle_purged(tx: Transaction, queue: int, floor: int, limit: int) -> None:
    """Settle groups of a purged queue that were made by who did not know of the purge yet."""
    settle(tx, tx.execute(_PURGED, (queue, floor, limit)).fetchall())


def look(tx: Transaction, queues: Sequence[StoredQueue]) -> list[tuple[int, bool, int | None]]:
    """For each of these FIFO queues: its number, whether a group is free, and when the next one will be."""
    asked = {
        "now": tx.now, "claimed": CLAIMED_MS, "queues": Ints([one.number for one in queues]),
        "shown": Ints([one.shown_ms(tx.now) for one in queues]),
    }  # fmt: skip
    return tx.execute(_LOOK, asked).fetchall() if queues else []


def hold(
    tx: Transaction, queue: int, until_ms: int, held: Sequence[tuple[str, int, int]], *, reader: str | None = None
) -> None:
    """The first messages of locked groups are leased until `until_ms`, or claimed by `reader`, and the groups go behind all
    others, in this order; `held`: of each group its name, the seq and the sent time of its first message."""
    names, heads, sent = zip(*held, strict=True)
    busy_ms = until_ms if until_ms > tx.now else 0
    asked = {"queues": Ints([queue] * len(held)), "busy": busy_ms, "names": Texts(names), "reader": reader}
    tx.execute(_HOLD, {**asked, "heads": Ints(heads), "sent": Ints(sent)})


def _columns(groups: Iterable[Group]) -> tuple[Ints, Texts] | None:
    ones = sorted(set(groups))
    return (Ints([queue for queue, _ in ones]), Texts([name for _, name in ones])) if ones else None


def _places(messages: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    return Ints([queue for queue, _ in messages]), Ints([seq for _, seq in messages])
