"""The stateful machine: random operations, clock moves and restarts, each step compared with the model.

    class TestMine(machine_for(my_kind).TestCase):
        settings = settings(max_examples=200, stateful_step_count=40)

A failure is shrunk by hypothesis to the shortest sequence of operations that shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.errors import ClaimRefused, Fenced, ReceiptExpired, ReceiptInvalid
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, Delivery, Entry, Redrive, arn_of
from headrace.testing.driver import StoreDriver, StoreKind, fast_folder
from headrace.testing.model import ModelMessage, ModelQueue, require

SECOND: Final = 1_000
TIMES = st.sampled_from([1, 999, SECOND, 4 * SECOND, 30 * SECOND, 60 * SECOND, 299_999, 300_000, 3_600_000])
LATE = st.sampled_from([0, 0, 0, SECOND, 30 * SECOND])
VISIBILITIES = st.sampled_from([None, 0, SECOND, 10 * SECOND, 120 * SECOND])
GROUPS = st.sampled_from(["a", "b", "c"])
DEDUP_IDS = st.sampled_from(["1", "2", "3", "4", "5", "6", None, None, None, None])
LIMITS = st.sampled_from([1, 2, 3, 10, 100])

STANDARD: Final = ("plain", "retried", "dead")
FIFO: Final = ("plain.fifo", "retried.fifo", "dead.fifo")
CLAIMED: Final = ("plain", "plain.fifo")
FOCUS = st.sampled_from(
    [("plain",), ("plain.fifo",), ("retried", "dead"), ("retried.fifo", "dead.fifo"), CLAIMED, STANDARD + FIFO]
)
"""Each run keeps to a few queues: bugs that need several operations on one message are found sooner."""
PLACES = st.integers(0, 5)


class StoreMachine(RuleBasedStateMachine):
    """Six queues: for each type one plain (its own delay or group-scoped ids), one with a dead-letter queue, and that."""

    kind: StoreKind

    def __init__(self) -> None:
        super().__init__()
        self.folder = fast_folder("headrace-machine-")
        self.driver = StoreDriver(self.kind, Path(self.folder.name))
        self.queues: dict[str, ModelQueue] = {}
        self.focus: tuple[str, ...] = STANDARD + FIFO
        self.receipts: list[tuple[str, bytes]] = []
        self.state: dict[bytes, bytes] = {}
        self.epochs: list[int] = []
        self.bodies = 0
        self._create("dead", visibility_ms=5 * SECOND)
        self._create("retried", dead="dead", receives_max=2, visibility_ms=5 * SECOND, retention_ms=600_000)
        self._create("plain", delay_ms=2 * SECOND)
        self._create("dead.fifo", visibility_ms=5 * SECOND)
        self._create("retried.fifo", dead="dead.fifo", receives_max=2, visibility_ms=5 * SECOND, retention_ms=600_000)
        self._create("plain.fifo", delay_ms=2 * SECOND, group_scope=True)

    def _create(self, name: str, *, dead: str | None = None, receives_max: int = 0, **values: Any) -> None:
        fifo = name.endswith(".fifo")
        self.queues[name] = ModelQueue(
            arn_of(name), fifo=fifo, dead=self.queues[dead] if dead else None, receives_max=receives_max, **values
        )
        if values.pop("group_scope", False):
            values["dedup_scope"] = "messageGroup"
        if dead:
            values["redrive"] = Redrive(arn_of(dead), receives_max)
        self.driver.create(name, **values)

    @initialize(focus=FOCUS)
    def keep_to(self, focus: tuple[str, ...]) -> None:
        self.focus = focus

    def _among(self, place: int, names: tuple[str, ...] = STANDARD + FIFO) -> str:
        """One of the run's queues that is in `names`."""
        chosen = [name for name in self.focus if name in names]
        return chosen[place % len(chosen)]

    def teardown(self) -> None:
        self.driver.close()
        self.folder.cleanup()

    @property
    def now(self) -> int:
        return self.driver.clock()

    def _tick(self) -> None:
        for queue in self.queues.values():
            queue.tick(self.now)

    def _late(self, ms: int) -> None:
        """Time passes, and the next operation comes before the store's owner has called `advance`."""
        self.driver.jump(ms)
        self._tick()

    def _body(self) -> bytes:
        self.bodies += 1
        return str(self.bodies).encode()

    def _entry(self, name: str, group: str, dedup_id: str | None, delay_ms: int | None) -> Entry:
        body = self._body()
        if name in FIFO:
            return Entry(body, group=group, dedup_id=dedup_id or f"unique-{self.bodies}")
        return Entry(body, delay_ms=delay_ms)

    # Messages

    @rule(
        place=PLACES,
        items=st.lists(st.tuples(GROUPS, DEDUP_IDS, st.sampled_from([None, 0, SECOND])), min_size=1, max_size=4),
    )
    def send(self, place: int, items: list[tuple[str, str | None, int | None]]) -> None:
        name = self._among(place)
        entries = [self._entry(name, *item) for item in items]
        outcomes = self.driver.run(ops.Send(arn_of(name), entries))
        self.queues[name].send(entries, outcomes, self.now)

    @rule(place=PLACES, limit=LIMITS, visibility_ms=VISIBILITIES, late=LATE)
    def receive(self, place: int, limit: int, visibility_ms: int | None, late: int) -> None:
        name = self._among(place)
        self._late(late)
        self._receive(name, limit, visibility_ms, self.driver.receive(arn_of(name), limit, visibility_ms=visibility_ms))

    def _receive(
        self,
        name: str,
        limit: int,
        visibility_ms: int | None,
        deliveries: list[Delivery],
        *,
        deleting: ModelMessage | None = None,
    ) -> None:
        queue = self.queues[name]
        dead_now = self.driver.peek(queue.dead.arn) if queue.dead is not None else []
        queue.receive(limit, deliveries, dead_now, self.now, visibility_ms=visibility_ms, deleting=deleting)
        self.receipts += [(name, delivery.receipt) for delivery in deliveries]

    @rule(place=PLACES, seqs=st.lists(st.integers(0, 8), min_size=1, max_size=3), visibility_ms=VISIBILITIES, late=LATE)
    def take(self, place: int, seqs: list[int], visibility_ms: int | None, late: int) -> None:
        """By number, counted back from the newest: delayed ones, ones in flight, ones that are gone."""
        name = self._among(place)
        self._late(late)
        queue = self.queues[name]
        asked = [queue.last_seq - back for back in seqs]
        outcomes = self.driver.run(ops.Take(arn_of(name), asked, visibility_ms))
        queue.take(asked, outcomes, self.now, visibility_ms=visibility_ms)
        self.receipts += [(name, one.receipt) for one in outcomes if isinstance(one, Delivery)]

    @rule(first=PLACES, second=PLACES, limit=LIMITS, late=LATE)
    def receive_any(self, first: int, second: int, limit: int, late: int) -> None:
        """Two queues of which neither has dead letters to give: what moves meanwhile is `receive`'s to check."""
        names = list(dict.fromkeys(self._among(place) for place in (first, second)))
        self._late(late)
        if any(self.queues[name].dead is not None for name in names):
            return
        given = dict(self.driver.run(ops.ReceiveAny([arn_of(name) for name in names], limit)))
        require(given.keys() <= {arn_of(name) for name in names}, f"queues that were not asked: {given.keys()}")
        for name in names:
            deliveries = given.get(arn_of(name), [])
            if limit:
                self._receive(name, limit, None, deliveries)
            else:
                require(not deliveries, "more than the limit")
            limit -= len(deliveries)

    @precondition(lambda self: bool(set(self.focus) & set(FIFO)))
    @rule(place=PLACES, attempt_id=st.sampled_from(["x", "y"]), limit=LIMITS, late=LATE)
    def receive_attempt(self, place: int, attempt_id: str, limit: int, late: int) -> None:
        name = self._among(place, FIFO)
        self._late(late)
        queue = self.queues[name]
        again = queue.replay(attempt_id, self.now)
        deliveries = self.driver.receive(arn_of(name), limit, attempt_id=attempt_id)
        if again is not None:
            require([(one.message.id, one.receipt) for one in deliveries] == again, "an attempt was not replayed")
            queue.replayed(attempt_id, self.now, queue.visibility_ms)
            return
        self._receive(name, limit, None, deliveries)
        queue.attempted(attempt_id, deliveries, self.now)

    def _pick(self, data: st.DataObject) -> tuple[str, bytes]:
        """A receipt, more likely a new one."""
        back = data.draw(st.integers(1, min(len(self.receipts), 12)))
        return self.receipts[-back]

    @precondition(lambda self: bool(self.receipts))
    @rule(data=st.data(), late=LATE)
    def delete(self, data: st.DataObject, late: int) -> None:
        self._late(late)
        name, receipt = self._pick(data)
        self.queues[name].delete(receipt, self.driver.delete(arn_of(name), receipt)[0])

    @precondition(lambda self: bool(self.receipts))
    @rule(data=st.data(), limit=LIMITS)
    def delete_and_receive(self, data: st.DataObject, limit: int) -> None:
        """Both handed to the store together: they may share a commit."""
        name, receipt = self._pick(data)
        operations = [ops.Delete(arn_of(name), [receipt]), ops.Receive(arn_of(name), limit)]
        deleted, deliveries = self.driver.outcomes(operations)
        in_flight = self._holds(name, receipt)
        self.queues[name].delete(receipt, deleted[0])
        deleting = self.queues[name].issued[receipt] if in_flight and name in FIFO else None
        self._receive(name, limit, None, deliveries, deleting=deleting)

    @precondition(lambda self: bool(self.receipts))
    @rule(
        data=st.data(),
        timeout_ms=st.sampled_from([0, SECOND, 60 * SECOND, 43_200_000]),
        strict=st.sampled_from([False, False, True]),
        late=LATE,
    )
    def change_visibility(self, data: st.DataObject, timeout_ms: int, strict: bool, late: int) -> None:
        self._late(late)
        name, receipt = self._pick(data)
        outcome = self.driver.change_visibility(arn_of(name), receipt, timeout_ms, strict=strict)
        self.queues[name].change_visibility(receipt, timeout_ms, outcome, self.now, strict=strict)

    @precondition(lambda self: bool(self.receipts))
    @rule(data=st.data(), other=st.sampled_from(STANDARD + FIFO), position=st.integers(0, 27))
    def forge(self, data: st.DataObject, other: str, position: int) -> None:
        """A receipt of another queue, or with a byte changed: no effect."""
        name, receipt = self._pick(data)
        mutated = bytearray(receipt)
        mutated[position % len(receipt)] ^= 0x55
        outcomes = self.driver.delete(arn_of(name), bytes(mutated))
        if other != name:
            outcomes += self.driver.delete(arn_of(other), receipt)
        require(all(isinstance(one, ReceiptInvalid) for one in outcomes), f"a forged receipt was taken: {outcomes}")

    @rule(place=PLACES)
    def purge(self, place: int) -> None:
        name = self._among(place)
        self.queues[name].purge(self.driver.run(ops.Purge(arn_of(name))))

    # Transactions

    @rule(data=st.data(), place=PLACES, group=GROUPS, stale=st.booleans(), late=LATE)
    def transact(self, data: st.DataObject, place: int, group: str, stale: bool, late: int) -> None:
        """Acknowledge what is leased (and, if `stale`, a receipt that is not), send, and put state: all or nothing."""
        self._late(late)
        out = self._among(place)
        held = [(name, receipt) for name, receipt in self.receipts if self._holds(name, receipt)][:2]
        lost = [(name, receipt) for name, receipt in self.receipts if not self._holds(name, receipt)][-1:]
        chosen = held + (lost if stale else [])
        entry = self._entry(out, group, None, None)
        key, value = data.draw(st.sampled_from([b"k1", b"k2"])), entry.body
        epoch = data.draw(st.sampled_from([None, *self.epochs[-2:]]))
        outcome = self.driver.outcome(
            ops.Transact(
                acknowledge=[(arn_of(name), [receipt]) for name, receipt in chosen],
                sends=[(arn_of(out), [entry])],
                state=[(key, value)],
                name="job",
                epoch=epoch,
            )
        )
        if epoch is not None and epoch != self.epochs[-1]:
            require(isinstance(outcome, Fenced), f"an older epoch was not fenced: {outcome!r}")
            return
        if stale and lost:
            require(isinstance(outcome, ReceiptExpired), f"a lost lease was acknowledged: {outcome!r}")
            return
        require(isinstance(outcome, ops.TransactOutcome), f"a valid transaction was refused: {outcome!r}")
        for name, receipt in held:
            self.queues[name].delete(receipt, None)
        self.queues[out].send([entry], outcome.sent[0], self.now)
        self.state[key] = value

    def _holds(self, name: str, receipt: bytes) -> bool:
        queue = self.queues[name]
        message = queue.issued[receipt]
        return message in queue.messages and message.lease_ends is not None and message.receipts[-1] == receipt

    @rule()
    def fence(self) -> None:
        epoch = self.driver.run(ops.Fence("job"))
        require(not self.epochs or epoch > self.epochs[-1], "epochs do not rise")
        self.epochs.append(epoch)

    # Claims

    @precondition(lambda self: bool(set(self.focus) & set(CLAIMED)))
    @rule(place=PLACES, limit=LIMITS, again=st.booleans(), late=LATE)
    def claim(self, place: int, limit: int, again: bool, late: int) -> None:
        self._late(late)
        name = self._among(place, CLAIMED)
        queue = self.queues[name]
        number = min(queue.claims) if again and queue.claims else queue.claimed_last + 1
        queue.claim(number, limit, self.driver.run(ops.Claim(arn_of(name), "reader", number, limit)), self.now)

    @precondition(lambda self: bool(set(self.focus) & set(CLAIMED)))
    @rule(place=PLACES, back=st.integers(0, 2))
    def acknowledge(self, place: int, back: int) -> None:
        name = self._among(place, CLAIMED)
        queue = self.queues[name]
        number = max(queue.claimed_last - back, 0)
        state = self.driver.run(ops.AcknowledgeClaims(arn_of(name), "reader", number))
        queue.acknowledge(number)
        require(state.last == queue.claimed_last and state.acknowledged >= number, f"claims are {state}")

    @precondition(lambda self: bool(set(self.focus) & set(CLAIMED)))
    @rule(place=PLACES)
    def release(self, place: int) -> None:
        name = self._among(place, CLAIMED)
        self.driver.run(ops.ReleaseClaims(arn_of(name), "reader"))
        self.queues[name].release()

    @precondition(lambda self: bool(set(self.focus) & set(CLAIMED)))
    @rule(place=PLACES, ahead=st.sampled_from([2, 3, 100]))
    def claim_out_of_turn(self, place: int, ahead: int) -> None:
        name = self._among(place, CLAIMED)
        outcome = self.driver.outcome(ops.Claim(arn_of(name), "reader", self.queues[name].claimed_last + ahead))
        require(isinstance(outcome, ClaimRefused), f"a claim out of turn was taken: {outcome!r}")

    # Time and life

    @rule(ms=TIMES)
    def pass_time(self, ms: int) -> None:
        self.driver.pass_time(ms)
        self._tick()

    @precondition(lambda self: self.kind.durable)
    @rule(stopped_ms=st.sampled_from([0, SECOND, 60 * SECOND]))
    def restart(self, stopped_ms: int) -> None:
        self.driver.store.close()
        self.driver.jump(stopped_ms)
        self.driver.reopen()
        self._tick()

    @precondition(lambda self: self.kind.in_files)
    @rule()
    def crash(self) -> None:
        self.driver.crash()

    # After each step

    @invariant()
    def store_shows_what_the_model_says(self) -> None:
        self.driver.settle()
        for queue in [self.queues[name] for name in self.focus]:
            queue.compare(self.driver.peek(queue.arn), self.driver.counts(queue.arn), self.now)

    @invariant()
    def state_is_what_was_put(self) -> None:
        require(self.driver.run(ops.GetState("job")) == sorted(self.state.items()), "state differs")

    @invariant()
    def claims_are_what_was_claimed(self) -> None:
        for name in CLAIMED:
            state = self.driver.run(ops.GetClaims(arn_of(name), "reader"))
            require(
                isinstance(state, ClaimState) and state.last == self.queues[name].claimed_last, f"claims are {state}"
            )


def machine_for(kind: StoreKind) -> type[StoreMachine]:
    """The machine for one kind of store: `machine_for(kind).TestCase` is a test class."""
    return type(f"{kind.name.title()}Machine", (StoreMachine,), {"kind": kind})


__all__ = ["StoreMachine", "machine_for"]
