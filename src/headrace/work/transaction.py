"""`with app.transaction():` what is sent in the block is sent in one commit, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from headrace.work.dispatch import Sendable
from headrace.work.errors import TransactionUsed

if TYPE_CHECKING:
    from headrace.work.app import App
    from headrace.work.handle import Handle
    from headrace.work.sending import Plan


class Transaction:
    """Made by `App.transaction`; good for one block. Blocks of one app may not stand in each other.

    A unique task whose lock is held is left out; the others are sent. When the block has ended, its handle is that of the task
    that holds the lock, with `duplicate` set; within the block nobody can know yet.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._dispatches: list[Sendable] = []
        self._handles: dict[int, Handle[Any]] = {}
        self._token: Token[dict[int, Transaction]] | None = None

    def add(self, dispatch: Sendable, handle: Handle[Any] | None = None) -> None:
        """Take it in. `handle`: what its sender has of it."""
        if handle is not None:
            self._handles[len(self._dispatches)] = handle
        self._dispatches.append(dispatch)

    def __enter__(self) -> Self:
        others = collecting.get()
        if self._token is not None or id(self._app) in others:
            raise TransactionUsed
        self._token = collecting.set({**others, id(self._app): self})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if error is None and self._dispatches:
            self._committed(*self._app.sender.commit(self._dispatches))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if error is None and self._dispatches:
            self._committed(*await self._app.sender.acommit(self._dispatches))

    def _committed(self, made: Plan, numbers: Mapping[int, int]) -> None:
        for place, handle in self._handles.items():
            if place in made.owners:
                handle.id, handle.duplicate = made.owners[place], True
            else:
                handle.seq = numbers[place]
        sent = [dispatch for place, dispatch in enumerate(self._dispatches) if place not in made.owners]
        self._app.sender.committed(sent)

    def _leave(self) -> None:
        assert self._token is not None
        collecting.reset(self._token)


collecting: Final[ContextVar[dict[int, Transaction]]] = ContextVar("headrace_transactions", default={})  # noqa: B039 - never changed in place
"""The open transaction of each app, in this thread or asyncio task."""
