"""Commits of a slot: one transaction each, so that state, output and acknowledgement are atomic.

Every commit expects the owners and the slot's last progress unchanged: a process that lost the pipeline can change nothing,
and a commit that is repeated after its answer was lost takes effect once.

A change that is too large for one transaction is first written in pieces that have no effect yet; one commit acknowledges the
input and records the number of pieces; then each piece is applied in a commit that removes it. After a crash in between
the next process continues with the remaining pieces: exactly once as well, but not atomic.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import msgspec

from headrace.errors import HeadraceError, RequestTooLong, StateChanged
from headrace.queue import limits as queue_limits
from headrace.queue import operations as ops
from headrace.queue.model import Entry
from headrace.stream import limits
from headrace.stream.runner import state_keys
from headrace.stream.runner.progress import Progress, decode_progress, encode_progress
from headrace.stream.runner.store import Store

T = TypeVar("T")
Put: TypeAlias = tuple[bytes, bytes | None]


class TakenOver(HeadraceError):
    """The owners of the pipeline have changed: this process no longer runs it, or shares it with others. Uncommitted input
    is processed again by the present owners."""


@dataclass(slots=True)
class Change:
    """The effects of a commit, besides the progress."""

    state: list[Put] = field(default_factory=list)
    sends: list[tuple[str, list[Entry]]] = field(default_factory=list)
    claims: list[tuple[str, str, int]] = field(default_factory=list)


class Piece(msgspec.Struct):
    """A part of a change, as it is stored."""

    state: list[Put] = []
    sends: list[tuple[str, list[Entry]]] = []


class Committer:
    """Makes the commits of one slot. Invariant: `progress` is the stored progress, or was when the slot was taken over."""

    def __init__(self, store: Store, pipeline: str, slot: int, owners: bytes | None) -> None:
        self._store = store
        self._pipeline = pipeline
        self._name = state_keys.state_name(pipeline)
        self._bytes_max = limits.COMMIT_BYTES_MAX
        self.slot = slot
        self.owners = owners
        self._by = secrets.token_hex(6)
        self._key = state_keys.progress_key(slot)
        self._written = store.read(self._key).get(self._key)
        self.progress = decode_progress(self._written)

    def of_slot(self, slot: int) -> Committer:
        """The committer of another slot, which no process has."""
        return Committer(self._store, self._pipeline, slot, self.owners)

    def recover(self) -> None:
        """Finish a large commit that was decided, and remove the pieces of one that was not."""
        stale = [key for key in self._store.read(state_keys.redo_key(self.slot)) if not self._is_due(key)]
        for start in range(0, len(stale), limits.REMOVED_AT_ONCE):
            some = stale[start : start + limits.REMOVED_AT_ONCE]
            self._put(Change(state=[(key, None) for key in some]), self.progress)
        self._redo()

    def confirm(self) -> None:
        """Raises TakenOver if the owners are no longer those that commits expect."""
        if self._store.read(state_keys.OWNERS).get(state_keys.OWNERS) != self.owners:
            raise TakenOver

    def commit(self, change: Change, progress: Progress) -> None:
        """Apply the change and store `progress`. Raises TakenOver."""
        if not self._is_whole(change, progress):
            self._commit_in_pieces(change, progress)

    def _is_whole(self, change: Change, progress: Progress) -> bool:
        """Commit in one transaction, if it fits and the broker accepts a request of this length."""
        if not fits(change, self._bytes_max):
            return False
        try:
            self._put(change, progress)
        except RequestTooLong:
            self._bytes_max = limits.PIECE_BYTES_MAX  # and do not try again
            return False
        return True

    def _commit_in_pieces(self, change: Change, progress: Progress) -> None:
        count = 0
        for piece in split(change):
            self._write_down(count, piece)
            count += 1
        self._put(Change(claims=change.claims), msgspec.structs.replace(progress, redo=count, redone=0))
        self._redo()

    def _is_due(self, key: bytes) -> bool:
        return self.progress.redone <= state_keys.read_number(key) < self.progress.redo

    def _write_down(self, number: int, piece: Piece) -> None:
        key = state_keys.redo_key(self.slot, number)
        self._transact(ops.Transact(state=[(key, msgspec.msgpack.encode(piece))], expect=self._expected()))

    def _redo(self) -> None:
        while self.progress.redone < self.progress.redo:
            key = state_keys.redo_key(self.slot, self.progress.redone)
            piece = msgspec.msgpack.decode(self._store.read(key)[key], type=Piece)
            done = msgspec.structs.replace(self.progress, redone=self.progress.redone + 1)
            self._put(Change([*piece.state, (key, None)], piece.sends), done)

    def _put(self, change: Change, progress: Progress) -> None:
        progress = msgspec.structs.replace(
            progress, commit=self.progress.commit + 1, by=self._by, committed_ms=self._store.now_ms()
        )
        written = encode_progress(progress)
        state = [*change.state, (self._key, written)]
        operation = ops.Transact(sends=change.sends, state=state, claims=change.claims, expect=self._expected())
        self._transact(operation, written)
        self.progress, self._written = progress, written

    def _expected(self) -> list[Put]:
        return [(state_keys.OWNERS, self.owners), (self._key, self._written)]

    def _transact(self, operation: ops.Transact, written: bytes | None = None) -> None:
        try:
            self._store.transact(msgspec.structs.replace(operation, name=self._name))
        except StateChanged as error:
            # An earlier try may have succeeded and only its answer been lost: then our own progress is stored.
            if written is None or self._store.read(self._key).get(self._key) != written:
                raise TakenOver from error


def fits(change: Change, bytes_max: int = limits.COMMIT_BYTES_MAX) -> bool:
    """Whether the change fits into one transaction."""
    messages = sum(len(entries) for _, entries in change.sends)
    size = sum(_put_bytes(put) for put in change.state)
    size += sum(_entry_bytes(entry) for _, entries in change.sends for entry in entries)
    return messages <= queue_limits.NATIVE_BATCH_MAX and size <= bytes_max


def split(change: Change) -> Iterator[Piece]:
    """State first, then sends, in pieces of at most PIECE_BYTES_MAX (or one item) and NATIVE_BATCH_MAX messages."""
    for puts in _lots((put, _put_bytes(put)) for put in change.state):
        yield Piece(state=puts)
    flat = ((arn, entry) for arn, entries in change.sends for entry in entries)
    for sends in _lots((send, _entry_bytes(send[1])) for send in flat):
        yield Piece(sends=_grouped(sends))


def _lots(items: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    lot: list[T] = []
    size = 0
    for item, item_bytes in items:
        if lot and (size + item_bytes > limits.PIECE_BYTES_MAX or len(lot) >= queue_limits.NATIVE_BATCH_MAX):
            yield lot
            lot, size = [], 0
        lot.append(item)
        size += item_bytes
    if lot:
        yield lot


def _grouped(sends: list[tuple[str, Entry]]) -> list[tuple[str, list[Entry]]]:
    grouped: list[tuple[str, list[Entry]]] = []
    for arn, entry in sends:
        if not grouped or grouped[-1][0] != arn:
            grouped.append((arn, []))
        grouped[-1][1].append(entry)
    return grouped


def _put_bytes(put: Put) -> int:
    return len(put[0]) + len(put[1] or b"")


def _entry_bytes(entry: Entry) -> int:
    return len(entry.body) + len(entry.attributes)
