"""A queue's handle, and the messages received from it: for threads. `aio_queue` is the twin for an event loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from headrace.errors import HeadraceError, OutcomeUnknown
from headrace.native import calls
from headrace.native.bodies import AttributeValue, Body
from headrace.native.messages import Outgoing, PeekedMessage, Received, SentMessage, StoredMessage, entries_of
from headrace.native.retry import PAUSE_FIRST_S
from headrace.native.settings import Settings, SettingValues, from_stored, to_fields, to_ms
from headrace.native.transaction import HasReceipt
from headrace.native.transport import Transport
from headrace.queue import operations as ops
from headrace.queue.model import ClaimState, Delivery, MoveTask, QueueCounts, arn_of, short_name


class Queue:
    """A queue's handle; made by `Client.queue`. It holds no state: two handles of a queue are the same."""

    __slots__ = ("_transport", "arn")

    def __init__(self, transport: Transport, arn: str) -> None:
        self._transport = transport
        self.arn = arn

    @property
    def name(self) -> str:
        return short_name(self.arn)

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    # Sending

    def send(
        self,
        body: Body,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        delay: float | None = None,
        group: str | None = None,
        dedup_id: str | None = None,
    ) -> SentMessage:
        """Store one message. It is on the disk when this returns. Arguments as in Outgoing.

        Raises:
            CallerError: it was refused (too long, no group on a FIFO queue, …); nothing was stored.
            OutcomeUnknown: the connection broke; it may have been stored. Not with a `dedup_id`: then it is sent again.
        """
        entry = Outgoing(body, attributes, delay, group, dedup_id).entry()
        return calls.sent(self._transport.call(ops.Send(self.arn, [entry])))[0]

    def send_many(
        self, messages: Iterable[Body | Outgoing], *, delay: float | None = None, group: str | None = None
    ) -> list[SentMessage]:
        """Store messages, up to 10,000 in one call and one commit; more take several, one after another.

        Args:
            messages: bodies, or Outgoing where a body alone does not say enough; a generator is read as it is sent.
            delay, group: for the bodies.

        Returns:
            An answer a message, in order. All are on the disk.

        Raises:
            PartlyRefused: some were refused; the others are stored.
            HeadraceError: a call failed; a note tells how many messages were stored by the calls before it.
        """
        outcomes: list[Any] = []
        try:
            for send in calls.sends(self.arn, entries_of(messages, delay=delay, group=group)):
                outcomes += self._transport.call(send)
        except HeadraceError as error:
            calls.note_done(error, outcomes)
            raise
        return calls.sent(outcomes)

    # Receiving

    def receive(
        self,
        max: int = 10,  # noqa: A002 - reads best where it is called
        *,
        wait: float = 20,
        visibility_timeout: float | None = None,
        attempt_id: str | None = None,
        holder: str | None = None,
    ) -> list[ReceivedMessage]:
        """Take messages: they are hidden from others until deleted, released, or their visibility timeout ends.

        Args:
            max: at most so many, 1 to 10,000. What is ready is given at once; it is not waited for more.
            wait: seconds to wait for the first message, 0 to 20.
            visibility_timeout: seconds until they are visible again, 0 to 43,200; None takes the queue's.
            attempt_id: FIFO queues only: asked again with it within five minutes, the same messages are given. So a
                receive whose answer was lost is asked again, and its groups do not wait for the timeout.
            holder: a name under which this process is present (`headrace.native.presence`): when it is gone, the messages
                are visible again at once.

        Returns:
            Messages in the order of the queue; empty if none came.
        """
        operation = calls.receive(
            self.arn, limit=max, visibility_timeout=visibility_timeout, attempt_id=attempt_id, holder=holder
        )
        deliveries = self._transport.call(operation, to_ms("wait", wait))
        return [ReceivedMessage(self, delivery) for delivery in deliveries]

    def take(
        self, sequences: Iterable[int], *, visibility_timeout: float | None = None, holder: str | None = None
    ) -> list[ReceivedMessage]:
        """Take exactly these messages, visible or delayed ones, out of turn: those that `peek` showed.

        Args:
            sequences: the `sequence` of each, 1 to 10,000 of them.
            visibility_timeout, holder: as in `receive`.

        Raises:
            PartlyRefused: some are gone (MessageNotFound), or in flight or not the first of their FIFO group
                (MessageNotVisible); its `outcomes` has the others. One alone raises its error itself.
        """
        operation = calls.take(self.arn, sequences, visibility_timeout=visibility_timeout, holder=holder)
        outcomes = calls.checked(self._transport.call(operation), wrap=partial(ReceivedMessage, self))
        return [ReceivedMessage(self, delivery) for delivery in outcomes]

    def consume(
        self, *, prefetch: int = 1, visibility_timeout: float | None = None, idle: float | None = None
    ) -> Iterator[ReceivedMessage]:
        """Messages for ever, one by one. Work with each in a `with` block: it is deleted when the block ends well.

            for message in queue.consume():
                with message:
                    handle(message.json())

        Args:
            prefetch: how many are taken at a time, 1 to 10,000. More than one pays if the work takes milliseconds;
                their visibility timeouts run while they wait here. Those left when the loop ends are released.
            visibility_timeout: as in `receive`.
            idle: end after so many seconds without a message; 0 when none is ready, None never.

        Raises:
            Unavailable: the broker cannot be reached, for longer than the client's patience.
        """
        patience = calls.Idleness(idle)
        while not patience.over:
            batch = self._receive_surely(prefetch, patience.wait, visibility_timeout)
            patience.note(len(batch))
            yield from self._each(batch)

    def delete(self, messages: Iterable[HasReceipt]) -> None:
        """Delete received messages of this queue, in calls of up to 10,000. Durable, idempotent.

        Raises:
            PartlyRefused: some receipts have expired (FIFO queues only); the others are deleted.
        """
        outcomes: list[Any] = []
        for batch in calls.slices(message.receipt for message in messages):
            outcomes += self._transport.call(ops.Delete(self.arn, batch))
        calls.checked(outcomes)

    def extend(self, messages: Iterable[HasReceipt], seconds: float, *, holder: str | None = None) -> None:
        """Let the visibility timeout of each end `seconds` from now; 0 makes it visible at once.

        Args:
            messages: received ones of this queue.
            seconds: 0 to 43,200 (12 hours), from the receive on.
            holder: tie the leases to it, as `receive` does: after it has come to another node of the broker, say.

        Raises:
            PartlyRefused: some are not in flight any more; the others are extended.
        """
        timeout_ms = to_ms("seconds", seconds)
        outcomes: list[Any] = []
        for batch in calls.slices((message.receipt, timeout_ms) for message in messages):
            outcomes += self._transport.call(ops.ChangeVisibility(self.arn, batch, holder, strict=True))
        calls.checked(outcomes)

    # Looking and managing

    def peek(self, max: int = 10, *, after: int = 0) -> list[PeekedMessage]:  # noqa: A002 - as in receive
        """Look at messages without receiving them, oldest first, in every state.

        Args:
            max: at most so many.
            after: only those with a greater `sequence`: to turn pages.
        """
        return [PeekedMessage(peeked) for peeked in self._transport.call(ops.Peek(self.arn, max, after))]

    def counts(self) -> QueueCounts:
        """How many messages are in which state, and totals since the broker started."""
        counts: QueueCounts = self._transport.call(ops.GetQueue(self.arn)).counts
        return counts

    def settings(self) -> Settings:
        return from_stored(self._transport.call(ops.GetQueue(self.arn)).info.settings)

    def change(self, **settings: Unpack[SettingValues]) -> Settings:
        """Change the settings given, at once. Returns all of them. Raises InvalidSetting, UnknownSetting."""
        return from_stored(self._transport.call(ops.ChangeSettings(self.arn, to_fields(settings))).settings)

    def purge(self) -> int:
        """Delete every message, those in flight too. Durable. Returns how many. Raises PurgeInProgress for 60 s."""
        purged: int = self._transport.call(ops.Purge(self.arn))
        return purged

    def remove(self) -> None:
        """Delete the queue with all its messages. Durable."""
        self._transport.call(ops.DeleteQueue(self.arn))

    def redrive(self, to: str | None = None, *, rate: int | None = None) -> MoveTask:
        """Begin to move the messages of this dead-letter queue. The broker goes on with it by itself.

        Args:
            to: the queue (name or ARN) that gets them; None gives each back to the queue it came from.
            rate: messages a second, 1 to 500; None as fast as it goes.
        """
        target = arn_of(to) if to is not None else None
        task: MoveTask = self._transport.call(ops.StartMove(self.arn, target, rate))
        return task

    def moves(self, max: int = 1) -> list[MoveTask]:  # noqa: A002 - as in receive
        """The newest redrives of this queue, newest first; `max` is 1 to 10."""
        tasks: list[MoveTask] = self._transport.call(ops.ListMoves(self.arn, max))
        return tasks

    # Claims: reading for those who keep their own position, such as streams

    def claim(
        self,
        reader: str,
        number: int,
        *,
        max: int = 10_000,  # noqa: A002 - as above
        wait: float = 0,
    ) -> list[StoredMessage]:
        """Bind messages to `reader`'s claim `number`, durably; asked again, the same messages in the same order.

        Args:
            reader: who reads; each has claims of its own.
            number: the last claim's + 1 binds new messages, one still open reads it again.
            max: at most so many are bound.
            wait: seconds to wait for the first message, 0 to 20.

        Returns:
            The claim's messages; empty if none came: then nothing is bound, and the same number is the next one still.

        Raises:
            ClaimRefused: any other number.
        """
        messages = self._transport.call(ops.Claim(self.arn, reader, number, max), to_ms("wait", wait))
        return [StoredMessage(message) for message in messages]

    def claims(self, reader: str) -> ClaimState:
        """The reader's claims: those from `acknowledged + 1` to `last` are open."""
        state: ClaimState = self._transport.call(ops.GetClaims(self.arn, reader))
        return state

    def acknowledge_claims(self, reader: str, number: int) -> ClaimState:
        """Delete the messages of the reader's claims up to `number`. Durable, idempotent."""
        state: ClaimState = self._transport.call(ops.AcknowledgeClaims(self.arn, reader, number))
        return state

    def release_claims(self, reader: str) -> None:
        """Forget the reader: messages of its open claims are visible again. Durable, idempotent."""
        self._transport.call(ops.ReleaseClaims(self.arn, reader))

    def _receive_surely(self, limit: int, wait: float, visibility_timeout: float | None) -> list[ReceivedMessage]:
        """Receive; nothing if the connection broke: what that call may have taken comes back by its timeout."""
        try:
            return self.receive(limit, wait=wait, visibility_timeout=visibility_timeout)
        except OutcomeUnknown:
            time.sleep(PAUSE_FIRST_S)
            return []

    def _each(self, batch: list[ReceivedMessage]) -> Iterator[ReceivedMessage]:
        """Yield them; release those that were not reached when the consumer stops."""
        given = 0
        try:
            for message in batch:
                given += 1
                yield message
        finally:
            if given < len(batch):
                with contextlib.suppress(HeadraceError):  # they come back by themselves, only later
                    self.extend(batch[given:], 0)


class ReceivedMessage(Received):
    """A received message. A context manager: deleted when the block ends well, released when it raises."""

    __slots__ = ("_queue",)

    def __init__(self, queue: Queue, delivery: Delivery) -> None:
        super().__init__(delivery)
        self._queue = queue

    @property
    def queue_arn(self) -> str:
        return self._queue.arn

    def delete(self) -> None:
        """It is done: delete it. Durable, idempotent. Raises ReceiptExpired on a FIFO queue if its lease has ended."""
        self._queue.delete([self])
        self._settled = True

    def extend(self, seconds: float) -> None:
        """Keep it for `seconds` from now (12 hours in all at most). Raises MessageNotInFlight if its lease has ended."""
        self._queue.extend([self], seconds)

    def release(self, delay: float = 0) -> None:
        """Give it back: visible to others after `delay` seconds. The receive counts."""
        self._queue.extend([self], delay)
        self._settled = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled:
            return
        if error is None:
            self.delete()
        else:
            with contextlib.suppress(HeadraceError):  # the block's error matters more; the timeout gives it back
                self.release()
