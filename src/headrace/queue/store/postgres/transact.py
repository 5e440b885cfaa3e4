"""Transactions: all of it in one commit, or none.

What the transactions of a batch depend on is locked and read first, for all of them in three statements; then each is
judged, in order, by what was read and by what those before it will do; then what all of them do is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, LiteralString

import msgspec

from headrace.errors import CallerError, Fenced, ReceiptExpired, StateChanged
from headrace.queue.model import ClaimState, Entry
from headrace.queue.operations import Transact, TransactOutcome
from headrace.queue.store import checks
from headrace.queue.store.postgres import claims, groups, states
from headrace.queue.store.postgres.arrays import Ints, Texts
from headrace.queue.store.postgres.catalog import Catalog, StoredQueue
from headrace.queue.store.postgres.new import New
from headrace.queue.store.postgres.publishing import Door, Publications, door_of
from headrace.queue.store.postgres.schema import CLAIMED_MS
from headrace.queue.store.postgres.sending import Place, put_in, sent_as
from headrace.queue.store.postgres.settling import Lease
from headrace.queue.store.postgres.transaction import Answers, Cursor, Transaction

# A share: an epoch that was read as the newest is so until the commit.
_EPOCHS: Final[LiteralString] = "SELECT name, epoch FROM fence WHERE name = ANY (%s) ORDER BY name FOR SHARE"
_HOLD: Final[LiteralString] = """
SELECT m.queue, m.seq, m.receives, m.grp, m.received_ms
FROM unnest(%s, %s, %s) AS held (queue, seq, receives) JOIN message m USING (queue, seq, receives)
WHERE m.visible_ms > %s AND m.visible_ms < %s ORDER BY m.queue, m.seq FOR UPDATE OF m
"""
_DELETE: Final[LiteralString] = (
    "DELETE FROM message m USING unnest(%s, %s) AS gone (queue, seq) WHERE m.queue = gone.queue AND m.seq = gone.seq"
)


class Parts(msgspec.Struct):
    """What one transaction wants, by the catalogue. `invalid`: why it cannot be, whatever the tables hold."""

    operation: Transact
    acknowledged: list[Lease] = []
    held: list[Lease] = []
    claims: list[tuple[StoredQueue, str, int]] = []
    sends: list[tuple[Door, list[Entry]]] = []
    invalid: CallerError | None = None

    def groups(self, catalog: Catalog) -> set[groups.Group]:
        """Those of FIFO queues into which it sends, or may by what it publishes."""
        return {
            (number, entry.group or "")
            for door, entries in self.sends
            for number in door.fifo_queues(catalog)
            for entry in entries
        }


class Found(msgspec.Struct):
    """What the transactions depend on, as it is behind those that were accepted. `tenants`: whose messages are leased, and
    since when."""

    epochs: dict[str, int]
    values: dict[states.Place, bytes | None]
    claims: dict[claims.Reader, ClaimState]
    leases: set[Lease]
    tenants: dict[Lease, tuple[str, int]]


def transact(tx: Transaction, operations: Sequence[Transact]) -> Answers:
    planned = [_read(tx, operation) for operation in operations]
    touched = {group for parts in planned for group in parts.groups(tx.catalog)}
    acknowledged = _groups_acknowledged(tx, planned)
    publications = Publications(tx.now)
    cursors = _lock(tx, planned, publications, touched) if not acknowledged else None
    yield
    for cursor in acknowledged:
        touched |= {(queue, name) for queue, name in cursor.fetchall()}
    found = _found(*(cursors or _lock(tx, planned, publications, touched)))
    publications.check()
    expected = set(found.values)
    judged = [_judge(found, parts) for parts in planned]
    accepted = [parts for parts, error in zip(planned, judged, strict=True) if error is None]
    _acknowledge(tx, [lease for parts in accepted for lease in parts.acknowledged], found)
    settled = _acknowledge_claims(tx, accepted, found)
    _put(tx, accepted, found, expected)
    new, placed = _new(tx, accepted, publications)
    yield from publications.publish(tx, new)
    sent = yield from new.store(tx)
    claims.count_deleted(tx, settled)
    if acknowledged or len(accepted) < len(planned) or publications:
        groups.settle(tx, touched)
    outcomes = iter([TransactOutcome([[sent_as(sent, place) for place in ones] for ones in lots]) for lots in placed])
    return [next(outcomes) if error is None else error for error in judged]


# --- what they want ---


def _read(tx: Transaction, operation: Transact) -> Parts:
    parts = Parts(operation)
    try:
        checks.check_state([*operation.state, *operation.expect])
        parts.acknowledged = _leases(tx, operation.acknowledge)
        parts.held = _leases(tx, operation.holds)
        parts.claims = [(tx.catalog.queue(arn), reader, number) for arn, reader, number in operation.claims]
        parts.sends = _sends(tx, operation)
    except CallerError as error:
        parts.invalid = error
    return parts


def _leases(tx: Transaction, receipts: Iterable[tuple[str, list[bytes]]]) -> list[Lease]:
    out: list[Lease] = []
    for arn, ones in receipts:
        queue = tx.catalog.queue(arn)
        out += [(queue.number, *queue.receipts.read(receipt)) for receipt in ones]
    return out


def _sends(tx: Transaction, operation: Transact) -> list[tuple[Door, list[Entry]]]:
    out = []
    for arn, entries in operation.sends:
        door = door_of(tx.catalog, arn)
        for entry in entries:
            checks.check_entry(door.settings, entry)
            if door.settings.fifo:
                checks.dedup_key_of(door.settings, entry)
        out.append((door, entries))
    checks.check_sends([entry for _, entries in out for entry in entries])
    return out


# --- what they depend on ---


def _groups_acknowledged(tx: Transaction, planned: Sequence[Parts]) -> list[Cursor]:
    """Ask for the groups of what they acknowledge in FIFO queues."""
    queues = tx.catalog.by_number
    leases = {lease[:2] for parts in planned for lease in parts.acknowledged if queues[lease[0]].info.settings.fifo}
    claimed: dict[claims.Reader, int] = {}
    for queue, reader, number in [one for parts in planned for one in parts.claims]:
        if queue.info.settings.fifo:
            key = queue.number, reader
            claimed[key] = max(number, claimed.get(key, 0))
    asked = [groups.names_of(tx, sorted(leases))] if leases else []
    return [*asked, claims.groups_of(tx, claimed)] if claimed else asked


def _lock(
    tx: Transaction, planned: Sequence[Parts], publications: Publications, touched: set[groups.Group]
) -> tuple[Cursor | None, ...]:
    """Lock, and ask for, the fences, the values, the topics, the readers, the groups and the leases. In one order everywhere,
    so that nodes do not deadlock."""
    valid = [parts for parts in planned if parts.invalid is None]
    names = sorted({parts.operation.name for parts in planned if parts.operation.epoch is not None})
    places = sorted({(one.operation.name, key) for one in valid for key, _ in one.operation.expect})
    readers = {(queue.number, reader) for parts in valid for queue, reader, _ in parts.claims}
    named = {lease for parts in valid for lease in [*parts.acknowledged, *parts.held]}
    leases = sorted(one for one in named if one[1] >= tx.catalog.by_number[one[0]].floor)  # what is purged is nobody's
    epochs = tx.execute(_EPOCHS, (Texts(names),)) if names else None
    values = states.lock(tx, places) if places else None
    for door in [door for parts in valid for door, _ in parts.sends]:
        publications.expect(door)
    publications.lock(tx)
    asked = claims.ask(tx, readers) if readers else None
    groups.lock(tx, touched)
    return (
        epochs,
        values,
        asked,
        tx.execute(_HOLD, (*_columns(leases), tx.now, CLAIMED_MS)) if leases else None,
    )


def _columns(leases: Sequence[Lease]) -> list[Ints]:
    return [Ints([lease[at] for lease in leases]) for at in range(3)]


def _found(epochs: Cursor | None, values: Cursor | None, readers: Cursor | None, leases: Cursor | None) -> Found:
    held = leases.fetchall() if leases else []
    return Found(
        dict(epochs.fetchall()) if epochs else {},
        {(name, key): value for name, key, value in values.fetchall()} if values else {},
        claims.states(readers) if readers else {},
        {(queue, seq, receives) for queue, seq, receives, *_ in held},
        {(queue, seq, receives): (name, since) for queue, seq, receives, name, since in held if name is not None},
    )


def _judge(found: Found, parts: Parts) -> CallerError | None:
    """Why it may not be; None: it may, and `found` is as it leaves it."""
    try:
        _check(found, parts)
    except CallerError as error:
        return error
    found.leases.difference_update(parts.acknowledged)
    found.values.update({(parts.operation.name, key): value for key, value in parts.operation.state})
    return None


def _check(found: Found, parts: Parts) -> None:
    operation, name = parts.operation, parts.operation.name
    current = found.epochs.get(name, 0)
    if operation.epoch is not None and operation.epoch != current:
        raise Fenced(name, operation.epoch, current)
    if parts.invalid is not None:
        raise parts.invalid
    for key, value in operation.expect:
        if found.values[name, key] != value:
            raise StateChanged(name, key.decode("utf-8", "backslashreplace"))
    gone = set(parts.acknowledged)
    if len(gone) < len(parts.acknowledged) or not found.leases.issuperset([*gone, *parts.held]):
        raise ReceiptExpired
    for queue, reader, number in parts.claims:
        claims.check_acknowledge(queue.arn, reader, number, found.claims[queue.number, reader])


# --- what they do ---


def _acknowledge(tx: Transaction, leases: Sequence[Lease], found: Found) -> None:
    if not leases:
        return
    queues, seqs, _ = _columns(leases)
    tx.execute(_DELETE, (queues, seqs))
    tx.wrote()
    for lease in leases:
        tx.count(lease[0], "deleted")
        tx.landed[lease[0]] += 1
        if lease in found.tenants:
            name, since_ms = found.tenants[lease]
            tx.ended.append((lease[0], name, tx.now - since_ms))


def _acknowledge_claims(tx: Transaction, accepted: Sequence[Parts], found: Found) -> Cursor | None:
    done: dict[claims.Reader, int] = {}
    for queue, reader, number in [one for parts in accepted for one in parts.claims]:
        key = queue.number, reader
        if number > done.get(key, found.claims[key].acknowledged):
            done[key] = number
    return claims.acknowledge(tx, done)


def _put(tx: Transaction, accepted: Sequence[Parts], found: Found, expected: set[states.Place]) -> None:
    places = {(parts.operation.name, key) for parts in accepted for key, _ in parts.operation.state}
    states.put(tx, {place: found.values[place] for place in places})
    states.unlock(tx, [place for place in expected - places if found.values[place] is None])


def _new(tx: Transaction, accepted: Sequence[Parts], publications: Publications) -> tuple[New, list[list[list[Place]]]]:
    """What they send, and where it stands."""
    new = New(tx.now)
    return new, [
        [[put_in(door, one, new, publications) for one in entries] for door, entries in parts.sends]
        for parts in accepted
    ]
