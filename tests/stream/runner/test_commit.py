from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import headrace
from headrace.errors import OutcomeUnknown, RequestTooLong, StateChanged
from headrace.queue import operations as ops
from headrace.queue.model import Entry, arn_of
from headrace.stream import limits
from headrace.stream.runner import state_keys
from headrace.stream.runner.commit import Change, Committer, Piece, TakenOver, fits, split
from headrace.stream.runner.progress import Progress
from headrace.stream.runner.store import MemoryStore
from headrace.testing.driver import fast_folder


class Faulty(MemoryStore):
    """Loses answers, and crashes, where a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[ops.Transact], None] = lambda _: None
        self.after: Callable[[ops.Transact], None] = lambda _: None
        self.sent: list[tuple[str, Entry]] = []
        self.operations: list[ops.Transact] = []

    def transact(self, operation: ops.Transact) -> None:
        """Tries again as a broker's store does; keeps what is sent."""
        while True:
            try:
                return self._transact_once(operation)
            except OutcomeUnknown:
                continue

    def _transact_once(self, operation: ops.Transact) -> None:
        self.before(operation)
        super().transact(msgspec.structs.replace(operation, sends=[], claims=[]))
        self.sent += [(arn, entry) for arn, entries in operation.sends for entry in entries]
        self.operations.append(operation)
        self.after(operation)


class Crash(Exception):
    pass


@pytest.fixture
def store() -> Faulty:
    return Faulty()


def committer(store: MemoryStore, owners: bytes | None = None) -> Committer:
    made = Committer(store, "p", 0, owners)
    made.recover()
    return made


def sends(count: int, size: int = 10) -> list[tuple[str, list[Entry]]]:
    return [("a", [Entry(b"%08d" % number + b"x" * (size - 8)) for number in range(count)])]


def test_commit_writes_state_and_progress(store: Faulty) -> None:
    committer(store).commit(Change([(b"k", b"v")], sends(1)), Progress(batch=1, rows_out=7))
    assert store.read(b"k") == {b"k": b"v"}
    assert committer(store).progress.rows_out == 7
    assert len(store.sent) == 1


def test_commit_of_one_who_was_taken_over_changes_nothing(store: Faulty) -> None:
    old = committer(store)
    committer(store).commit(Change([(b"k", b"new")]), Progress(batch=1))
    with pytest.raises(TakenOver):
        old.commit(Change([(b"k", b"old")], sends(1)), Progress(batch=1))
    assert store.read(b"k") == {b"k": b"new"} and not store.sent


def test_commit_under_changed_owners_changes_nothing(store: Faulty) -> None:
    old = committer(store)
    store.transact(ops.Transact(state=[(state_keys.OWNERS, b"others")]))
    with pytest.raises(TakenOver):
        old.commit(Change([(b"k", b"old")]), Progress())
    assert not store.read(b"k")


def test_commit_whose_answer_was_lost_is_done_once(store: Faulty) -> None:
    one = committer(store)
    lost = iter([True, False, False])

    def lose(_: ops.Transact) -> None:
        if next(lost, False):
            raise OutcomeUnknown("cut")

    store.after = lose
    one.commit(Change([], sends(3)), Progress(batch=1))
    assert len(store.sent) == 3
    one.commit(Change([], sends(1)), msgspec.structs.replace(one.progress, batch=2))
    assert len(store.sent) == 4


def test_large_change_is_cut_into_pieces_that_fit() -> None:
    state = [(b"k%d" % number, b"x" * limits.STATE_PART_BYTES_MAX) for number in range(5)]
    change = Change(list(state), sends(25_000, 400))
    assert not fits(change)
    pieces = list(split(change))
    assert [put for piece in pieces for put in piece.state] == state
    assert [entry for piece in pieces for _, entries in piece.sends for entry in entries] == change.sends[0][1]
    for piece in pieces:
        assert fits(Change(piece.state, piece.sends))
        assert len(msgspec.msgpack.encode(piece)) < 10 * 1_048_576


def test_order_of_queues_is_kept_in_pieces() -> None:
    change = Change([], [("a", [Entry(b"1")]), ("b", [Entry(b"2")]), ("a", [Entry(b"3"), Entry(b"4")])])
    assert list(split(change)) == [Piece([], change.sends)]


@pytest.mark.parametrize("crash_at", range(9))
def test_large_commit_is_exactly_once_wherever_it_is_cut_short(store: Faulty, crash_at: int) -> None:
    """Crash after the n-th transaction; the next one to come finishes it, or does the batch again."""
    change = Change([(b"k", b"v")], sends(35_000), [("a", "p/0", 1)])
    done = iter(range(100))

    def crash(_: ops.Transact) -> None:
        if next(done) == crash_at:
            raise Crash

    store.after = crash
    first = committer(store)
    with contextlib.suppress(Crash):
        first.commit(change, Progress(batch=1))
    store.after = lambda _: None
    second = committer(store)
    if second.progress.batch == 0:
        second.commit(change, Progress(batch=1))
    assert [entry for _, entry in store.sent] == change.sends[0][1]
    assert store.read(b"k") == {b"k": b"v"}
    assert not store.read(state_keys.REDO)
    assert [claim for operation in store.operations for claim in operation.claims] == [("a", "p/0", 1)]


def test_a_broker_that_takes_no_long_requests_is_given_pieces_from_then_on(store: Faulty) -> None:
    long = [(b"p/%d" % number, b"x" * 1_048_576) for number in range(12)]
    refused: list[ops.Transact] = []

    def refuse(operation: ops.Transact) -> None:
        if sum(len(value or b"") for _, value in operation.state) > 8 * 1_048_576:
            refused.append(operation)
            raise RequestTooLong("413")

    store.before = refuse
    one = committer(store)
    for batch in (1, 2):
        one.commit(Change(list(long), sends(5)), msgspec.structs.replace(one.progress, batch=batch))
    assert (len(store.read(b"p/")), len(store.sent), one.progress.batch) == (12, 10, 2)
    assert len(refused) == 1, "it was tried whole only once"


def test_a_broker_that_does_not_take_a_piece_either_stops_the_run(store: Faulty) -> None:
    def refuse(_: ops.Transact) -> None:
        raise RequestTooLong("413")

    one = committer(store)
    store.before = refuse
    with pytest.raises(RequestTooLong, match="request-max"):
        one.commit(Change([(b"k", b"v")]), Progress(batch=1))


def test_change_right_after_a_large_one_is_small_again(store: Faulty) -> None:
    one = committer(store)
    one.commit(Change([], sends(20_001)), Progress(batch=1))
    before = len(store.operations)
    one.commit(Change([], sends(1)), msgspec.structs.replace(one.progress, batch=2))
    assert len(store.operations) == before + 1


@pytest.fixture
def client() -> Iterator[headrace.Client]:
    with fast_folder("headrace-stream-") as folder, headrace.connect(Path(folder)) as client:
        yield client


def test_broker_takes_a_large_commit(client: headrace.Client) -> None:
    import threading

    from headrace.stream.runner.store import BrokerStore, RetryPolicy

    queue = client.queue("out", create=True)
    store = BrokerStore(client, state_keys.state_name("p"), RetryPolicy(5, threading.Event()))
    one = Committer(store, "p", 0, None)
    one.recover()
    state = [(b"p/%d" % number, b"x" * 1_048_576) for number in range(40)]
    one.commit(Change(list(state), [(arn_of("out"), [Entry(b"%d" % number) for number in range(12_000)])]), Progress())
    assert queue.counts().visible == 12_000
    assert len(store.read(b"p/")) == 40
    with pytest.raises(StateChanged):
        store.transact(ops.Transact(name=state_keys.state_name("p"), expect=[(b"p/0", b"other")]))
