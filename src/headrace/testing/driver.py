"""A store driven by hand: one operation at a time, a clock that only the test moves, restarts and crashes on demand."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.clock import ManualClock
from headrace.errors import HeadraceError
from headrace.queue import operations as ops
from headrace.queue.model import Delivery, Entry, Peeked, QueueCounts, Sent, arn_of
from headrace.queue.operations import Operation
from headrace.queue.store.base import Request, Store

ANSWER_DEADLINE_S: Final = 30.0
"""How long the driver waits (in real time) for an outcome before it calls the store stuck."""

SETTLE_TURNS_MAX: Final = 20_000
"""How often `advance` may want to be called again at once: the rows of a purged queue of millions go in fewer slices."""

StoreOpener = Callable[[Path, ManualClock, bool], Store]
"""Opens a store: its folder, its clock, whether the 60-second cool-downs hold."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """A kind of store that the suite can test.

    Attributes:
        name: shown in test ids.
        open: opens a store in a folder; the same folder again must show the same queues, if it is durable.
        durable: whether it survives `close` and a new `open`.
        in_files: whether a copy of the folder's files is what a killed process would leave behind.
        not_copied: patterns of files that need not be in that copy: rebuilt by the next start.
    """

    name: str
    open: StoreOpener
    durable: bool
    in_files: bool
    not_copied: tuple[str, ...] = ()


class StoreDriver:
    """Runs operations against one store, synchronously.

    It stands in for the broker: after each operation and each move of the clock it calls `advance` until nothing is due.
    It does not check anything: that is the suite's and the model's work.
    """

    def __init__(
        self,
        kind: StoreKind,
        folder: Path,
        *,
        cooldowns: bool = False,
        now_ms: int | None = None,
        prepare: Callable[[Path], None] | None = None,
    ) -> None:
        """Open a store.

        Args:
            kind: which.
            folder: an existing folder; each start after a crash gets a folder of its own in it.
            cooldowns: whether the 60-second cool-downs hold.
            now_ms: what the clock says.
            prepare: puts files into the store's folder before it is opened: a store that crashed elsewhere.
        """
        self.kind = kind
        self.clock = ManualClock() if now_ms is None else ManualClock(now_ms)
        self._root = folder
        self._cooldowns = cooldowns
        self._generation = 0
        self._abandoned: list[Store] = []
        self.folder = self._new_folder()
        if prepare is not None:
            prepare(self.folder)
        self.store = self._open()

    # Operations

    def outcome(self, operation: Operation) -> Any:
        """The outcome of `operation`, an error as a value."""
        return self.outcomes([operation])[0]

    def outcomes(self, operations: Sequence[Operation]) -> list[Any]:
        """The outcomes of operations that are handed to the store together, in order."""
        answers: dict[int, Any] = {}
        requests = [Request(operation, _keep(answers, index)) for index, operation in enumerate(operations)]
        self.store.execute(requests)
        deadline = time.monotonic() + ANSWER_DEADLINE_S
        while len(answers) < len(requests):
            self.store.advance()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(requests) - len(answers)} of {len(requests)} operations were not answered")
        self.settle()
        return [answers[index] for index in range(len(requests))]

    def run(self, operation: Operation) -> Any:
        """The outcome of `operation`; raises it when it is an error."""
        outcome = self.outcome(operation)
        if isinstance(outcome, HeadraceError):
            raise outcome
        return outcome

    def create(self, name: str, **settings: Any) -> str:
        """Create a queue and return its ARN; a name in `.fifo` makes it a FIFO queue."""
        if name.endswith(".fifo"):
            settings.setdefault("fifo", True)
        self.run(ops.CreateQueue(arn_of(name), settings))
        return arn_of(name)

    def change_settings(self, queue: str, **settings: Any) -> None:
        self.run(ops.ChangeSettings(queue, settings))

    def send(self, queue: str, body: bytes | str, **fields: Any) -> Sent:
        """Send one message; `fields` are those of `Entry`. Raises the entry's error."""
        (outcome,) = self.send_all(queue, [entry(body, **fields)])
        if isinstance(outcome, HeadraceError):
            raise outcome
        assert isinstance(outcome, Sent)
        return outcome

    def send_all(self, queue: str, entries: list[Entry]) -> list[Any]:
        """Send a batch: an outcome an entry."""
        outcomes = self.run(ops.Send(queue, entries))
        assert isinstance(outcomes, list) and len(outcomes) == len(entries)
        return outcomes

    def receive(
        self, queue: str, limit: int = 10, *, visibility_ms: int | None = None, attempt_id: str | None = None
    ) -> list[Delivery]:
        deliveries: list[Delivery] = self.run(ops.Receive(queue, limit, visibility_ms, attempt_id))
        return deliveries

    def receive_one(self, queue: str, *, visibility_ms: int | None = None) -> Delivery:
        """The one message that is ready; fails when there is none."""
        deliveries = self.receive(queue, 1, visibility_ms=visibility_ms)
        assert len(deliveries) == 1, f"one message expected, {len(deliveries)} received"
        return deliveries[0]

    def delete(self, queue: str, *receipts: bytes) -> list[HeadraceError | None]:
        """Delete by receipts: an outcome a receipt."""
        outcomes: list[HeadraceError | None] = self.run(ops.Delete(queue, list(receipts)))
        return outcomes

    def change_visibility(
        self, queue: str, receipt: bytes, timeout_ms: int, *, strict: bool = False
    ) -> HeadraceError | None:
        operation = ops.ChangeVisibility(queue, [(receipt, timeout_ms)], strict=strict)
        outcomes: list[HeadraceError | None] = self.run(operation)
        return outcomes[0]

    def counts(self, queue: str) -> QueueCounts:
        counts: QueueCounts = self.run(ops.GetQueue(queue)).counts
        return counts

    def peek(self, queue: str, limit: int = 10_000, *, after: int = 0) -> list[Peeked]:
        peeked: list[Peeked] = self.run(ops.Peek(queue, limit, after))
        return peeked

    # Time

    def settle(self) -> int | None:
        """Do everything due now; returns the next deadline, which lies in the future, or None."""
        for _ in range(SETTLE_TURNS_MAX):
            due = self.store.advance()
            if due is None or due > self.clock():
                return due
        raise TimeoutError("the store is never done with what is due now")

    def pass_time(self, ms: int) -> None:
        """Let `ms` pass as a running broker does: at each of the store's deadlines, `advance` is called."""
        end = self.clock() + ms
        due = self.settle()
        while due is not None and due < end:
            self.clock.now_ms = due
            due = self.settle()
        self.clock.now_ms = end
        self.settle()

    def jump(self, ms: int) -> None:
        """Let `ms` pass as a stopped process does: nothing runs meanwhile, and `advance` comes late."""
        self.clock.advance(ms)

    # Life

    def reopen(self) -> None:
        """Stop cleanly and start again in the same folder."""
        self.store.close()
        self.store = self._open()
        self.settle()

    def crash(self) -> None:
        """Go on as after `kill -9`: with a copy of the files as the killed process had written them."""
        assert self.kind.in_files
        self._abandoned.append(self.store)
        old, self.folder = self.folder, self._new_folder()
        shutil.copytree(old, self.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*self.kind.not_copied))
        self.store = self._open()
        self.settle()

    def close(self) -> None:
        for store in (*self._abandoned, self.store):
            store.close()

    def _new_folder(self) -> Path:
        self._generation += 1
        folder = self._root / f"store-{self._generation}"
        folder.mkdir(mode=0o700)
        return folder

    def _open(self) -> Store:
        return self.kind.open(self.folder, self.clock, self._cooldowns)


def fast_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in memory where the system has one: simulated crashes need no real disk, only its calls."""
    memory = Path("/dev/shm")  # noqa: S108 - a fresh private folder in it
    return tempfile.TemporaryDirectory(prefix=prefix, dir=memory if memory.is_dir() else None)


def entry(body: bytes | str, **fields: Any) -> Entry:
    """An entry with `body`; text is encoded as UTF-8."""
    return Entry(body.encode() if isinstance(body, str) else body, **fields)


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    """The bodies of deliveries as text, in their order."""
    return [delivery.message.body.decode() for delivery in deliveries]


def _keep(answers: dict[int, Any], index: int) -> Callable[[Any], None]:
    def done(outcome: Any) -> None:
        answers[index] = outcome if index not in answers else AssertionError(f"operation {index} was answered twice")

    return done
