"""The machine and the model can fail: bugs that queues are known to have are planted, and each is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RULE_MARKER, run_state_machine_as_test

from headrace.errors import QueueNotFound
from headrace.queue import topics
from headrace.queue.fifo import FifoOrder
from headrace.queue.receipts import Receipts
from headrace.queue.redrive import judge
from headrace.queue.store import deleting, sqlite
from headrace.queue.store.disk import Trimmed, key_of
from headrace.queue.store.journal import LeaseJournal
from headrace.queue.store.local import messages, publishing, receiving, sending
from headrace.queue.store.local.head import LocalQueue
from headrace.queue.store.local.state import LocalState
from headrace.testing.driver import StoreKind
from headrace.testing.machine import StoreMachine, machine_for
from headrace.testing.model import Violation
from headrace.testing.stores import MEMORY, SQLITE
from headrace.testing.topic_machine import topic_machine_for

Plant = Callable[[pytest.MonkeyPatch], None]


def find(
    kind: StoreKind, plant: Plant, examples: int = 400, make: Callable[[StoreKind], type[StoreMachine]] = machine_for
) -> None:
    """Run the machine until it finds something; no shrinking, what it is does not matter here."""
    run_state_machine_as_test(
        seed(SEEDS.get(plant, 5))(make(kind)),
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


OF_DISKS = ("send", "receive", "delete", "change_visibility", "pass_time", "restart", "crash")


def disk_machine_for(kind: StoreKind) -> type[StoreMachine]:
    """The machine with the rules that are kept on disk one by one: with all, the one that tells is drawn too rarely."""
    others = {name for name, rule in vars(StoreMachine).items() if hasattr(rule, RULE_MARKER)} - set(OF_DISKS)
    return type("DiskMachine", (machine_for(kind),), dict.fromkeys(others))


def dead_letter_one_receive_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(receiving, "judge", lambda message, receives, rules, now: judge(message, receives - 1, rules, now))


def delay_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sending, "_message", _without_delay(sending._message))


def _without_delay(make: Callable[..., Any]) -> Callable[..., Any]:
    import msgspec

    return lambda *args: msgspec.structs.replace(make(*args), visible_ms=None)


def count_drifts(patch: pytest.MonkeyPatch) -> None:
    remove = LocalState.remove

    def drift(self: LocalState, queue: Any, keys: Sequence[int]) -> int:
        queue.messages += any(key % 5 == 0 for key in keys)
        return remove(self, queue, keys)

    patch.setattr(LocalState, "remove", drift)


def stale_receipt_deletes(patch: pytest.MonkeyPatch) -> None:
    """Every receipt of a message counts as its newest."""
    plan = messages.plan_delete

    def careless(state: LocalState, queue: Any, receipt: bytes, *, strict: bool) -> None:
        key, _ = state.receipts.read(receipt)
        lease = queue.order.leases.active.get(key & ((1 << 40) - 1))
        newest = state.receipts.mint(key, lease.receives) if lease is not None else receipt
        plan(state, queue, newest, strict=strict)

    patch.setattr(messages, "plan_delete", careless)


def forged_receipt_taken(patch: pytest.MonkeyPatch) -> None:
    def trusting(self: Receipts, receipt: bytes) -> tuple[int, int]:
        return int.from_bytes(receipt[:8], "big"), int.from_bytes(receipt[8:12], "big")

    patch.setattr(Receipts, "read", trusting)


def fifo_message_in_flight_passed_over(patch: pytest.MonkeyPatch) -> None:
    """A group goes on behind a message in flight."""
    served_to, take = FifoOrder._served_to, FifoOrder._take_group

    def open_always(self: FifoOrder, state: Any) -> str | None:
        return "" if state.pending and state.reader is None else served_to(self, state)

    def taking(self: FifoOrder, name: str, state: Any, out: list[int], **options: Any) -> None:
        away, state.away = state.away, []
        take(self, name, state, out, **options)
        state.away = sorted({*away, *state.away}, reverse=True)

    patch.setattr(FifoOrder, "_served_to", open_always)
    patch.setattr(FifoOrder, "_take_group", taking)


def fifo_group_waits_as_a_whole(patch: pytest.MonkeyPatch) -> None:
    """While a message is in flight, those before it wait, too."""
    served_to = FifoOrder._served_to
    patch.setattr(
        FifoOrder,
        "_served_to",
        lambda self, state: None if state.in_flight and state.reader is None else served_to(self, state),
    )


def leases_only_in_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseJournal, "note", lambda self, record: None)


def dedup_only_in_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sqlite.SqliteDisk, "_dedup", lambda self, dedups, now_ms: None)


def deletes_written_never(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deleting, "delete", lambda db, keys: None)


def delayed_message_that_was_taken_is_shown(patch: pytest.MonkeyPatch) -> None:
    pick = LocalQueue.pick

    def forgetful(self: LocalQueue, *args: Any) -> bool:
        picked = pick(self, *args)
        self.early.clear()
        return picked

    patch.setattr(LocalQueue, "pick", forgetful)


def visibility_change_only_in_memory(patch: pytest.MonkeyPatch) -> None:
    change = messages._change_visibility

    def forgetful(*args: Any, **options: Any) -> None:
        with patch.context() as meanwhile:
            meanwhile.setattr(messages, "journal", lambda *_: None)
            change(*args, **options)

    patch.setattr(messages, "_change_visibility", forgetful)


def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """A commit is written with the next one."""
    prepare, commit = sqlite.SqliteDisk.prepare, sqlite.SqliteDisk.commit
    held: dict[int, Any] = {}
    begun: set[int] = set()

    def prepare_later(self: sqlite.SqliteDisk, batch: Any) -> None:
        earlier, held[id(self)] = held.get(id(self)), batch
        if earlier is not None:
            prepare(self, earlier)
            begun.add(id(self))

    def commit_earlier(self: sqlite.SqliteDisk) -> None:
        if id(self) in begun:
            begun.discard(id(self))
            commit(self)

    patch.setattr(sqlite.SqliteDisk, "prepare", prepare_later)
    patch.setattr(sqlite.SqliteDisk, "commit", commit_earlier)


@pytest.mark.parametrize(
    "plant",
    [
        dead_letter_one_receive_late,
        delay_ignored,
        count_drifts,
        stale_receipt_deletes,
        forged_receipt_taken,
        fifo_message_in_flight_passed_over,
        delayed_message_that_was_taken_is_shown,
    ],
)
def test_wrong_rule_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation):
        find(MEMORY, plant)


def test_group_that_waits_as_a_whole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fifo_group_waits_as_a_whole(monkeypatch)
    with pytest.raises(Violation):
        find(MEMORY, fifo_group_waits_as_a_whole, make=disk_machine_for)


@pytest.mark.parametrize(
    "plant",
    [
        leases_only_in_memory,
        dedup_only_in_memory,
        deletes_written_never,
        visibility_change_only_in_memory,
        acknowledged_before_the_commit,
    ],
)
def test_forgetful_disk_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((Violation, QueueNotFound, TimeoutError)):
        find(SQLITE, plant, make=disk_machine_for)


def log_ends_too_early(patch: pytest.MonkeyPatch) -> None:
    rule = topics.droppable

    def greedy(front: Sequence[topics.Logged], *args: Any, **options: Any) -> int:
        count = rule(front, *args, **options)
        return min(count + 1, len(front)) if count else 0

    patch.setattr(topics, "droppable", greedy)


def order_is_turned(patch: pytest.MonkeyPatch) -> None:
    put = publishing.put
    patch.setattr(
        publishing,
        "put",
        lambda state, topic, queue, found, now, *, kept: put(state, topic, queue, found[::-1], now, kept=kept),
    )


def bodies_in_use_are_trimmed(patch: pytest.MonkeyPatch) -> None:
    trim = deleting.trim

    def careless(db: apsw.Connection, topic: int, *, after: int, before: int, limit: int) -> Trimmed:
        first, last = key_of(topic, after) + 1, key_of(topic, before) - 1
        if last >= first:
            db.execute("DELETE FROM message WHERE key BETWEEN ? AND ?", (first, last))
        return trim(db, topic, after=after, before=before, limit=limit)

    patch.setattr(deleting, "trim", careless)


SEEDS: Final[dict[Plant, int]] = {
    dead_letter_one_receive_late: 4,
    visibility_change_only_in_memory: 1,
    bodies_in_use_are_trimmed: 1,
}
"""Where the usual one finds the bug after a hundred examples. Others find it, too, in fewer; which, says the rules' order."""


@pytest.mark.parametrize(
    ("plant", "kind"), [(log_ends_too_early, MEMORY), (order_is_turned, MEMORY), (bodies_in_use_are_trimmed, SQLITE)]
)
def test_wrong_topic_is_found(plant: Plant, kind: StoreKind, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation):
        find(kind, plant, make=topic_machine_for)
