"""A transaction being collected: what it acknowledges, sends and writes. Nothing happens before its commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from headrace.errors import InvalidParameter
from headrace.native.bodies import AttributeValue, Body, body_bytes
from headrace.native.messages import Outgoing, SentMessage
from headrace.queue.model import Entry, arn_of
from headrace.queue.operations import Transact, TransactOutcome


class HasArn(Protocol):
    """A queue's handle, sync or async."""

    @property
    def arn(self) -> str: ...


class HasReceipt(Protocol):
    """A received message, sync or async."""

    @property
    def receipt(self) -> bytes: ...

    @property
    def queue_arn(self) -> str: ...


class Collected:
    """What both transactions have in common: they collect, and turn into one Transact operation.

    Args:
        name: whose state is written, and whose fence guards it; empty if neither is used.
        epoch: what `fence(name)` answered; None writes unfenced.
    """

    def __init__(self, name: str, epoch: int | None) -> None:
        self._name = name
        self._epoch = epoch
        self._receipts: dict[str, list[bytes]] = {}
        self._entries: list[tuple[str, list[Entry]]] = []
        self._state: list[tuple[bytes, bytes | None]] = []
        self._claims: list[tuple[str, str, int]] = []
        self._expect: list[tuple[bytes, bytes | None]] = []
        self.sent: list[SentMessage] = []
        """After the commit: the messages sent, in the order of the calls of `send`."""

    def acknowledge(self, *messages: HasReceipt) -> None:
        """Delete received messages. At the commit each must still be in flight, else ReceiptExpired and nothing is done."""
        for message in messages:
            self._receipts.setdefault(message.queue_arn, []).append(message.receipt)

    def send(
        self,
        queue: HasArn | str,
        body: Body,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        delay: float | None = None,
        group: str | None = None,
        dedup_id: str | None = None,
        dead_letter_of: HasArn | str | None = None,
    ) -> None:
        """Send a message, arguments as in Outgoing, to any queue (a handle, a name or an ARN), or publish it to a topic
        (a handle or an ARN)."""
        source = _arn(dead_letter_of) if dead_letter_of is not None else None
        entry = Outgoing(body, attributes, delay, group, dedup_id, source).entry()
        arn = _arn(queue)
        if self._entries and self._entries[-1][0] == arn:
            self._entries[-1][1].append(entry)
        else:
            self._entries.append((arn, [entry]))

    def put(self, key: bytes | str, value: Body) -> None:
        """Write a value of this transaction's state: bytes, str or JSON, at most 16 MiB; the key at most 1,024 bytes."""
        self._state.append((self._key(key), body_bytes(value)))

    def remove(self, key: bytes | str) -> None:
        """Remove a value of this transaction's state, if it is there."""
        self._state.append((self._key(key), None))

    def expect(self, key: bytes | str, value: Body | None) -> None:
        """Commit only if this is the value under the key, or, for None, if there is none; else StateChanged and nothing is
        done. Of two transactions that expect the same, one succeeds."""
        self._expect.append((self._key(key), None if value is None else body_bytes(value)))

    def acknowledge_claims(self, queue: HasArn | str, reader: str, number: int) -> None:
        """Delete the messages of `reader`'s claims up to `number`."""
        self._claims.append((_arn(queue), reader, number))

    def _operation(self) -> Transact | None:
        """The whole of it; None if it would do nothing."""
        if not (self._receipts or self._entries or self._state or self._claims or self._expect):
            return None
        return Transact(
            list(self._receipts.items()),
            self._entries,
            self._state,
            self._claims,
            self._name,
            self._epoch,
            self._expect,
        )

    def _committed(self, outcome: TransactOutcome) -> None:
        self.sent = [SentMessage(sent) for batch in outcome.sent for sent in batch]

    def _key(self, key: bytes | str) -> bytes:
        if not self._name:
            raise InvalidParameter("name", "''", "state has an owner: client.transact(name=…)")
        return body_bytes(key)


def _arn(queue: HasArn | str) -> str:
    return arn_of(queue) if isinstance(queue, str) else queue.arn
