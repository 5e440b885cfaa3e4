"""A queue as a source: claims of a reader of its own.

A claim binds messages durably to a number; asked again it gives the same ones, and the commit of what became of them
acknowledges it. So nothing about the position is kept here. Claims that were open when the process before ended come
first, then new ones.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from headrace.errors import HeadraceError
from headrace.native.client import Client
from headrace.queue import limits as queue_limits
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, Message, QueueDescription, arn_of
from headrace.stream import limits
from headrace.stream.plan import QueueSource, TopicSource
from headrace.stream.sources.base import Chunk, Progress, Reader
from headrace.stream.sources.messages import MessageDecoder, MessageOrigins, traces_of

_WAIT_S: Final = 0.5  # of one claim: how late a close is noticed


def reader_name(pipeline: str, slot: int) -> str:
    """Whose claims they are: each slot of a pipeline has its own, whichever process holds it."""
    return f"{pipeline}/{slot}"


class QueueReader(Reader):
    """See Reader. `name` is the queue's; every chunk is whole claims, so that its commit can acknowledge them.

    `_claims_new`: whether it claims when nothing is open.
    """

    _claims_new = True

    def __init__(
        self,
        source: QueueSource | TopicSource,
        queue: str,
        client: Client,
        *,
        reader: str,
        columns: frozenset[str] | None = None,
    ) -> None:
        """Args: columns: those that are looked at; None: all. Arrow bodies give NULLs for the others."""
        self._name = source.name
        self._arn = arn_of(queue)
        self._client = client
        self._reader = reader
        self._decoder = MessageDecoder(source, columns)
        self._rows_a_message = 0.0  # not known yet
        self._number = 0
        self._last = 0
        self._done = 0
        self._failed = False
        self._closed = threading.Event()

    def open(self, position: bytes | None) -> None:
        del position  # the store has it
        state = self._state()
        self._number, self._last = state.acknowledged + 1, state.last

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        before = self._number
        messages = self._claims_surely(rows_max, wait_s)
        if self._number == before:
            return None
        rows, dead = self._decoder.decode(messages)
        if messages:
            self._rows_a_message = max(len(rows) / len(messages), 1.0)
        self._done += len(messages)
        return Chunk(
            rows,
            MessageOrigins(self._name, messages),
            dead,
            claims=[(self._arn, self._reader, self._number - 1)],  # it acknowledges those before it, too
            size_bytes=sum(len(message.body) for message in messages),
            traces=traces_of(messages),
        )

    def progress(self) -> Progress:
        description: QueueDescription = self._client.call(ops.GetQueue(self._arn))
        return Progress(self._done, description.counts.visible, "messages")

    def close(self) -> None:
        self._closed.set()

    def _claims_surely(self, rows_max: int, wait_s: float) -> list[Message]:
        """As `_claims`. After a call that has failed it is asked what is open: a claim whose answer was lost is, also if it
        has no messages any more."""
        if self._failed:
            self._last = self._state().last
            self._failed = False
        try:
            return self._claims(rows_max, wait_s)
        except HeadraceError:
            self._failed = True
            raise

    def _state(self) -> ClaimState:
        state: ClaimState = self._client.call(ops.GetClaims(self._arn, self._reader))
        return state

    def _claims(self, rows_max: int, wait_s: float) -> list[Message]:
        """The messages of the next claims: those that are there, until they are about `rows_max` rows.

        An open claim may have none any more (the queue was purged): it is acknowledged with the others.
        """
        messages: list[Message] = []
        number = self._number  # noted at the end: a claim that fails must not leave those before it behind
        limit = self._limit(rows_max)
        size_bytes = 0
        while len(messages) < limit and size_bytes < limits.BATCH_BYTES_MAX:
            ask = min(limit - len(messages), queue_limits.NATIVE_BATCH_MAX)
            again = number <= self._last
            if not (again or self._claims_new):
                break
            found = self._claim(number, ask, 0 if messages or again else wait_s)
            if not found and (self._closed.is_set() or not again):
                break
            number += 1
            messages += found
            size_bytes += sum(len(message.body) for message in found)
            if not again and len(found) < ask:  # no more are ready now
                break
        self._number = number
        return messages

    def _limit(self, rows_max: int) -> int:
        """How many messages are about `rows_max` rows, as the last ones were."""
        if not self._rows_a_message:
            return min(rows_max, limits.FIRST_MESSAGES)
        return max(1, int(rows_max / self._rows_a_message))

    def _claim(self, number: int, limit: int, wait_s: float) -> list[Message]:
        deadline_s = time.monotonic() + wait_s
        while not self._closed.is_set():
            left_s = max(0.0, deadline_s - time.monotonic())
            claim = ops.Claim(self._arn, self._reader, number, limit)
            messages: list[Message] = self._client.call(claim, wait=min(left_s, _WAIT_S))
            if messages or left_s <= _WAIT_S:
                return messages
        return []


class LeftReader(QueueReader):
    """The claims that a slot has open whose process is gone: nothing else is claimed. More may turn up while a process
    that was thought dead is not aware of it."""

    _claims_new = False

    def read(self, rows_max: int, wait_s: float) -> Chunk | None:
        if self._number > self._last:
            self._closed.wait(min(wait_s, _WAIT_S))
            self._last = self._state().last
        return super().read(rows_max, 0)
