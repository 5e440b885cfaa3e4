"""Fair queues: quiet tenants of a standard queue before noisy ones, among these the one with the fewest in flight.

The rule is `headrace.queue.fairness`; here is how it is kept where the backlog is a table and all nodes lease:

    counts    how many messages each tenant has in flight, on all nodes: counted anew before they decide, unless they are so
              many that counting takes long; then good for a moment, with what this node leases added
    choice    read without locks, decided here, leased by number: what somebody else has taken meanwhile is skipped, and the
              choice made again for the rest
    time      the consumers' time that tenants took: of this node's own deletes

A node learns that a queue has tenants when a lease would deliver the first message with a group: that transaction is run
again, fairly. So a queue without groups costs nothing. While no tenant can be noisy the plain lease is fair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, LiteralString, TypeAlias

from headrace.queue import limits
from headrace.queue.fairness import ConsumerTime, holds_too_many
from headrace.queue.store.postgres import rows
from headrace.queue.store.postgres.arrays import Texts
from headrace.queue.store.postgres.catalog import StoredQueue
from headrace.queue.store.postgres.known import Flight, Tenants
from headrace.queue.store.postgres.leasing import LEASE, RETURNING, THESE, these
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.transaction import CatalogMoved, Transaction

COUNTED_ALWAYS: Final = 1_000  # in flight: counting so many takes less than a millisecond
COUNTED_PER_MS: Final = 100  # a count of more is good for a millisecond each: at most a twentieth of a processor
ROUNDS_MAX: Final = 10  # of one receive, while others take what it has chosen
AGAIN_LOOK_MAX: Final = 2_000  # messages that are visible again, looked through for quiet tenants
PASSED_FOR_MS: Final = limits.SECOND_MS  # so long it is remembered how far there are noisy tenants only

_COUNT: Final[LiteralString] = """
SELECT grp, count(*) FROM message
WHERE queue = %s AND visible_ms > 0 AND visible_ms > %s AND seq >= %s AND (receives > 0 OR visible_ms >= %s)
GROUP BY grp
"""
_AGAIN: Final[LiteralString] = """
    SELECT seq, grp FROM message
    WHERE queue = %(queue)s AND visible_ms > 0 AND visible_ms <= %(now)s AND seq >= %(floor)s AND sent_ms > %(oldest)s
    ORDER BY visible_ms, seq LIMIT %(look_again)s
"""
_FRESH: Final[LiteralString] = """
    SELECT seq, grp FROM message
    WHERE queue = %(queue)s AND visible_ms = 0 AND seq >= %(floor)s AND sent_ms > %(oldest)s AND seq > %(passed)s
    ORDER BY seq LIMIT %(look)s
"""
# What has been chosen already is left out by who asks: so much longer are the lists of what is visible again.
_QUIET: Final[LiteralString] = f"""
SELECT * FROM (
    SELECT false AS fresh, seq, grp FROM ({_AGAIN}) m WHERE grp IS NULL OR grp <> ALL (%(noisy)s) LIMIT %(again)s
) again
UNION ALL SELECT * FROM (
    SELECT true, seq, grp FROM ({_FRESH}) m WHERE grp IS NULL OR grp <> ALL (%(noisy)s) LIMIT %(limit)s
) fresh
"""  # noqa: S608 - our own text, here and below
_PASSED: Final[LiteralString] = f"SELECT max(seq), count(*) FROM ({_FRESH}) m"  # noqa: S608
_NOISY: Final[LiteralString] = f"""
SELECT tenant.grp, m.seq FROM unnest(%(noisy)s) AS tenant (grp) CROSS JOIN LATERAL (
    SELECT seq FROM (SELECT * FROM ({_AGAIN}) again UNION ALL SELECT * FROM ({_FRESH}) fresh) ready
    WHERE ready.grp = tenant.grp LIMIT %(again)s
) m
"""  # noqa: S608
_CHOSEN: Final[LiteralString] = f"""
SELECT m.ctid FROM message m, {THESE.removeprefix(" FROM ")} AND m.visible_ms <= %(now)s
ORDER BY m.seq FOR UPDATE OF m SKIP LOCKED
"""  # noqa: S608 - our own text
_LEASE: Final[LiteralString] = f"{LEASE} WHERE ctid = ANY (ARRAY({_CHOSEN})){RETURNING}"

Rows: TypeAlias = list[tuple[Any, ...]]


class HasTenants(CatalogMoved):
    """A queue has tenants, and what the batch was decided by did not say so: all again."""


def check(tx: Transaction, queue: StoredQueue, found: Rows) -> None:
    """Raise HasTenants if rows of a plain lease are the first ones with a group that this node sees."""
    if queue.number not in tx.known.tenants and any(row[rows.GROUP] is not None for row in found):
        tx.known.tenants[queue.number] = Tenants(ConsumerTime(), tx.now)
        if not tx.has_made(queue.number):  # made again, it would have another number; and nobody has anything of it yet
            raise HasTenants


def take(tx: Transaction, queue: StoredQueue, limit: int, visibility_ms: int, lease: Callable[[int], Rows]) -> Rows:
    """Lease up to `limit` messages of a queue that has tenants, in their order. `lease`: leases as if it had none."""
    tenants = tx.known.tenants[queue.number]
    _count(tx, queue, tenants)
    if not _may_be_noisy(tenants, limit, tx.now):
        found = lease(limit)
        _note(tx, tenants, found)
        return found
    out: Rows = []
    for _ in range(ROUNDS_MAX):
        chosen = _Choice(tx, queue, tenants, limit - len(out)).choose()
        found = _lease(tx, queue, chosen, visibility_ms)
        _note(tx, tenants, found)
        out += found
        if len(found) == len(chosen):
            if len(out) < limit:
                tenants.time.forget()  # the backlog is gone
            return out
    tx.ready.add(queue.number)  # those who wait go on from there
    return out


def _lease(tx: Transaction, queue: StoredQueue, chosen: list[int], visibility_ms: int) -> Rows:
    asked = {**these(queue, chosen), "now": tx.now, "until": tx.now + visibility_ms}
    place = {seq: at for at, seq in enumerate(chosen)}
    return sorted(tx.execute(_LEASE, asked).fetchall(), key=lambda row: place[row[0]]) if chosen else []


def _count(tx: Transaction, queue: StoredQueue, tenants: Tenants) -> None:
    if tx.now < tenants.counted_ms + max(0, tenants.total - COUNTED_ALWAYS) // COUNTED_PER_MS:
        return
    found: dict[str | None, int] = dict(tx.execute(_COUNT, (queue.number, tx.now, queue.floor, CLAIMED_MS)).fetchall())
    tenants.counted_ms, tenants.total = tx.now, sum(found.values())
    tx.known.flights[queue.number] = Flight(tx.now, tenants.total)
    tenants.in_flight = {group: number for group, number in found.items() if group is not None}
    if tenants.in_flight:
        tenants.seen_ms = tx.now
    elif tx.now > tenants.seen_ms + limits.FAIR_IDLE_MS:
        del tx.known.tenants[queue.number]  # nobody uses groups any more


def _may_be_noisy(tenants: Tenants, limit: int, now: int) -> bool:
    """Whether a tenant is noisy, or may become so by what is leased now."""
    most = max(tenants.in_flight.values(), default=0) + limit
    return holds_too_many(most, tenants.total) or bool(_noisy_by_time(tenants, now))


def _noisy_by_time(tenants: Tenants, now: int) -> set[str]:
    return {group for group in tenants.time.groups() if tenants.time.takes_too_much(group, now)}


def _note(tx: Transaction, tenants: Tenants, found: Rows) -> None:
    """These have been leased."""
    tenants.total += len(found)
    for row in found:
        group = row[rows.GROUP]
        if group is not None:
            tenants.seen_ms = tx.now
            tenants.in_flight[group] = tenants.in_flight.get(group, 0) + 1


class _Choice:
    """Which messages one receive takes. What it has chosen counts as in flight already, so that one receive cannot flood."""

    def __init__(self, tx: Transaction, queue: StoredQueue, tenants: Tenants, limit: int) -> None:
        self._tx = tx
        self._queue = queue
        self._tenants = tenants
        self._limit = limit
        self._in_flight = dict(tenants.in_flight)
        self._total = tenants.total
        self._noisy = _noisy_by_time(tenants, tx.now) | {one for one in self._in_flight if self._is_noisy(one)}
        self._chosen: dict[int, None] = {}  # in their order
        self._after = 0  # behind this seq nothing fresh has been looked at

    def choose(self) -> list[int]:
        """Numbers of messages, in their order."""
        self._choose_from_all()
        if len(self._chosen) < self._limit and self._tenants.passed:
            self._after = 0
            self._forget_passed()  # something quiet may have come to where it is not looked for
            self._choose_from_all()
        return list(self._chosen)

    def _choose_from_all(self) -> None:
        more = True
        while more and len(self._chosen) < self._limit:
            more = self._choose_quiet()
        if not more:
            self._pass()
        self._choose_noisy()

    def _choose_quiet(self) -> bool:
        """Choose of those who are not noisy; whether there may be more of them."""
        asked = self._asked_ahead()
        found = self._tx.execute(_QUIET, asked).fetchall()
        looked = Counter(fresh for fresh, *_ in found)
        for fresh, seq, group in found:
            if len(self._chosen) == self._limit:
                break
            if fresh:
                self._after = seq
            if seq not in self._chosen and (group is None or group not in self._noisy):
                self._choose(seq, group)
        return bool(looked[True] == asked["limit"] or looked[False] == asked["again"])

    def _is_noisy(self, group: str) -> bool:
        return holds_too_many(self._in_flight.get(group, 0), self._total)

    def _choose(self, seq: int, group: str | None) -> None:
        self._chosen[seq] = None
        self._total += 1
        if group is not None:
            self._in_flight[group] = self._in_flight.get(group, 0) + 1
            if self._is_noisy(group):
                self._noisy.add(group)

    # --- looking ---

    def _asked(self, *, passed: int) -> dict[str, Any]:
        queue, now = self._queue, self._tx.now
        wanted = self._limit - len(self._chosen)
        return {
            "queue": queue.number, "now": now, "floor": queue.floor, "oldest": now - queue.info.settings.retention_ms,
            "look_again": AGAIN_LOOK_MAX, "look": limits.FAIR_LOOK_AHEAD_MAX, "passed": passed,
            "noisy": Texts(sorted(self._noisy)), "limit": wanted, "again": wanted + len(self._chosen),
        }  # fmt: skip

    def _asked_ahead(self) -> dict[str, Any]:
        """Behind what is known to be of noisy tenants, and what was looked at just now; so many of theirs may stand back in
        all."""
        tenants, now = self._tenants, self._tx.now
        if now >= tenants.passed_ms + PASSED_FOR_MS or not tenants.passed_by <= self._noisy:
            self._forget_passed()
        left = max(0, limits.FAIR_LOOK_AHEAD_MAX - tenants.passed_count)
        return {**self._asked(passed=max(tenants.passed, self._after)), "look": left}

    def _forget_passed(self) -> None:
        tenants = self._tenants
        tenants.passed, tenants.passed_count, tenants.passed_ms = 0, 0, self._tx.now
        tenants.passed_by = frozenset()

    def _pass(self) -> None:
        """All that was looked at, and not chosen, is of noisy tenants: the next receives need not look at it again."""
        tenants = self._tenants
        asked = {**self._asked_ahead(), "passed": tenants.passed}
        ((last, count),) = self._tx.execute(_PASSED, asked).fetchall()
        if count:
            tenants.passed, tenants.passed_count = last, tenants.passed_count + count
            tenants.passed_by = frozenset(self._noisy)

    def _choose_noisy(self) -> None:
        """As many as are wanted still, one by one of the tenant with the fewest in flight."""
        if len(self._chosen) >= self._limit or not self._noisy:
            return
        waiting: dict[str, list[int]] = {}
        for group, seq in self._tx.execute(_NOISY, self._asked(passed=0)).fetchall():
            if seq not in self._chosen:
                waiting.setdefault(group, []).append(seq)
        for seqs in waiting.values():
            seqs.reverse()
        while waiting and len(self._chosen) < self._limit:
            group = min(waiting, key=lambda one: self._in_flight.get(one, 0))
            self._choose(waiting[group].pop(), group)
            if not waiting[group]:
                del waiting[group]
