"""Sending: hooks, unique locks, and where a send goes: to the broker, into a transaction, or into a task's outbox.

What decides is pure and written once (`_Plan`); the sync and the async way differ in who waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace import tracing
from headrace.errors import HeadraceError, StateChanged
from headrace.queue.model import Entry, Sent, arn_of
from headrace.queue.operations import Transact, TransactOutcome
from headrace.work import keys, limits, support, unique
from headrace.work.context import running
from headrace.work.dispatch import Dispatch, Posting, Sendable
from headrace.work.errors import NotSupported
from headrace.work.handle import Handle
from headrace.work.transaction import collecting

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.task import Task

TRIES_MAX: Final = 20
"""How often a commit that somebody else was faster than is planned anew: each time another sender has got through."""


@dataclass(slots=True)
class Plan:
    """What one commit sends, and what became of each dispatch.

    Attributes:
        owners: a dispatch's place → the id of the task that holds its lock: it is not sent.
    """

    dispatches: Sequence[Sendable]
    owners: dict[int, str] = field(default_factory=dict)
    change: unique.Change = field(default_factory=unique.Change)
    sends: dict[str, list[tuple[int, Entry]]] = field(default_factory=dict)

    def operation(self) -> Transact:
        return Transact(
            sends=[(arn_of(queue), [entry for _, entry in entries]) for queue, entries in self.sends.items()],
            state=list(self.change.puts.items()),
            name=keys.NAME,
            expect=list(self.change.expects.items()),
        )

    def numbers(self, outcome: TransactOutcome) -> dict[int, int]:
        """A dispatch's place → the number of its message."""
        places = [place for entries in self.sends.values() for place, _ in entries]
        return dict(zip(places, (sent.seq for batch in outcome.sent for sent in batch), strict=True))


def plan(dispatches: Sequence[Sendable], stored: dict[bytes, bytes | None], now_ms: int) -> Plan:
    """The commit that sends these. Pure.

    Args:
        stored: every lock's row that they ask for, as it was read.
    """
    made = Plan(dispatches)
    rows = dict(stored)
    for place, dispatch in enumerate(dispatches):
        change = unique.claim(dispatch, now_ms=now_ms, read=rows.get)
        if isinstance(change, str):
            made.owners[place] = change
            continue
        made.change.expects = {**change.expects, **made.change.expects}  # what was read first is what stands there
        made.change.puts |= change.puts | dict(dispatch.puts)
        rows |= change.puts
        made.sends.setdefault(dispatch.queue, []).append((place, dispatch.entry()))
    return made


def locks(dispatches: Iterable[Sendable]) -> list[bytes]:
    """The rows to read before `plan`."""
    wanted = [dispatch.unique for dispatch in dispatches]
    return list({keys.unique_lock(one.key): None for one in wanted if one is not None})


class Sender:
    """Sends for one app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def send(self, task: Task[..., Any], dispatch: Dispatch) -> Handle[Any]:
        dispatch = self._prepared(dispatch)
        handle = self._handle(task, dispatch)
        if self._collected(dispatch, handle):
            return handle
        if dispatch.envelope.unique is not None:
            made, numbers = self.commit([dispatch])
            return self._outcome(task, dispatch, made.owners.get(0), numbers.get(0))
        [sent] = self._app.backend.send(dispatch.queue, [dispatch.entry()])
        return self._sent(task, dispatch, sent)

    async def asend(self, task: Task[..., Any], dispatch: Dispatch) -> Handle[Any]:
        dispatch = self._prepared(dispatch)
        handle = self._handle(task, dispatch)
        if self._collected(dispatch, handle):
            return handle
        if dispatch.envelope.unique is not None:
            made, numbers = await self.acommit([dispatch])
            return self._outcome(task, dispatch, made.owners.get(0), numbers.get(0))
        [sent] = await self._app.backend.asend(dispatch.queue, [dispatch.entry()])
        return self._sent(task, dispatch, sent)

    def send_many(self, task: Task[..., Any], dispatches: Iterable[Dispatch]) -> list[Handle[Any]]:
        handles: list[Handle[Any]] = []
        for part in _slices(map(self._prepared, dispatches)):
            mine = [self._handle(task, dispatch) for dispatch in part]
            if self._all_collected(part, mine):
                handles += mine
            elif part[0].envelope.unique is not None:
                handles += self._outcomes(task, part, *self.commit(part))
            else:
                sent = self._app.backend.send(part[0].queue, [dispatch.entry() for dispatch in part])
                handles += [self._sent(task, *pair) for pair in zip(part, sent, strict=True)]
        return handles

    async def asend_many(self, task: Task[..., Any], dispatches: Iterable[Dispatch]) -> list[Handle[Any]]:
        handles: list[Handle[Any]] = []
        for part in _slices(map(self._prepared, dispatches)):
            mine = [self._handle(task, dispatch) for dispatch in part]
            if self._all_collected(part, mine):
                handles += mine
            elif part[0].envelope.unique is not None:
                handles += self._outcomes(task, part, *await self.acommit(part))
            else:
                sent = await self._app.backend.asend(part[0].queue, [dispatch.entry() for dispatch in part])
                handles += [self._sent(task, *pair) for pair in zip(part, sent, strict=True)]
        return handles

    def send_together(self, dispatches: Sequence[Dispatch]) -> None:
        """Send all of it in one commit, rows included: the beginning of a flow."""
        part = [self._prepared(dispatch) for dispatch in dispatches]
        if not self._all_collected(part):
            self.commit(part)
            self.committed(part)

    async def asend_together(self, dispatches: Sequence[Dispatch]) -> None:
        """As `send_together`, without blocking the event loop."""
        part = [self._prepared(dispatch) for dispatch in dispatches]
        if not self._all_collected(part):
            await self.acommit(part)
            self.committed(part)

    def post(self, postings: Sequence[Posting]) -> None:
        """Plain messages: into the outbox or the transaction, if there is one; else in one commit, now."""
        self._need_transactions("app.send() and app.publish()")
        if postings and not self._all_collected(postings):
            self.commit(postings)

    async def apost(self, postings: Sequence[Posting]) -> None:
        """As `post`, without blocking the event loop."""
        self._need_transactions("app.send() and app.publish()")
        if postings and not self._all_collected(postings):
            await self.acommit(postings)

    def commit(self, dispatches: Sequence[Sendable]) -> tuple[Plan, dict[int, int]]:
        """Send these in one commit, locks included. Returns what became of each, and the messages' numbers.

        Raises:
            StateChanged: others took the same locks faster, again and again.
        """
        self._need_transactions()
        backend = self._app.backend
        for _ in range(TRIES_MAX - 1):
            made = plan(dispatches, {key: backend.read(key) for key in locks(dispatches)}, self._app.clock())
            try:
                return made, made.numbers(backend.transact(made.operation()))
            except StateChanged:
                continue
        made = plan(dispatches, {key: backend.read(key) for key in locks(dispatches)}, self._app.clock())
        return made, made.numbers(backend.transact(made.operation()))

    async def acommit(self, dispatches: Sequence[Sendable]) -> tuple[Plan, dict[int, int]]:
        """As `commit`, without blocking the event loop."""
        self._need_transactions()
        backend = self._app.backend
        tries = 0
        while True:
            stored = {key: await backend.aread(key) for key in locks(dispatches)}
            made = plan(dispatches, stored, self._app.clock())
            try:
                return made, made.numbers(await backend.atransact(made.operation()))
            except StateChanged:
                tries += 1
                if tries == TRIES_MAX:
                    raise

    def committed(self, dispatches: Iterable[Sendable]) -> None:
        """A transaction has sent these."""
        for dispatch in dispatches:
            if isinstance(dispatch, Dispatch):
                self._app.hooks.after_send(dispatch)

    def _prepared(self, dispatch: Dispatch) -> Dispatch:
        """With what the running task or request adds, after the hooks."""
        context, trace = running.get(), tracing.current()
        if context is not None or trace is not None:
            parent = context.id if context is not None else None
            dispatch = replace(
                dispatch, envelope=msgspec.structs.replace(dispatch.envelope, parent=parent, trace=trace)
            )
        dispatch = self._app.hooks.before_send(dispatch)
        if not self._app.backend.capabilities.state:
            support.check_send(dispatch, self._app.tasks[dispatch.envelope.task].defaults, self._app.backend)
        return dispatch

    def _all_collected(self, part: Sequence[Sendable], handles: Sequence[Handle[Any]] = ()) -> bool:
        # all of them: each is to be taken
        collected = [self._collected(*each) for each in zip_longest(part, handles)]
        return collected[0]

    def _collected(self, dispatch: Sendable, handle: Handle[Any] | None = None) -> bool:
        """Whether a transaction, or the running task's outbox, has taken it."""
        transaction = collecting.get().get(id(self._app))
        if transaction is not None:
            transaction.add(dispatch, handle)
            return True
        context = running.get()
        if context is not None and context.outbox is not None:
            context.outbox.append(dispatch)
            return True
        return False

    def _sent(self, task: Task[..., Any], dispatch: Dispatch, sent: Sent | HeadraceError) -> Handle[Any]:
        if isinstance(sent, HeadraceError):
            raise sent
        self._app.hooks.after_send(dispatch)
        return self._handle(task, dispatch, seq=sent.seq)

    def _outcomes(
        self, task: Task[..., Any], part: Sequence[Dispatch], made: Plan, numbers: dict[int, int]
    ) -> list[Handle[Any]]:
        return [self._outcome(task, one, made.owners.get(place), numbers.get(place)) for place, one in enumerate(part)]

    def _outcome(self, task: Task[..., Any], dispatch: Dispatch, owner: str | None, seq: int | None) -> Handle[Any]:
        if owner is not None:
            kept = dispatch.envelope.result_ttl_s is not None
            return Handle(self._app, owner, task=task.name, queue=dispatch.queue, kept=kept, duplicate=True)
        self._app.hooks.after_send(dispatch)
        return self._handle(task, dispatch, seq=seq)

    def _handle(self, task: Task[..., Any], dispatch: Dispatch, seq: int | None = None) -> Handle[Any]:
        envelope = dispatch.envelope
        kept = envelope.result_ttl_s is not None
        return Handle(self._app, envelope.id, task=task.name, queue=dispatch.queue, seq=seq, kept=kept)

    def _need_transactions(self, feature: str = "unique= and app.transaction()") -> None:
        backend = self._app.backend
        if not backend.capabilities.transactions:
            raise NotSupported(feature, backend.name)


def _slices(dispatches: Iterator[Dispatch]) -> Iterator[list[Dispatch]]:
    while part := list(islice(dispatches, limits.SEND_MANY_SLICE)):
        yield part
